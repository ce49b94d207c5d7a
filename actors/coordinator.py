"""The coordinator: the one actor that knows where a run stands, and the only writer of its directory.

It owns no state that is not in storage: killed and started again, it walks through the same steps, finds
those that are committed, and goes on with the first that is not. Drivers start it, watch it and may die.
"""

import os
import threading
import time
from typing import Any

import ray
from ray.actor import ActorHandle

from actors import fusegen, outputs
from actors.board import Board
from actors.steps.runner import Call, StepError, Steps, StoppedError
from actors.writing import Writers
from cluster.session import Session
from cluster.storage import LEASE_S, Run, digest
from configs.schema.fusegen import FusegenConfig

NAMESPACE = "amalgam"


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

    def view(self, since: int) -> dict[str, Any]:
        """Progress for a driver; events from number `since` on."""
        return self.board.view(since)

    def stop(self) -> None:
        """Ask the run to end at the next committed step or block."""
        self.halt.set()

    def run(self) -> dict[str, Any]:
        """Do everything that is not done yet and return the summary; a second caller waits for the first."""
        with self.busy:
            return self._owned()

    def _owned(self) -> dict[str, Any]:
        self.halt.clear()
        self.run_store.take_lease(self.owner)
        keeper = threading.Thread(target=self._keep_lease, daemon=True)
        keeper.start()
        try:
            return self._run()
        finally:
            self.halt.set()
            self.writers.stop()
            keeper.join()
            self.run_store.drop_lease()

    def _keep_lease(self) -> None:
        while not self.halt.wait(LEASE_S / 4):
            self.run_store.renew_lease(self.owner)

    def _run(self) -> dict[str, Any]:
        started = time.time()
        config = self.config
        report = outputs.Outputs(config, self.run_store, self.steps, started)
        method = fusegen.Fusegen(config, self.steps, self.writers, self.board, report.progress)
        for name in config.variant:
            method.variant(name, every_round=name == config.variant[0])
        outcomes = method.outcomes
        self.writers.stop()
        self.board.enter("training the final model and what it is compared with")
        for outcome in outcomes.values():
            method.embed(outcome, config.stm.final)
        calls = fusegen.baseline_calls(method, outcomes)
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

    def _evaluate(self, main: fusegen.Outcome, trained: dict[str, str]) -> dict[str, Any] | None:
        """Accuracy of every model and of the union model of every round; None without evaluation data."""
        if self.config.eval is None:
            return None
        self.board.enter("evaluating on real labels")
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


def start(uri: str, config: FusegenConfig, session: Session) -> ActorHandle:
    """Start the coordinator of a run directory, or find the one that is at work."""
    actor = ray.remote(Coordinator).options(
        name=f"coordinator/{digest(uri)}",
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=4,
    )
    handle: ActorHandle = actor.remote(uri, config, session)
    return handle


__all__ = ["Coordinator", "StoppedError", "start"]
