"""The protocol of all engines: requests in, completions out, in the same order.

An engine is a pure function of its requests: a request carries its own seed, so that the answer depends
neither on what else is in the block nor on which process answers it, nor on how often it was asked before.
What is wrong with one request is said in its completion; what makes the engine useless is an `EngineError`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from configs.schema.plm import OpenaiEngine, PlmSpec, RecordedEngine, Sampling, VllmEngine

FinishReason = Literal["stop", "length", "exhausted", "error"]
Hear = Callable[[str], None]
"""Takes the next piece of a text that is being written."""


class EngineError(Exception):
    """An engine that cannot work as configured; the message is one line."""


class DeviceLostError(EngineError):
    """The engine is in a state from which only a new process recovers."""


@dataclass(frozen=True, slots=True)
class Request:
    """One text that is asked for."""

    id: str
    """Unique in the run."""
    prompt: str
    seed: int
    """Source of all randomness of this text, in [0, 2^63)."""
    label: int
    """Class id in the task."""
    round: int
    index: int
    """Running number among the requests of this PLM, round and label."""
    ordinal: int
    """Running number among the requests of this PLM and label over all rounds."""
    zero_shot: bool
    """Whether the prompt is without shots."""
    counter_prompts: tuple[str, ...] = ()
    """The same prompt for each other label, for self-debiasing."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one request."""

    text: str
    """The continuation, up to and including the token that completed a stop string."""
    finish_reason: FinishReason
    """`stop`: a stop string or the end token; `length`: the limit; `exhausted`: nothing left to replay;
    `error`: see `error`."""
    prompt_tokens: int = 0
    """Tokens read, self-debiasing's streams included, padding excluded."""
    completion_tokens: int = 0
    """Tokens written; the end token counts."""
    logprob: float | None = None
    """Mean natural log-probability of the tokens written, under the model's unmodified distribution."""
    cut: bool = False
    """The text is a finished sample: quotes, newlines and full stops in it do not end it."""
    error: str | None = None
    """Why there is no text."""


class Engine(Protocol):
    """One language model, ready to write."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer each request, in order; a request that cannot be answered gets an error completion."""
        ...

    def available(self, round: int, label: int, zero_shot: bool, ordinal: int, index: int = 0) -> int | None:
        """How many requests of this kind can be answered from `ordinal` and `index` on; None: no limit."""
        ...

    def describe(self) -> dict[str, str]:
        """Provenance for reports: engine, model, and what pins down its version."""
        ...


def failure(reason: str) -> Completion:
    """The completion of a request that failed."""
    return Completion("", "error", error=reason)


def load_engine(spec: PlmSpec, labels: Sequence[str], seed: int) -> Engine:
    """Build the engine of a PLM for a task with these label names; `EngineError` when it cannot work.

    `seed` is the run's; only replayed pools use it.
    """
    if isinstance(spec.engine, RecordedEngine):
        from actors.engines.recorded import Recorded

        return Recorded(spec.engine, spec.name, labels, seed)
    if isinstance(spec.engine, OpenaiEngine):
        from actors.engines.openai import Openai

        return Openai(spec.engine)
    if isinstance(spec.engine, VllmEngine):
        from actors.engines.vllm import Vllm

        return Vllm(spec.engine, spec.num_gpus)
    from actors.engines.hf import Transformers

    return Transformers(spec.engine)
