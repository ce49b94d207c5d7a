"""A language model that writes: a persistent, restartable Ray actor around one engine.

It loads its engine once and stays warm over all rounds. It has no state but the engine, so that a killed
process restarts anywhere and answers the same request with the same text. Ray restarts it without limit and
retries nothing; `generate_block` repeats a block until its deadline. Whatever goes wrong with a block ends
in its completions: an exception of the engine at once, the death of the process too where there are several
requests, since they are asked again in parts; a single one's when it happens three times.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from actors.engines.base import Completion, Engine, EngineError, Request, failure, load_engine
from actors.failover import (
    MAX_CRASHES,
    CrashJournal,
    ExpertError,
    LostError,
    call_with_failover,
    guarded,
)
from actors.overlap import Overlap
from actors.replicas import launch
from configs.schema.plm import PlmSpec, Sampling

Loader = Callable[[PlmSpec, Sequence[str], int], Engine]


@dataclass(frozen=True, slots=True)
class Generated:
    """The answers to a block of requests, in the order of the requests."""

    completions: list[Completion]
    seconds: float
    """Time the engine took; waiting and restarts do not count, and blocks that overlap share it."""
    fatal: bool = False
    """Whether the block ended its process."""


class Plm:
    """The process of one language model; `spec.blocks` calls of `generate` run at a time."""

    def __init__(
        self, spec: PlmSpec, labels: Sequence[str], seed: int, journal: str, load: Loader = load_engine
    ) -> None:
        """Load the engine; a failure is raised by every method instead, so that nobody restarts in vain.

        `journal` is a name, unique to this actor, under which crashes are remembered on this machine.
        """
        self._journal = CrashJournal(Path(tempfile.gettempdir()) / f"amalgam-{journal}")
        self._overlap = Overlap()
        self._loaded: Engine | EngineError
        try:
            self._loaded = load(spec, labels, seed)
        except EngineError as error:
            self._loaded = error

    @property
    def _engine(self) -> Engine:
        if isinstance(self._loaded, EngineError):
            raise self._loaded
        return self._loaded

    @ray.method(concurrency_group="status")
    def ready(self) -> dict[str, Any]:
        """Return the process id and the engine's provenance; `EngineError` if it did not load."""
        return {"pid": os.getpid(), "describe": self._engine.describe()}

    @ray.method(concurrency_group="status")
    def available(self, round: int, label: int, zero_shot: bool, ordinal: int, index: int = 0) -> int | None:
        """As `Engine.available`."""
        return self._engine.available(round, label, zero_shot, ordinal, index)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generated:
        """Answer a block of requests; error completions for all if it raises or keeps killing us.

        `EngineError` when the engine can answer nothing at all.
        """
        engine = self._engine
        block = blake2b("\n".join(request.id for request in requests).encode(), digest_size=16).hexdigest()
        limit = MAX_CRASHES if len(requests) == 1 else 1
        # Of blocks that a process died on together, only the guilty one is at work when it dies again.
        with self._overlap.block(alone=self._journal.crashes(block) > 0) as seconds:
            try:
                completions = guarded(
                    self._journal, block, lambda: engine.generate(requests, sampling), limit
                )
            except ExpertError as error:
                return failed(requests, str(error), fatal=isinstance(error, LostError))
            return Generated(completions, seconds())


def failed(requests: Sequence[Request], why: str, *, fatal: bool = False) -> Generated:
    """Error completions for a whole block."""
    return Generated([failure(why)] * len(requests), 0.0, fatal)


def start_plm(
    spec: PlmSpec,
    labels: Sequence[str],
    seed: int,
    *,
    num_cpus: float | None = None,
    load: Loader = load_engine,
) -> list[ActorHandle[Plm]]:
    """Start the replicas of a PLM; see `launch`."""
    seen = tuple(labels)
    return launch(Plm, spec, lambda journal: (spec, seen, seed, journal, load), num_cpus)


async def wait_ready(handle: ActorHandle[Plm], spec: PlmSpec) -> dict[str, Any]:
    """What `Plm.ready` says once the engine has loaded; `ExpertError` if it does not within its time."""
    return await call_with_failover(handle.ready.remote, deadline_s=spec.start_timeout_s)


async def generate_block(handle: ActorHandle[Plm], requests: Sequence[Request], spec: PlmSpec) -> Generated:
    """The answers of one replica to a block; error completions when it cannot answer within its time."""
    try:
        return await call_with_failover(
            lambda: handle.generate.remote(requests, spec.sampling), deadline_s=spec.request_timeout_s
        )
    except (ExpertError, EngineError) as error:
        return failed(requests, str(error))
