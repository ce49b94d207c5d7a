"""The protocol of models that answer: texts in, answers out, in the same order.

An answer depends on its text and on the expert alone: neither on what else is asked at the same time, nor on
which process answers, nor on how often it was asked before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from actors.engines.base import EngineError, Hear
from configs.schema.expert import ExpertSpec
from configs.schema.plm import OpenaiEngine, VllmEngine


@dataclass(frozen=True, slots=True)
class Answer:
    """What an expert returned for one text."""

    vector: NDArray[np.float64] | None = None
    """Classifiers, prompted ones too: probabilities (C,) of the task's labels, in their order. Generators:
    pooled states (d,), None where the model gives none."""
    text: str | None = None
    """What a generator wrote."""
    prompt_tokens: int = 0
    """Tokens read; words where a model has no tokens."""
    completion_tokens: int = 0
    """Tokens written."""
    error: str | None = None
    """Why there is no answer."""


class Answerer(Protocol):
    """One model, ready to answer."""

    light: bool
    """Whether an answer takes less time than to change threads for it."""

    def answer(self, texts: Sequence[str]) -> list[Answer]:
        """Answer each text, in order; one that cannot be answered gets an answer with an error."""
        ...

    def describe(self) -> dict[str, str]:
        """Provenance for reports: kind, model, and what pins down its version."""
        ...


@runtime_checkable
class RemoteAnswerer(Answerer, Protocol):
    """One model that works elsewhere: it answers texts side by side, and its callers need not wait."""

    async def reply(self, texts: Sequence[str]) -> list[Answer]:
        """As `answer`, on the caller's event loop; cancelling gives the answers up."""
        ...

    async def tell(self, text: str, hear: Hear) -> Answer:
        """The answer to one text, whose pieces `hear` gets as they are written, maybe from another thread."""
        ...


def load_expert(spec: ExpertSpec, labels: Sequence[str], seed: int) -> Answerer:
    """Load an expert for a task with these labels; `EngineError` in one line when it cannot work.

    `seed` is the run's; generators draw from it where they sample.
    """
    model = spec.model
    if model.kind == "prompted":
        from actors.experts.prompted import load_prompted

        return load_prompted(model, spec.num_gpus, labels)
    if model.kind == "generator":
        if isinstance(model.engine, OpenaiEngine):
            from actors.engines.openai import Openai
            from actors.experts.remote import RemoteGenerator

            return RemoteGenerator(model, Openai(model.engine), spec.name, seed)
        if isinstance(model.engine, VllmEngine):
            from actors.engines.vllm import Vllm
            from actors.experts.remote import RemoteGenerator

            return RemoteGenerator(model, Vllm(model.engine, spec.num_gpus), spec.name, seed)
        from actors.experts.generator import Generator

        return Generator(model, model.engine, spec.name, seed)
    from actors.experts.loading import load_classifier

    return load_classifier(model, labels)


def aligned(theirs: Sequence[str], named: dict[str, str], labels: Sequence[str]) -> NDArray[np.intp]:
    """Which of `labels` each label of a model is, by name; `EngineError` when one is none of them.

    `named` says what labels of the model are called in the task.
    """
    unknown = [name for name in named if name not in theirs]
    if unknown:
        raise EngineError(f"label_names: the model has no label {unknown[0]!r}; it has {', '.join(theirs)}")
    ours = [named.get(name, name) for name in theirs]
    if not set(ours) <= set(labels):
        raise EngineError(
            f"the model's labels are {', '.join(theirs)}; allowed: {', '.join(labels)} "
            "(map other names with label_names)"
        )
    places = {name: place for place, name in enumerate(labels)}
    return np.array([places[name] for name in ours], dtype=np.intp)


def placed(
    proba: NDArray[np.float64], places: NDArray[np.intp], labels: Sequence[str], counts: NDArray[np.int64]
) -> list[Answer]:
    """Answers with the probabilities (n, C') of a model's labels put where the task has them."""
    ours = np.zeros((len(proba), len(labels)))
    np.add.at(ours.T, places, proba.T)
    return [
        Answer(row, prompt_tokens=int(count))
        if np.isfinite(row).all()
        else Answer(error="the model's probabilities are not numbers")
        for row, count in zip(ours, counts, strict=True)
    ]
