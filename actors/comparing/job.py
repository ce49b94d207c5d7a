"""The comparison, as the coordinator runs it: the steps of the three jobs, in one run, none of them twice.

rounds of writing -> an STM per PLM, one on FuseGen's weighted set, one on everything -> answers
-> fusers and policies on the answers; statistics and merged models -> judgement -> the winner is laid down
"""

import time
from typing import Any

from actors.board import Board
from actors.comparing import serving
from actors.comparing.made import Answers, Made, Place, where
from actors.comparing.summary import summarise
from actors.fusegen import Fusegen, Outcome
from actors.merging.job import MergeJob
from actors.routing.job import FoeJob
from actors.sources import local_files
from actors.status import enter
from actors.steps.runner import Call, Done, StepError, Steps, resources_of
from actors.writing import Writers
from cluster.session import Session
from cluster.storage import Run
from configs.schema.base import identity
from configs.schema.compare import EVAL, FUSING, CompareConfig


class CompareJob:
    """Runs one configuration in one run directory."""

    def __init__(self, config: CompareConfig, session: Session, run: Run, steps: Steps, board: Board) -> None:
        self.config, self.run_store, self.steps, self.board = config, run, steps, board
        self.writers = Writers(config, session)
        self.routing = FoeJob(config.foe(), session, run, steps, board)
        self.merging = MergeJob(config.merge(), session, run, steps, board)
        self.resources = resources_of(config.stm.final)
        self.known: dict[str, Any] = {"job": config.job, "name": config.name, "seed": config.seed}
        self.routing.known, self.merging.known = dict(self.known), self.known
        self.stm = {"stm": identity(config.stm.final), "labels": list(config.task.label_names)}

    def stop(self) -> None:
        """Free what the job holds."""
        self.writers.stop()

    def run(self) -> dict[str, Any]:
        """Do everything that is not done yet and return the summary."""
        started = time.time()
        self._check_inputs()
        made = self._made()
        self._enter("answering with the models that were made")
        answers = self._answered(made.alone, list(self.config.sets), made.texts)
        self._enter("judging")
        judged = self._judged(made, answers)
        clock = self._clocked(made)
        self._enter("laying down the winner")
        winner = judged.facts["winner"]
        serving.lay_down(self.config, self.steps, self.routing, made, winner, judged.facts["fusions"][winner])
        about = summarise(self.config, self.steps, made, judged, clock, started)
        seconds = round(time.time() - started, 1)
        summary = {"status": "done", **self.known, "seconds": seconds, **about}
        self.run_store.write_json("report.json", {"routing": made.routed.judgement.facts["methods"]})
        self.run_store.write_json("summary.json", summary)
        self.board.enter("done")
        return summary

    def _made(self) -> Made:
        """Samples, models and fusers."""
        self._enter("writing")
        method = Fusegen(self.config, self.steps, self.writers, self.board, lambda _: None)
        outcome = method.variant(self.config.variant[0], every_round=False)
        self.writers.stop()
        texts = self._texts(outcome)
        self._enter("training a model for each PLM, and two on all samples")
        stms, whole = self._trained(method, outcome, texts)
        self._enter("answering")
        named = {one["name"]: one for one in stms}
        answers = self._answered(named, [FUSING, *self.config.sets], texts)
        routed = self.routing.fuse(self._pool(answers, texts).key)
        return Made(outcome, texts, stms, whole, answers, routed, self.merging.fuse(stms, texts))

    def _enter(self, stage: str) -> None:
        enter(self.run_store, self.board, stage, self.known)

    def _check_inputs(self) -> None:
        """Have what only a worker can reach looked at before anything is paid for."""
        for source in (*self.config.sets.values(), self.config.routing.items):
            if source and not local_files(source):
                params = {"eval": identity(source), "labels": self.stm["labels"]}
                self.steps.one(Call("inputs", "actors.steps.evaluation:check", params))

    def _texts(self, outcome: Outcome) -> Done:
        routing = self.config.routing
        params = {
            "chain": list(outcome.chain.keys),
            "plms": [plm for plm, counts in outcome.chain.kept.items() if all(counts)],
            "labels": self.stm["labels"],
            "seed": self.config.seed,
            "held_out": routing.held_out,
            "items": identity(routing.items),
            "sets": {name: identity(source) for name, source in self.config.sets.items()},
        }
        done = self.steps.one(Call("texts", "actors.comparing.texts:write", params))
        for warning in done.facts["warnings"]:
            self.board.note(f"warning: {warning}")
        return done

    def _trained(
        self, method: Fusegen, outcome: Outcome, texts: Done
    ) -> tuple[list[Place], dict[str, Place]]:
        """The STM of each PLM, and FuseGen's and the pooled one by name."""
        given, routing = self.config.experts, self.config.routing
        wrote = texts.facts["counts"]["train"]
        plms = [plm for plm in wrote if plm not in given]
        held = 0.0 if routing.items else routing.held_out
        calls = [method.train_call(outcome, plms=[plm], held_out=held, final=True) for plm in plms]
        calls.append(method.train_call(outcome, weights=outcome.weights, final=True))
        calls.append(method.train_call(outcome, final=True))
        *mine, weighted, pooled = self.steps.do(calls)
        found = {plm: {"step": done.key} for plm, done in zip(plms, mine, strict=True) if _fit(done)}
        found |= {plm: {"model": model} for plm, model in given.items() if plm in wrote}
        absent = [plm.name for plm in self.config.plms if plm.name not in found]
        for plm in absent:
            self.board.note(f"{plm} wrote too little for a model of its own, and is left out")
        if len(found) < 2 or not _fit(weighted) or not _fit(pooled):
            raise StepError(f"nothing can be compared: no model for {', '.join(absent)}")
        stms: list[Place] = [
            {"name": plm.name, "domain": plm.name, "weight": 1.0, **found[plm.name]}
            for plm in self.config.plms
            if plm.name in found
        ]
        whole = {"fusegen": weighted, "pooled": pooled}
        return stms, {name: {"name": name, "step": done.key} for name, done in whole.items()}

    def _answered(self, models: dict[str, Place], sets: list[str], texts: Done) -> Answers:
        calls = {
            (model, name): Call(
                "answers",
                "actors.comparing.answering:answer",
                {"source": where(place), **self.stm, "texts": texts.facts["sets"][name]},
                self.resources,
            )
            for name in sets
            for model, place in models.items()
        }
        found: dict[str, dict[str, str]] = {}
        for (model, name), done in zip(calls, self.steps.do(list(calls.values())), strict=True):
            found.setdefault(model, {})[name] = done.key
        return found

    def _pool(self, answers: Answers, texts: Done) -> Done:
        requests = self.config.requests
        priced = requests.price_per_call is not None
        params = {
            "texts": texts.facts["sets"],
            "labels": self.stm["labels"],
            "answers": answers,
            "price": requests.price_per_call if priced else 1.0,
            "unit": requests.unit or "price units" if priced else "calls",
        }
        return self.steps.one(Call("pool", "actors.comparing.pooling:pool", params))

    def _judged(self, made: Made, alone: Answers) -> Done:
        methods, kind = made.routed.methods, made.kind
        curves: dict[str, tuple[str, float | None]] = {
            "best_single": (methods["best_single"], None),
            "frugal": (methods[f"frugal_{kind}"], made.rate),
            "ensemble": (methods["ensemble"], None),
            "foe": (methods[f"foe_{kind}"], None),
        }
        params = {
            "pool": made.routed.params["pool"],
            "sets": list(self.config.sets),
            "seed": self.config.seed,
            "alone": alone,
            "curves": curves,
            "fusions": [*alone, *curves],
        }
        return self.steps.one(Call("verdict", "actors.comparing.judging:judge", params))

    def _clocked(self, made: Made) -> Done:
        params = {
            "source": where(made.whole["fusegen"]),
            **self.stm,
            "texts": made.texts.facts["sets"][EVAL],
            "timed": self.config.requests.timed,
            "fused": made.routed.params,
            "kind": made.kind,
            "walked": made.routed.methods[f"frugal_{made.kind}"],
            "parts": made.routed.parts[made.kind],
            "rate": made.rate,
        }
        return self.steps.one(Call("clock", "actors.comparing.answering:clock", params, self.resources))


def _fit(done: Done) -> bool:
    return "skipped" not in done.facts
