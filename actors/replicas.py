"""The processes of one model, and how Ray Data hands them work: what models that write and models that answer
share.

    numbers -> map_batches(bridge) -> facts

The bridge is one light CPU actor that only awaits: it keeps a bounded number of blocks in flight, gives each
to the least busy of a model's long-lived actors, and hands rows of facts, never texts, to the coordinator.
Ray Data is imported where it is used: the processes of models need it not, and start sooner.
"""

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayTaskError

from actors.engines.base import EngineError
from actors.failover import call_with_failover
from cluster.storage import StorageError

T = TypeVar("T")

IN_FLIGHT = 64
AHEAD = 1
"""Blocks that a replica has besides those that it works on: the next."""
PARTS = 4
"""Parts that a failed block is asked again in."""
MAX_PENDING_CALLS = 64


class Sized(Protocol):
    """A configuration that says what a replica may use."""

    @property
    def name(self) -> str:
        """What reports call the model."""
        ...

    @property
    def replicas(self) -> int:
        """Processes side by side."""
        ...

    @property
    def num_cpus(self) -> float:
        """CPUs of one replica."""
        ...

    @property
    def num_gpus(self) -> float:
        """GPUs of one replica."""
        ...

    @property
    def accelerator_type(self) -> str | None:
        """GPU model that Ray must find."""
        ...

    @property
    def blocks(self) -> int:
        """Blocks that a replica works on at a time."""
        ...


def launch(
    kind: type, spec: Sized, arguments: Callable[[str], Sequence[Any]], num_cpus: float | None = None
) -> list[ActorHandle]:
    """Start the replicas of a model and return their handles at once; they load in the background.

    A replica that the cluster has no room for stays pending, which is what makes an autoscaler add a node.
    `arguments` makes those of `kind` from the name of the replica's crash journal; `num_cpus` replaces the
    CPUs of the configuration, per replica.
    """
    actor = ray.remote(  # type: ignore[call-overload]
        max_restarts=-1,
        max_task_retries=0,
        max_pending_calls=MAX_PENDING_CALLS,
        concurrency_groups={"status": 2},
    )(kind)
    sized = actor.options(
        num_cpus=spec.num_cpus if num_cpus is None else num_cpus,
        num_gpus=spec.num_gpus,
        accelerator_type=spec.accelerator_type,
        max_concurrency=spec.blocks,
    )
    return [sized.remote(*arguments(f"{spec.name}-{uuid.uuid4().hex}")) for _ in range(spec.replicas)]


async def ready_ones(replicas: Sequence[ActorHandle], timeout_s: float) -> tuple[list[ActorHandle], str]:
    """The replicas that have loaded in time, and why the last of the others has not; those are ended.

    `EngineError` when the model cannot work as configured.
    """
    waits = (call_with_failover(replica.ready.remote, deadline_s=timeout_s) for replica in replicas)
    answers = await asyncio.gather(*waits, return_exceptions=True)
    ready, why = [], ""
    for replica, answer in zip(replicas, answers, strict=True):
        if isinstance(answer, EngineError):
            raise answer
        if isinstance(answer, BaseException):
            why = f"did not start: {' '.join(str(answer).split())[:200]}"
            ray.kill(replica)
        else:
            ready.append(replica)
    return ready, why


class Turns:
    """The replicas of one model, of which the least busy is asked, a few calls at a time."""

    def __init__(self, replicas: Sequence[ActorHandle], blocks: int) -> None:
        """`blocks` are those that a replica works on at a time."""
        self.replicas = list(replicas)
        self.busy = [0] * len(self.replicas)
        self.turns = [asyncio.Semaphore(blocks + AHEAD) for _ in self.replicas]

    async def take(self, call: Callable[[ActorHandle], Awaitable[T]]) -> T:
        """What `call` returns for a replica, once that has a turn free."""
        choice = min(range(len(self.replicas)), key=self.busy.__getitem__)
        self.busy[choice] += 1
        try:
            # Waiting for a turn must not count as waiting for an answer, which has a time limit.
            async with self.turns[choice]:
                return await call(self.replicas[choice])
        finally:
            self.busy[choice] -= 1


def parts(block: Sequence[T]) -> Iterator[Sequence[T]]:
    """The parts that a failed block is asked again in."""
    size = math.ceil(len(block) / PARTS)
    for start in range(0, len(block), size or 1):
        yield block[start : start + size]


def warm_up() -> None:
    """Let Ray Data start what it starts once in a process, which takes seconds: while models load, say."""
    import ray.data

    ray.data.from_items([{"number": 0}]).randomize_block_order().materialize()  # a task for no worker


def sharded(
    bridge: type, arguments: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], name: str
) -> Iterator[dict[str, Any]]:
    """Facts that one `bridge` (a class for `map_batches`, made with `arguments`) yields for each row;
    StorageError where it cannot read or write."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.raise_original_map_exception = False, True
    blocks = ray.data.from_items([dict(row) for row in rows], override_num_blocks=len(rows))
    blocks.set_name(name)
    facts = blocks.map_batches(
        bridge,
        fn_constructor_kwargs=dict(arguments),
        batch_size=None,
        num_cpus=0.1,
        compute=ray.data.ActorPoolStrategy(
            size=1, max_concurrent_calls_per_actor=IN_FLIGHT, max_tasks_in_flight_per_actor=2 * IN_FLIGHT
        ),
    )
    try:
        yield from facts.iter_rows()
    except RayTaskError as error:
        if isinstance(error.cause, StorageError):  # its one line, without what Ray Data advises below it
            raise StorageError(str(error.cause).splitlines()[0]) from None
        raise
