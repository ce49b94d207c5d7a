"""Pretrained language models (PLMs) that write: which engine runs one, how it samples, what it may use.

Engines are told apart by `kind`: `recorded` replays stored generations, `transformers` runs a causal or
encoder-decoder model. Code that comes with a checkpoint is never executed.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from configs.schema.base import RESOURCE, Strict


class SelfDebias(Strict):
    """Self-debiasing: tokens that the prompts of the other labels make likelier are damped."""

    decay: PositiveFloat = 200.0
    """Speed at which the excess probability damps a token."""
    floor: float = Field(default=0.01, gt=0, le=1)
    """Smallest factor."""


class Sampling(Strict):
    """How a continuation is drawn, token by token."""

    temperature: PositiveFloat = 1.0
    """Divisor of the logits."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """Keep the smallest set of tokens with at least this probability; 1 keeps all."""
    top_k: NonNegativeInt = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    min_new_tokens: NonNegativeInt = 0
    """Neither the end token nor a stop string ends a text before so many tokens."""
    max_new_tokens: PositiveInt = 100
    """Longest continuation, in tokens."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ('"',)
    """Strings that end a text; the closing quote by default, as prompts end in an open one."""
    self_debias: SelfDebias | None = None
    """Damp what the prompts of the other labels would write too; costs one more stream per other label."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_new_tokens > self.max_new_tokens:
            limits = f"min_new_tokens ({self.min_new_tokens}), max_new_tokens ({self.max_new_tokens})"
            raise ValueError(f"{limits}: the first must not exceed the second")
        return self


class RecordedEngine(Strict):
    """Stored generations: columns `plm`, `label_name`, `text` and, where used, `split`, `seed`, `round`."""

    kind: Literal["recorded"] = "recorded"
    path: str | None = None
    """A `.parquet`, `.jsonl` or `.jsonl.gz` file, local or on any storage that pyarrow opens."""
    mode: Literal["exact", "pool"] = "exact"
    """`exact`: round r returns the rows of round r; `pool`: draws without replacement."""
    plm: str | None = None
    """Name of the model in the file; the PLM's name when empty."""
    split: str | None = None
    """Value of the column `split` to use; all rows when empty."""
    zero_shot_split: str | None = None
    """Exact mode: the split that continues the zero-shot texts beyond round 0."""
    seed: int | None = None
    """Value of the column `seed` to use; all rows when empty."""


class TransformersEngine(Strict):
    """A causal or encoder-decoder model, run by the library transformers."""

    kind: Literal["transformers"] = "transformers"
    model: str = Field(min_length=1)
    """Local folder or hub id."""
    revision: str | None = None
    """Commit, tag or branch of the hub model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; auto is float32 on CPU and the checkpoint's own on a GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is the GPU where there is one."""
    chat: Literal["auto", "always", "never"] = "auto"
    """Wrap prompts in the tokenizer's chat template; auto does where it has one."""
    system: str | None = None
    """System message of the chat."""


EngineSpec = Annotated[RecordedEngine | TransformersEngine, Field(discriminator="kind")]


class Price(Strict):
    """Price of a million tokens, in the currency of your report."""

    prompt: NonNegativeFloat
    """Tokens read."""
    completion: NonNegativeFloat
    """Tokens written."""


class PlmSpec(Strict):
    """One language model that writes."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """What reports and record ids call it."""
    engine: EngineSpec
    """What runs it."""
    sampling: Sampling = Sampling()
    """How it samples."""
    batch_size: PositiveInt = 32
    """Requests per block: the unit of work, loss and retry."""
    replicas: PositiveInt = Field(default=1, json_schema_extra=RESOURCE)
    """Processes that run the model side by side."""
    num_cpus: NonNegativeFloat = Field(default=1.0, json_schema_extra=RESOURCE)
    """CPUs that Ray reserves for one replica."""
    num_gpus: NonNegativeFloat = Field(default=0.0, json_schema_extra=RESOURCE)
    """GPUs that Ray reserves for one replica; fractions share one."""
    accelerator_type: str | None = Field(default=None, json_schema_extra=RESOURCE)
    """GPU model that Ray must find, e.g. A100."""
    start_timeout_s: PositiveFloat = Field(default=300.0, json_schema_extra=RESOURCE)
    """Time in which a replica must have loaded its model, in seconds."""
    request_timeout_s: PositiveFloat = Field(default=600.0, json_schema_extra=RESOURCE)
    """Time in which a block must be answered, restarts of the process included, in seconds."""
    price_per_million_tokens: Price | None = Field(default=None, json_schema_extra=RESOURCE)
    """What the tokens cost, for the report and the plan."""
