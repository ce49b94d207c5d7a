"""What the steps of a comparison have made, before it is judged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.fusegen import Outcome
from actors.merging.job import Fused as Merged
from actors.routing.job import Fused as Routed
from actors.steps.runner import Done
from cluster.storage import Run
from configs.schema.compare import FUSING

Place = dict[str, Any]
"""Where a model is: name, and `step` or `model`; of an STM also domain and weight."""
Answers = Mapping[str, Mapping[str, str]]
"""Keys of steps, by model and set."""


@dataclass(frozen=True)
class Made:
    """Samples, models and fusers, as keys of steps."""

    outcome: Outcome
    texts: Done
    stms: list[Place]
    """A model per PLM."""
    whole: dict[str, Place]
    """`fusegen` and `pooled`."""
    answers: Answers
    """Of the STMs."""
    routed: Routed
    merged: Merged

    @property
    def alone(self) -> dict[str, Place]:
        """Fusions that are one model, by name."""
        merged = {name: {"name": name, "step": done.key} for name, done in self.merged.models.items()}
        return {**self.whole, **merged}

    @property
    def kind(self) -> str:
        """The fuser of the policy that rehearsals recommend."""
        return str(self.routed.judgement.facts["policy"]).removeprefix("frugal_")

    @property
    def rate(self) -> float:
        """The rate (lambda) at which they recommend it."""
        facts = self.routed.judgement.facts
        return float(facts["methods"][facts["policy"]]["lambda"])

    def best_single(self, run: Run) -> Place:
        """The STM that is best on what fusers learn from."""
        details = run.read_json(f"steps/{self.routed.judgement.key}/judgement.json")
        return next(one for one in self.stms if one["name"] == details["best_single"])

    @property
    def needs(self) -> dict[str, list[str]]:
        """By fusion, the steps that it takes beyond the samples, which all have in common."""
        routed, kind = self.routed, self.kind
        trained = [one["step"] for one in self.stms if "step" in one]
        heard = [*trained, *(self.answers[one["name"]][FUSING] for one in self.stms)]
        weights = self.outcome.weights
        frugal = [*routed.parts[kind], *routed.rehearsals[f"frugal_{kind}"]]
        found = {
            "fusegen": [*([weights.key] if weights else []), self.whole["fusegen"]["step"]],
            "pooled": [self.whole["pooled"]["step"]],
            "best_single": heard,
            "ensemble": trained,
            "foe": [*heard, routed.methods[f"foe_{kind}"]],
            "frugal": [*heard, *frugal, routed.methods[f"frugal_{kind}"]],
        }
        statistics = {
            "regmean": [place["step"] for place in self.merged.statistics["grams"]],
            "fisher": self.merged.statistics["fisher"],
        }
        for name, done in self.merged.models.items():
            solved = self.merged.solved.get(name, [])
            found[name] = [*trained, *statistics.get(name, []), *solved, done.key]
        return found


def where(place: Place) -> Place:
    """What steps must know to open a model."""
    return {key: place[key] for key in ("name", "step", "model") if key in place}
