"""Live experts: models that answer items while a job runs, and the items that they are asked about.

A `classifier` gives the task's labels their probabilities; a `generator` writes an answer, which is judged
against a reference. Labels are aligned by name, never by number.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from configs.schema.base import RESOURCE, Strict
from configs.schema.plm import (
    OpenaiEngine,
    Price,
    Sampling,
    TransformersEngine,
    VllmEngine,
    check_drawn,
    check_no_gpu,
    check_remote,
    check_vllm,
)
from configs.schema.task import Source

Judge = Literal["exact", "contains", "number", "label"]
Pooling = Literal["mean_all", "mean_output", "last_token"]

BLOCK = 64
"""Items of a block, unless a file says otherwise."""


class Items(Source):
    """The items that experts are asked about: texts with labels or references."""

    id: str | None = None
    """Column of the items' names; the numbers of their rows when empty."""
    domain: str | None = None
    """Column of what an item is about; the column `domain`, where there is one, when empty."""
    reference: str | None = None
    """Column of the right answer, which generators' answers are judged against."""


class ClassifierModel(Strict):
    """A model that gives every label its probability."""

    kind: Literal["classifier"] = "classifier"
    model: str = Field(min_length=1)
    """Folder or hub id of a Hugging Face sequence classifier, or the folder `stm` of a FuseGen run."""
    revision: str | None = None
    """Commit, tag or branch of the hub model."""
    label_names: dict[str, str] = Field(default_factory=dict)
    """What the model's labels are called in the task, where they have other names; several may mean one."""
    temperature: PositiveFloat = 1.0
    """Divisor of the logits; above 1 makes the model less sure."""
    max_length: PositiveInt = 256
    """Tokens of a text that are read; the rest is cut. A small task model reads what it was made for."""
    batch_size: PositiveInt = 32
    """Texts per forward pass."""


class Answering(Sampling):
    """How an answer is drawn: by default always the likeliest token, until the model ends it."""

    top_k: int = Field(default=1, ge=0)
    """Keep the k likeliest tokens; 0 keeps all."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end an answer and are cut from it."""


def _with_kind(engine: Any) -> Any:  # noqa: ANN401
    """The engine, which is one of the library transformers where it does not say."""
    return {"kind": "transformers", **engine} if isinstance(engine, dict) else engine


AnswerEngine = Annotated[
    TransformersEngine | VllmEngine | OpenaiEngine, Field(discriminator="kind"), BeforeValidator(_with_kind)
]


