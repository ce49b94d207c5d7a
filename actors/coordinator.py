"""The coordinator: the one actor that knows where a run stands, and the only writer of its directory.

It owns no state that is not in storage: killed and started again, it walks through the same steps, finds
those that are committed, and goes on with the first that is not. Drivers start it, watch it and may die.
"""

import contextlib
import os
import threading
import time
from typing import Any

import ray
from ray.actor import ActorHandle

from actors import fusegen, outputs
from actors.board import Board
from actors.steps.runner import Call, StepError, Steps
from actors.writing import Writers
from cluster.session import Session
from cluster.storage import LEASE_S, Run, StorageError, digest
from configs.schema.base import identity
from configs.schema.fusegen import FusegenConfig

NAMESPACE = "amalgam"
ORPHAN_S = 600.0
"""How long a coordinator stays after its run for drivers to ask about it."""


class Coordinator:
    """Runs one FuseGen job in one run directory."""

    def __init__(self, uri: str, config: FusegenConfig, session: Session) -> None:
        self.run_store, self.config = Run(uri), config
        self.board = Board(config.samples.rounds)
        self.halt, self.busy = threading.Event(), threading.Lock()
        self.owner = f"{ray.get_runtime_context().gcs_address}/{digest(uri)}"
        self.writers = Writers(config, session)
        self.steps = Steps(self.run_store, self.halt.is_set)

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
            return self._run()
        except (StepError, StorageError) as error:
            outputs.mark_failed(self.run_store, str(error))
            raise
        finally:
            self.halt.set()
            self.writers.stop()
            keeper.join()
            self.run_store.drop_lease()

    def _keep_lease(self) -> None:
        while not self.halt.wait(LEASE_S / 4):
            # A storage that fails for a moment must not end the keeping of the lease.
            with contextlib.suppress(StorageError):
                self.run_store.renew_lease(self.owner)

    def _run(self) -> dict[str, Any]:
        started = time.time()
        config = self.config
        self._check_inputs()
        report = outputs.Outputs(config, self.run_store, self.steps, started)
        method = fusegen.Fusegen(config, self.steps, self.writers, self.board, report.progress)
        for name in config.variant:
            method.variant(name, every_round=name == config.variant[0])
        outcomes = method.outcomes
        self.writers.stop()
        self.board.enter("training the final model and what it is compared with")
        for outcome in outcomes.values():
            method.embed(outcome, config.stm.final)
        calls = fusegen.baseline_calls(method)
        models = dict(zip(calls, self.steps.do(list(calls.values())), strict=True))
        result = models[config.variant[0]]
        if "skipped" in result.facts:
            raise StepError(f"step {result.key}: no model can be trained: {result.facts['skipped']}")
        trained = {name: done.key for name, done in models.items() if "skipped" not in done.facts}
        scores = self._evaluate(outcomes[config.variant[0]], trained)
        self.board.enter("writing the results")
        summary = report.publish(outcomes, trained, scores)
        self.board.enter("done")
        return summary

    def _check_inputs(self) -> None:
        """Have what only a worker can reach looked at before anything is paid for."""
        source = self.config.eval
        if source and (source.dataset or "://" in (source.path or "")):
            params = {"eval": identity(source), "labels": list(self.config.task.label_names)}
            self.steps.one(Call("inputs", "actors.steps.evaluation:check", params))

    def _evaluate(self, main: fusegen.Outcome, trained: dict[str, str]) -> dict[str, Any] | None:
        """Accuracy of every model and of the union model of every round; None without evaluation data."""
        if self.config.eval is None:
            return None
        self.board.enter("evaluating on real labels")
        fusegen.embed_evaluation(self.config, self.steps)
        by_round = {f"round/{number}": key for number, key in enumerate(main.unions) if key}
        calls = fusegen.predict_calls(self.config, trained | by_round)
        predictions = dict(zip(calls, self.steps.do(list(calls.values())), strict=True))
        params = {
            "predictions": {name: done.key for name, done in predictions.items()},
            "result": self.config.variant[0],
            "seed": self.config.seed,
            "n_labels": len(self.config.task.labels),
        }
        facts = self.steps.one(Call("compare", "actors.steps.evaluation:compare", params)).facts
        scores: dict[str, Any] = facts["models"]
        return scores


def _name(uri: str, config: FusegenConfig) -> str:
    return f"coordinator/{digest([uri, config.model_dump(mode='json')])}"


def end(uri: str, config: FusegenConfig) -> None:
    """End the coordinator of a run directory, if there is one."""
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(_name(uri, config), NAMESPACE))


def start(uri: str, config: FusegenConfig, session: Session) -> ActorHandle:
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
