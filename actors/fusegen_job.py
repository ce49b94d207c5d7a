"""The FuseGen job from inputs to results, as the coordinator runs it."""

import time
from typing import Any

from actors import fusegen, outputs, scaling, searching
from actors.board import Board
from actors.steps.runner import Call, StepError, Steps
from actors.writing import Writers
from cluster.session import Session
from cluster.storage import Run
from configs.schema.base import identity
from configs.schema.fusegen import FusegenConfig


class FusegenJob:
    """Runs one configuration in one run directory."""

    def __init__(self, config: FusegenConfig, session: Session, run: Run, steps: Steps, board: Board) -> None:
        self.config, self.run_store, self.steps, self.board = config, run, steps, board
        self.writers = Writers(config, session)

    def stop(self) -> None:
        """Free what the job holds."""
        self.writers.stop()

    def run(self) -> dict[str, Any]:
        """Do everything that is not done yet and return the summary."""
        started = time.time()
        config = self.config
        self._check_inputs()
        report = outputs.Outputs(config, self.run_store, self.steps, started)
        method = fusegen.Fusegen(config, self.steps, self.writers, self.board, report.progress)
        trials = searching.search(method) if config.search else []
        for name in config.variant:
            method.variant(name, every_round=name == config.variant[0])
        outcomes = method.outcomes
        self.writers.stop()
        self.board.holds(self.writers.held())
        self.board.enter("training the final model and what it is compared with")
        for outcome in outcomes.values():
            method.embed(outcome, config.stm.final)
        stages = scaling.stages_of(method) if config.baselines.scaling else []
        calls = fusegen.baseline_calls(method) | scaling.calls_of(method, stages)
        models = dict(zip(calls, self.steps.do(list(calls.values())), strict=True))
        result = models[config.variant[0]]
        if "skipped" in result.facts:
            raise StepError(f"step {result.key}: no model can be trained: {result.facts['skipped']}")
        trained = {name: done.key for name, done in models.items() if "skipped" not in done.facts}
        scores = self._evaluate(outcomes[config.variant[0]], trained)
        self.board.enter("writing the results")
        summary = report.publish(outcomes, trained, scores, stages, trials)
        self.board.enter("done")
        return summary

    def _check_inputs(self) -> None:
        """Have what only a worker can reach looked at before anything is paid for."""
        source = self.config.eval
        if source and (source.dataset or "://" in (source.path or "")):
            params = {"eval": identity(source), **self.config.task.about}
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
            **self.config.task.named_kind,
        }
        facts = self.steps.one(Call("compare", "actors.steps.evaluation:compare", params)).facts
        scores: dict[str, Any] = facts["models"]
        return scores
