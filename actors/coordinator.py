"""The coordinator: the one actor that knows where a run stands, and the only writer of its directory.

It owns no state that is not in storage: killed and started again, it walks through the same steps, finds
those that are committed, and goes on with the first that is not. Drivers start it, watch it and may die.
"""

import contextlib
import os
import threading
from typing import Any

import ray
from ray.actor import ActorHandle

from actors.board import Board
from actors.observing import Observer
from actors.status import mark_failed
from actors.steps.runner import StepError, Steps
from cluster.session import Session
from cluster.storage import LEASE_S, Run, StorageError, digest
from configs.schema.compare import CompareConfig
from configs.schema.foe import FoeConfig
from configs.schema.fusegen import FusegenConfig
from configs.schema.merge import MergeConfig

NAMESPACE = "amalgam"
ORPHAN_S = 600.0
"""How long a coordinator stays after its run for drivers to ask about it."""
Config = FusegenConfig | CompareConfig | FoeConfig | MergeConfig


class Coordinator:
    """Runs one job in one run directory."""

    def __init__(self, uri: str, config: Config, session: Session) -> None:
        self.run_store, self.board = Run(uri), Board(observer=Observer(config.job, uri))
        self.halt, self.busy = threading.Event(), threading.Lock()
        self.owner = f"{ray.get_runtime_context().gcs_address}/{digest(uri)}"
        self.steps = Steps(self.run_store, self.halt.is_set)
        self.job = _job(config)(config, session, self.run_store, self.steps, self.board)

    def pid(self) -> int:
        """Process id."""
        return os.getpid()

    @ray.method(concurrency_group="watch")
    def view(self, since: int) -> dict[str, Any]:
        """Progress for a driver; events from number `since` on."""
        return self.board.view(since)

    @ray.method(concurrency_group="watch")
    def stop(self) -> None:
        """Ask the run to end at the next committed step or block."""
        self.halt.set()

    @ray.method(concurrency_group="run")
    def run(self) -> dict[str, Any]:
        """Do everything that is not done yet and return the summary; a second caller waits for the first."""
        with self.busy:
            try:
                return self._owned()
            finally:
                self._end_when_orphaned()

    def _end_when_orphaned(self) -> None:
        """A driver that lives ends this actor itself; without one it must not hold a node for ever."""
        context = ray.get_runtime_context()
        if context.get_actor_id() is None:
            return
        timer = threading.Timer(ORPHAN_S, ray.kill, [context.current_actor])
        timer.daemon = True
        timer.start()

    def _owned(self) -> dict[str, Any]:
        self.halt.clear()
        self.run_store.take_lease(self.owner)
        keeper = threading.Thread(target=self._keep_lease, daemon=True)
        keeper.start()
        try:
            return self.job.run()
        except (StepError, StorageError) as error:
            with contextlib.suppress(StorageError):  # what failed may be the storage itself
                mark_failed(self.run_store, str(error))
            raise
        finally:
            self.halt.set()
            self.job.stop()
            keeper.join()
            self.run_store.drop_lease()

    def _keep_lease(self) -> None:
        while not self.halt.wait(LEASE_S / 4):
            # A storage that fails for a moment must not end the keeping of the lease.
            with contextlib.suppress(StorageError):
                self.run_store.renew_lease(self.owner)


def _job(config: Config) -> type[Any]:
    """What runs a configuration; only that is imported, as a coordinator must be back soon after a crash."""
    if isinstance(config, CompareConfig):  # which is a FusegenConfig, too
        from actors.comparing.job import CompareJob

        return CompareJob
    if isinstance(config, FoeConfig):
        from actors.routing.job import FoeJob

        return FoeJob
    if isinstance(config, MergeConfig):
        from actors.merging.job import MergeJob

        return MergeJob
    from actors.fusegen_job import FusegenJob

    return FusegenJob


def _name(uri: str, config: Config) -> str:
    return f"coordinator/{digest([uri, config.model_dump(mode='json')])}"


def end(uri: str, config: Config) -> None:
    """End the coordinator of a run directory, if there is one."""
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(_name(uri, config), NAMESPACE))


def start(uri: str, config: Config, session: Session) -> ActorHandle:
    """Start the coordinator of a run directory, or find the one that is at work on this configuration."""
    actor = ray.remote(concurrency_groups={"run": 4, "watch": 4})(Coordinator).options(
        name=_name(uri, config),
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=0,
    )
    handle: ActorHandle = actor.remote(uri, config, session)
    return handle
