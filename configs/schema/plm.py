"""Pretrained language models (PLMs) that write: which engine runs one, how it samples, what it may use.

Engines are told apart by `kind`: `recorded` replays stored generations, `transformers` runs a causal or
encoder-decoder model, `vllm` a causal one at speed, `openai` asks one behind a URL. Code that comes with a
checkpoint is never executed.
"""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

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
    writer: str = "plm"
    """Column that names the model; another one where texts of domains, say, stand for those of models."""
    split: str | None = None
    """Value of the column `split` to use; all rows when empty."""
    zero_shot_split: str | None = None
    """Exact mode: the split that continues the zero-shot texts beyond round 0."""
    seed: int | None = None
    """Value of the column `seed` to use; all rows when empty."""
    latency_s: NonNegativeFloat = Field(default=0.0, json_schema_extra=RESOURCE)
    """Time that a block takes, in seconds, as it would with a model: to measure everything around one."""


class LocalEngine(Strict):
    """What all engines have in common that run a checkpoint themselves."""

    model: str = Field(min_length=1)
    """Local folder or hub id."""
    revision: str | None = None
    """Commit, tag or branch of the hub model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; auto is float32 on CPU and the checkpoint's own on a GPU."""
    chat: Literal["auto", "always", "never"] = "auto"
    """Wrap prompts in the tokenizer's chat template; auto does where it has one."""
    system: str | None = None
    """System message of the chat."""

    @property
    def source(self) -> str:
        """Which checkpoint it is."""
        return f"{self.model}@{self.revision}" if self.revision else self.model


