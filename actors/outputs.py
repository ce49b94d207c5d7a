"""What a run leaves for people: the data set, the model, `summary.json` and the digest behind the report.

dataset/train.parquet, dataset/README.md   accepted texts with labels, weights and provenance
stm/                                       the final model with its card
summary.json                               stable keys, documented in docs/reference/results.md
report.json                                what the report is drawn from
"""

import time
from typing import Any

from actors.fusegen import WITHIN, Outcome
from actors.scaling import Stage, summary_of
from actors.searching import Trial
from actors.status import status_of
from actors.steps.kinds import KINDS
from actors.steps.runner import Call, Steps
from actors.writing import Round
from cluster.storage import Run
from configs.schema.fusegen import FusegenConfig

COUNTED = ("prompt_tokens", "completion_tokens", "seconds")


def _without_times(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in {"key", "wall_seconds"}}


class Outputs:
    """Writes the results of one run."""

    def __init__(self, config: FusegenConfig, run: Run, steps: Steps, started: float) -> None:
        self.config, self.run, self.steps, self.started = config, run, steps, started

    def progress(self, outcomes: dict[str, Outcome]) -> dict[str, Any]:
        """Refresh `summary.json` with what is known so far."""
        summary = self._summary(outcomes, None)
        if status_of(self.run) == "done":
            return summary
        summary["samples"]["shortfall"] = {}
        self.run.write_json("summary.json", {"status": "running", **summary})
        return summary

    def publish(
        self,
        outcomes: dict[str, Outcome],
        models: dict[str, str],
        scores: dict[str, Any] | None,
        stages: list[Stage],
        trials: list[Trial],
    ) -> dict[str, Any]:
        """Write everything at the end of a run."""
        main = outcomes[self.config.variant[0]]
        summary = {"status": "done", **self._summary(outcomes, scores)}
        if trials:
            summary["search"] = [trial.row() for trial in trials]
        if stages:
            summary["scaling"] = summary_of(stages, scores or {}, summary["costs"])
        params = {
            "chain": list(main.chain.keys),
            "plms": [plm.name for plm in self.config.plms],
            "models": main.models,
            "weights": main.weights.key if main.weights else None,
            "selections": main.selections,
            **self.config.task.about,
            "seed": self.config.seed,
        }
        digest = self.steps.one(Call("digest", "actors.steps.digest:digest", params))
        facts = {
            "result": self.config.variant[0],
            "summary": {k: summary[k] for k in ("final", "baselines", "samples")},
        }
        task = {"task": self.config.task.name, **self.config.task.about}
        data = {"chain": params["chain"], "weights": params["weights"], **task}
        publish = {**data, "model": models[self.config.variant[0]], **facts, "plms": params["plms"]}
        self.steps.one(Call("publish", "actors.steps.publishing:publish", publish))
        self.run.write_json("report.json", self._report(digest.key, main))
        self.run.write_json("summary.json", summary)
        return summary

    def _report(self, digest: str, main: Outcome) -> dict[str, Any]:
        found: dict[str, Any] = self.run.read_json(f"steps/{digest}/digest.json")
        last = main.diagnoses[max(main.diagnoses)] if main.diagnoses else {}
        return {
            **{name: value for name, value in found.items() if name != "points"},
            "cartography": {"points": found["points"], "shares": last.get("shares", {})}
            if found["points"]
            else None,
            "pair_matrix": last.get("pair_matrix", {}),
            "label_agreement": last.get("label_agreement", {}),
            "diversity": {"plms": last.get("diversity", {}), "rounds": found["diversity"]},
            "weight_history": main.weights.facts["history"] if main.weights else [],
            "plms": self.costs(main),
        }

    def _summary(self, outcomes: dict[str, Outcome], scores: dict[str, Any] | None) -> dict[str, Any]:
        config = self.config
        main = outcomes[config.variant[0]]
        scores = scores or {}
        result, *_ = config.variant
        others = {n: s for n, s in scores.items() if n != result and not n.startswith(WITHIN)}
        return {
            "job": config.job,
            "task": config.task.name,
            "name": config.name,
            "seed": config.seed,
            "preset": config.preset,
            "variant": result,
            "plms": [plm.name for plm in config.plms],
            "stm": {"rounds": config.stm.rounds.kind, "final": config.stm.final.kind},
            "baseline_stm": getattr(config.stm, config.baselines.stm).kind,
            "seconds": round(time.time() - self.started, 1),
            "final": scores.get(result, {}),
            "baselines": others,
            "samples": self.samples(main),
            "rounds": [self._round(main, record, scores) for record in main.rounds],
            "variants": {name: {"samples": self.samples(outcome)} for name, outcome in outcomes.items()},
            "costs": self.costs(main),
        }

    def samples(self, outcome: Outcome) -> dict[str, Any]:
        """Counts over all rounds, with what each PLM fell short of."""
        rejected: dict[str, int] = {}
        for record in outcome.rounds:
            for reasons in record.rejected.values():
                for reason, count in reasons.items():
                    rejected[reason] = rejected.get(reason, 0) + count
        kept = {plm.name: sum(outcome.chain.of(outcome.chain.kept, plm.name)) for plm in self.config.plms}
        wanted = self.config.samples.per_plm
        return {
            "asked": sum(sum(record.asked.values()) for record in outcome.rounds),
            "kept": sum(kept.values()),
            "rejected": dict(sorted(rejected.items())),
            "plms": kept,
            "shortfall": {plm: wanted - n for plm, n in kept.items() if n < wanted},
        }

    def _round(self, outcome: Outcome, record: Round, scores: dict[str, Any]) -> dict[str, Any]:
        score, measure = scores.get(f"round/{record.number}", {}), KINDS[self.config.task.kind].measure
        selection = outcome.selections[record.number] if record.number < len(outcome.selections) else None
        return {
            "round": record.number,
            "asked": record.asked,
            "kept": record.kept,
            "rejected": record.rejected,
            "dropped": record.dropped,
            "selection": selection,
            measure: score.get(measure),
            "ci95": score.get("ci95"),
            "n": score.get("n"),
            "diagnosis": _without_times(outcome.diagnoses.get(record.number, {})),
        }

    def costs(self, outcome: Outcome) -> dict[str, dict[str, Any]]:
        """Per PLM: requests, tokens, seconds of its engine, and money where prices are given."""
        costs = {}
        for plm in self.config.plms:
            sums = {n: sum(getattr(r, n).get(plm.name, 0) for r in outcome.rounds) for n in COUNTED}
            price = plm.price_per_million_tokens
            money = (
                price
                and (sums["prompt_tokens"] * price.prompt + sums["completion_tokens"] * price.completion)
                / 1e6
            )
            costs[plm.name] = {
                "asked": sum(r.asked.get(plm.name, 0) for r in outcome.rounds),
                "kept": sum(r.kept.get(plm.name, 0) for r in outcome.rounds),
                **sums,
                "seconds": round(sums["seconds"], 2),
                "cost": money,
            }
        return costs
