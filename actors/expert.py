"""A model that answers: a persistent, restartable Ray actor around one expert.

As the process of a PLM (`actors.plm`), it has no state but its model, and remembers in a journal what it died
on. A block of several texts is given up after one death, since its parts are asked again anyway; a single
text after three, since two may be chance.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from actors.engines.base import EngineError
from actors.experts.base import Answer, Answerer, load_expert
from actors.failover import (
    MAX_CRASHES,
    CrashJournal,
    ExpertError,
    LateError,
    LostError,
    call_with_failover,
    guarded,
)
from actors.overlap import Overlap
from actors.replicas import launch
from configs.schema.expert import ExpertSpec

Loader = Callable[[ExpertSpec, Sequence[str], int], Answerer]


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers to a block of texts, in their order."""

    answers: list[Answer]
    seconds: float
    """Time the model took; waiting and restarts do not count, and blocks that overlap share it."""
    lost: bool = False
    """Whether the process died or hung, which costs a restart; what else fails costs little."""
    useless: bool = False
    """Whether the model can answer nothing at all."""


class Expert:
    """The process of one expert; `spec.blocks` calls of `answer` run at a time."""

    def __init__(
        self,
        spec: ExpertSpec,
        labels: Sequence[str],
        seed: int,
        journal: str,
        load: Loader = load_expert,
    ) -> None:
        """Load the model; a failure is raised by every method instead, so that nobody restarts in vain.

        `journal` is a name, unique to this actor, under which crashes are remembered on this machine.
        """
        self._journal = CrashJournal(Path(tempfile.gettempdir()) / f"amalgam-{journal}")
        self._overlap = Overlap()
        self._loaded: Answerer | EngineError
        try:
            self._loaded = load(spec, labels, seed)
        except EngineError as error:
            self._loaded = error

    @property
    def _model(self) -> Answerer:
        if isinstance(self._loaded, EngineError):
            raise self._loaded
        return self._loaded

    @ray.method(concurrency_group="status")
    def ready(self) -> dict[str, Any]:
        """Return the process id and the model's provenance; `EngineError` if it did not load."""
        return {"pid": os.getpid(), "describe": self._model.describe()}

    def answer(self, texts: Sequence[str]) -> Answered:
        """Answer a block of texts; errors for all if the model raises or keeps killing this process.

        `EngineError` when the model can answer nothing at all.
        """
        model = self._model
        block = blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()
        limit = MAX_CRASHES if len(texts) == 1 else 1
        with self._overlap.block(alone=self._journal.crashes(block) > 0) as seconds:
            try:
                answers = guarded(self._journal, block, lambda: model.answer(texts), limit)
            except ExpertError as error:
                return failed(texts, str(error), lost=isinstance(error, LostError))
            return Answered(answers, seconds())


def failed(texts: Sequence[str], why: str, *, lost: bool) -> Answered:
    """Errors for a whole block."""
    return Answered([Answer(error=why)] * len(texts), 0.0, lost)


def start_expert(
    spec: ExpertSpec,
    labels: Sequence[str],
    seed: int,
    *,
    num_cpus: float | None = None,
    load: Loader = load_expert,
) -> list[ActorHandle[Expert]]:
    """Start the replicas of an expert; see `launch`."""
    seen = tuple(labels)
    return launch(Expert, spec, lambda journal: (spec, seen, seed, journal, load), num_cpus)


async def answer_block(handle: ActorHandle[Expert], texts: Sequence[str], spec: ExpertSpec) -> Answered:
    """The answers of one replica to a block; errors when it cannot answer within its time.

    A process that took too long is restarted: nothing else gets it out of a text that it hangs on.
    """
    try:
        return await call_with_failover(lambda: handle.answer.remote(texts), deadline_s=spec.answer_timeout_s)
    except EngineError as error:
        return replace(failed(texts, str(error), lost=False), useless=True)
    except ExpertError as error:
        if isinstance(error, LateError):
            ray.kill(handle, no_restart=False)
        return failed(texts, str(error), lost=True)