class TransformersEngine(LocalEngine):
    """A causal or encoder-decoder model, run by the library transformers."""

    kind: Literal["transformers"] = "transformers"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is the GPU where there is one."""


IN_WORK = 1000
"""Requests that vLLM is given at a time, in blocks."""
FIXED = (
    "disable_log_stats",
    "distributed_executor_backend",
    "dtype",
    "enable_prefix_caching",
    "enforce_eager",
    "generation_config",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "load_format",
    "logging_config",
    "max_model_len",
    "model",
    "quantization",
    "revision",
    "runner",
    "seed",
    "skip_tokenizer_init",
    "tensor_parallel_size",
    "tokenizer",
    "trust_remote_code",
    "worker_extension_cls",
)
"""Arguments of vLLM that `extra` must not touch."""
TEMPERATURES = (0.01, 2.0)
"""What vLLM takes."""


class VllmEngine(LocalEngine):
    """A causal model, run by vLLM: all requests of all blocks are in one continuous batch."""

    kind: Literal["vllm"] = "vllm"
    quantization: str | None = None
    """How the weights are quantized, e.g. fp8; as the checkpoint says when empty."""
    max_model_len: PositiveInt | None = None
    """Context in tokens, prompt and answer together; the model's own when empty."""
    enforce_eager: bool | None = None
    """Start sooner and run slower, without compiled graphs; on CPU only when empty."""
    tensor_parallel: PositiveInt = Field(default=1, json_schema_extra=RESOURCE)
    """GPUs of one machine that share the model; `num_gpus` must be as many at least."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1, json_schema_extra=RESOURCE)
    """Share of a GPU's memory to use; 0.9, or 0.9 of a fractional `num_gpus`, when empty."""
    kv_cache_gib: PositiveFloat | None = Field(default=None, json_schema_extra=RESOURCE)
    """Memory for keys and values, in GiB; when empty what is left on a GPU, and 1 on CPU."""
    blocks: PositiveInt | None = Field(default=None, json_schema_extra=RESOURCE)
    """Blocks of requests that a replica works on at a time; when empty as many as make a thousand requests,
    since those of a block that have ended leave room for others."""
    logprobs: bool = False
    """Record how likely each text is to the model, as `transformers` does; it takes vLLM an eighth of its
    speed. Also finds models whose probabilities are not numbers."""
    extra: dict[str, JsonValue] = Field(default_factory=dict)
    """Further arguments of vLLM's engine, e.g. {max_num_seqs: 512}."""

    def in_work(self, batch_size: int) -> int:
        """Blocks of some size that a replica works on at a time."""
        return self.blocks or -(-IN_WORK // batch_size)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        fixed = [name for name in FIXED if name in self.extra]
        if fixed:
            raise ValueError(f"extra: {fixed[0]} is the engine's own; it cannot be changed")
        if "trust_remote_code" in str(self.extra):
            raise ValueError("extra: trust_remote_code: code that comes with a checkpoint is never run")
        return self


RESERVED = ("messages", "model", "n", "prompt", "stream")
"""Fields of a request's body that `extra` must not touch."""


class OpenaiEngine(Strict):
    """A model behind a URL that speaks OpenAI's API: a server of your own, or a provider's."""

    kind: Literal["openai"] = "openai"
    url: str
    """Base of the addresses, e.g. http://127.0.0.1:8000/v1."""
    model: str = Field(min_length=1)
    """Name under which the server knows the model."""
    key_env: str | None = Field(default=None, json_schema_extra=RESOURCE)
    """Environment variable with the key, in capitals; it must be set where Ray's workers run. No key is sent
    when empty."""
    api: Literal["chat", "completions"] = "chat"
    """`chat` sends a prompt as a user's message, `completions` as a text to go on with: for base models."""
    system: str | None = None
    """System message of the chat."""
    extra: dict[str, JsonValue] = Field(default_factory=dict)
    """Further fields of the request's body, e.g. {top_k: 40}. A null leaves out one that is sent otherwise
    (max_tokens, seed, stop, temperature, top_p), for servers that do not know it."""
    concurrency: PositiveInt = Field(default=16, json_schema_extra=RESOURCE)
    """Requests of a block that a replica has in flight at a time."""
    timeout_s: PositiveFloat = Field(default=60.0, json_schema_extra=RESOURCE)
    """Time in which an attempt must be answered, in seconds."""
    retries: NonNegativeInt = Field(default=5, json_schema_extra=RESOURCE)
    """Further attempts where the server is overloaded (429), fails (408, 409, 5xx) or is late, or the
    connection breaks: after what Retry-After says up to two minutes, else after half a second, then twice as
    long each time, up to 8."""

    @property
    def source(self) -> str:
        """Which model it is, and where."""
        return f"{self.model} at {self.url}"

    @field_validator("url")
    @classmethod
    def _bare(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"\s", url):
            raise ValueError("an address such as http://127.0.0.1:8000/v1 is needed")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("neither a password nor a query may be in it; key_env names the key's variable")
        bare = url.rstrip("/")
        if bare.endswith("/completions"):
            raise ValueError("the base of the addresses is needed, which mostly ends in /v1")
        return bare

    @field_validator("key_env")
    @classmethod
    def _named(cls, name: str | None) -> str | None:
        # Keys have small letters or dashes; one that was put here must not be repeated in a message.
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            raise ValueError("the name of an environment variable in capitals is needed, not the key itself")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        reserved = [name for name in RESERVED if name in self.extra]
        if reserved:
            raise ValueError(f"extra: {reserved[0]} is the engine's own; it cannot be changed")
        if self.system and self.api != "chat":
            raise ValueError("system: belongs to api: chat")
        return self


EngineSpec = Annotated[
    RecordedEngine | TransformersEngine | VllmEngine | OpenaiEngine, Field(discriminator="kind")
]


def check_remote(sampling: Sampling) -> None:
    """ValueError for a way of sampling that a model behind a URL cannot be asked for."""
    if sampling.top_k > 1:
        raise ValueError(
            "sampling.top_k: a model behind a URL keeps all tokens (0) or the likeliest (1); where its "
            "server knows other numbers, give one in engine.extra"
        )
    if sampling.min_new_tokens:
        raise ValueError("sampling.min_new_tokens: a model behind a URL knows none; leave it out")
    if sampling.self_debias:
        raise ValueError("sampling.self_debias: a model behind a URL shows no probabilities; leave it out")


def check_no_gpu(num_gpus: float) -> None:
    """ValueError for GPUs that nobody would use."""
    if num_gpus:
        raise ValueError("num_gpus: the model runs behind a URL, and needs none here; leave it out")


def check_vllm(engine: VllmEngine, num_gpus: float) -> None:
    """ValueError for GPUs that vLLM would miss."""
    if engine.tensor_parallel > max(1, num_gpus):
        raise ValueError(
            f"engine.tensor_parallel: {engine.tensor_parallel} GPUs share the model, but num_gpus is "
            f"{num_gpus:g}"
        )


def check_drawn(sampling: Sampling) -> None:
    """ValueError for ways to draw texts that vLLM does not know."""
    low, high = TEMPERATURES
    if not low <= sampling.temperature <= high:
        raise ValueError(f"sampling.temperature: {low:g} to {high:g} for vLLM, got {sampling.temperature:g}")
    if sampling.self_debias:
        raise ValueError("sampling.self_debias: vLLM knows none; leave it out, or use kind: transformers")


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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.engine, OpenaiEngine):
            check_remote(self.sampling)
            check_no_gpu(self.num_gpus)
        if isinstance(self.engine, VllmEngine):
            check_vllm(self.engine, self.num_gpus)
            check_drawn(self.sampling)
        return self

    @property
    def blocks(self) -> int:
        """Blocks that a replica works on at a time."""
        return self.engine.in_work(self.batch_size) if isinstance(self.engine, VllmEngine) else 1