class GeneratorModel(Strict):
    """A language model that writes an answer."""

    kind: Literal["generator"] = "generator"
    engine: AnswerEngine
    """What runs it."""
    sampling: Answering = Answering()
    """How it samples."""
    prompt: str = "{text}"
    """What it is asked; `{text}` stands for the item's text."""
    judge: Judge = "exact"
    """What makes an answer right. `exact`: it is the reference, but for case, punctuation at its ends and
    spaces; `contains`: the reference is in it, word by word; `number`: its last number is the reference's;
    `label`: the first label that it names is the item's."""
    pooling: Pooling = "mean_all"
    """Which last-layer states become the feature vector: the mean over prompt and answer, the mean over the
    answer, or that of the last token. A model behind a URL or run by vLLM shows none: its answers are
    embedded."""
    batch_size: PositiveInt = 16
    """Prompts that are answered at a time; behind a URL `engine.concurrency` says so, and vLLM by itself."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "{text}" not in self.prompt:
            raise ValueError("prompt: {text} is missing, it stands for the item's text")
        if self.sampling.self_debias:
            raise ValueError("sampling.self_debias: an answer has no other labels' prompts; leave it out")
        if isinstance(self.engine, OpenaiEngine):
            check_remote(self.sampling)
        if not isinstance(self.engine, TransformersEngine) and self.pooling != "mean_all":
            raise ValueError("pooling: a model behind a URL or run by vLLM shows no states; leave it out")
        return self


ScoringEngine = Annotated[
    TransformersEngine | VllmEngine, Field(discriminator="kind"), BeforeValidator(_with_kind)
]


class PromptedModel(Strict):
    """A language model as a classifier: the probabilities that it gives the labels as answers to a prompt."""

    kind: Literal["prompted"] = "prompted"
    engine: ScoringEngine
    """What runs it."""
    prompt: str
    """What it is asked; `{text}` stands for the item's text."""
    label_texts: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    """What the model would say for a label, where that is not its name after a space."""
    neutral: str | None = None
    """A text that says nothing, like N/A: labels count by how much likelier than after it they are."""
    temperature: PositiveFloat = 1.0
    """Divisor of the log-probabilities; above 1 makes the model less sure."""
    max_length: PositiveInt = 256
    """Tokens of a text that are read; the rest is cut."""
    batch_size: PositiveInt = 16
    """Prompts per forward pass; vLLM decides by itself."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "{text}" not in self.prompt:
            raise ValueError("prompt: {text} is missing, it stands for the item's text")
        return self


class ExpertSpec(Strict):
    """One expert: a model, what a call costs, and what it may use."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """What reports call it."""
    model: Annotated[ClassifierModel | PromptedModel | GeneratorModel, Field(discriminator="kind")]
    """The model."""
    price_per_call: NonNegativeFloat | None = None
    """What one call costs."""
    price_per_million_tokens: Price | None = None
    """What tokens cost, on top of `price_per_call`."""
    trained_on: Source | None = None
    """What the expert was trained on: no item may be in it, unless `in_sample` says so."""
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
    answer_timeout_s: PositiveFloat = Field(default=600.0, json_schema_extra=RESOURCE)
    """Time in which a block must be answered, restarts of the process included, in seconds."""

    @property
    def priced(self) -> bool:
        """Whether it says what a call costs."""
        return self.price_per_call is not None or self.price_per_million_tokens is not None

    @property
    def judges_labels(self) -> bool:
        """Whether its answers are labels of the task."""
        return self.model.kind != "generator" or self.model.judge == "label"

    @property
    def gives_probabilities(self) -> bool:
        """Whether it gives every label of the task a probability."""
        return self.model.kind != "generator"

    @property
    def engine(self) -> AnswerEngine | None:
        """What runs its language model; None of other classifiers."""
        return None if self.model.kind == "classifier" else self.model.engine

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.engine, OpenaiEngine):
            check_no_gpu(self.num_gpus)
        if isinstance(self.engine, VllmEngine):
            check_vllm(self.engine, self.num_gpus)
            if self.model.kind == "generator":
                check_drawn(self.model.sampling)
        return self

    @property
    def blocks(self) -> int:
        """Blocks that a replica works on at a time."""
        return self.engine.in_work(BLOCK) if isinstance(self.engine, VllmEngine) else 1


class LiveExperts(Strict):
    """Experts that are asked while the job runs, all side by side."""

    kind: Literal["live"] = "live"
    items: Items
    """What they are asked about."""
    labels: tuple[str, ...] = ()
    """Names of the labels, in the order of their ids; those of the items, sorted, when empty."""
    pool: tuple[ExpertSpec, ...] = Field(min_length=1)
    """The experts."""
    block: PositiveInt = BLOCK
    """Items that an expert is sent at once: the unit of work, loss and resume."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the experts, in order."""
        return tuple(expert.name for expert in self.pool)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"pool: experts must have different names, got {', '.join(self.names)}")
        if self.labels and len(set(self.labels)) < max(len(self.labels), 2):
            raise ValueError(f"labels: two different names at least, got {', '.join(self.labels)}")
        for expert in self.pool:
            self._check(expert)
        return self

    def _check(self, expert: ExpertSpec) -> None:
        model = expert.model
        if model.kind == "classifier":
            wrong = sorted(set(model.label_names.values()) - set(self.labels)) if self.labels else []
            if wrong:
                raise ValueError(
                    f"pool: expert {expert.name}: label_names: {', '.join(wrong)} is no label of the task; "
                    f"allowed: {', '.join(self.labels)}"
                )
        elif model.kind == "generator" and model.judge != "label" and self.items.reference is None:
            raise ValueError(
                f"pool: expert {expert.name}: judge `{model.judge}` needs items.reference, the column of the "
                "right answers"
            )
