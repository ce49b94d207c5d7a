"""How many models are enough: the PLMs one after another, each time the one whose texts help most.

No test label is looked at for the order: a model trained on the texts of some PLMs is judged by its loss on
what was held out of the texts of all. Test accuracies are then measured for one PLM, for two and so on: with
all texts of each, and with as many texts in all as one PLM has.
"""

from dataclasses import dataclass
from typing import Any

from actors.fusegen import Fusegen, Outcome, writers_of
from actors.steps.runner import Call


@dataclass(frozen=True)
class Stage:
    """So many PLMs: the one that was added, all of them, their model's loss on texts held out, and the texts
    of each with which they have as many in all as one PLM has."""

    added: str
    plms: tuple[str, ...]
    loss: float
    share: int

    def names(self) -> dict[str, int | None]:
        """Names of its two models, and how many texts of each PLM they learn from (None: all)."""
        return {f"scaling/{len(self.plms)}/all": None, f"scaling/{len(self.plms)}/one": self.share}


def stages_of(method: Fusegen) -> list[Stage]:
    """The order of the PLMs of the result; K (K + 1) / 2 models are trained for it."""
    main = method.outcomes[method.config.variant[0]]
    kept = {plm: sum(main.chain.of(main.chain.kept, plm)) for plm in writers_of(main)}
    one = min(kept.values(), default=0)
    found: list[Stage] = []
    chosen: tuple[str, ...] = ()
    while len(chosen) < len(kept):
        losses = _losses(method, main, {plm: (*chosen, plm) for plm in kept if plm not in chosen})
        if not losses:
            break
        added = min(losses, key=lambda plm: (losses[plm], plm))
        chosen = (*chosen, added)
        found.append(Stage(added, chosen, losses[added], one // len(chosen)))
    return found


def calls_of(method: Fusegen, stages: list[Stage]) -> dict[str, Call]:
    """The models of each stage that are judged on test texts, by name."""
    main = method.outcomes[method.config.variant[0]]
    return {
        name: method.train_call(main, plms=sorted(stage.plms), per_plm=per_plm)
        for stage in stages
        for name, per_plm in stage.names().items()
    }


def summary_of(stages: list[Stage], scores: dict[str, Any], costs: dict[str, Any]) -> list[dict[str, Any]]:
    """What `summary.json` says: a row per stage, with what its PLMs' texts have cost together."""
    rows = []
    for stage in stages:
        paid = [costs[plm]["cost"] for plm in stage.plms]
        row: dict[str, Any] = {
            "added": stage.added,
            "plms": list(stage.plms),
            "held_out_loss": stage.loss,
            "tokens": sum(costs[plm]["completion_tokens"] for plm in stage.plms),
            "cost": None if None in paid else sum(paid),
        }
        for name in stage.names():
            row[name.rpartition("/")[2]] = scores.get(name)
        rows.append(row)
    return rows


def _losses(method: Fusegen, main: Outcome, tried: dict[str, tuple[str, ...]]) -> dict[str, float]:
    """What models trained on the texts of some PLMs lose on texts held out, for each addition."""
    share = method.config.selection.held_out
    calls = [
        method.train_call(main, plms=sorted(plms), held_out=share, score=True) for plms in tried.values()
    ]
    done = dict(zip(tried, method.steps.do(calls), strict=True))
    params = {
        "chain": list(main.chain.keys),
        "models": {plm: one.key for plm, one in done.items() if "skipped" not in one.facts},
        **method.about,
        "held_out": share,
    }
    judged = method.steps.one(Call("held-out", "actors.steps.diagnosis:held_out_losses", params))
    losses: dict[str, float] = judged.facts["losses"]
    return losses
