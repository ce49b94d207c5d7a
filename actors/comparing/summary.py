"""What `summary.json` of a comparison says; its keys are documented in docs/reference/results.md."""

from typing import Any

from actors import outputs
from actors.comparing import costs, verdict
from actors.comparing.made import Made
from actors.steps.runner import Done, Steps
from configs.schema.compare import CompareConfig


def summarise(
    config: CompareConfig, steps: Steps, made: Made, judged: Done, clock: Done, started: float
) -> dict[str, Any]:
    """The fusions with what they are worth and cost, and what follows. Times are in `seconds`,
    `train_seconds`, `latency_ms` and, without a price, `serve_cost`; all else is the same every time."""
    run, winner = steps.run, judged.facts["winner"]
    ledger = costs.Ledger(run, config, clock.facts, len(made.stms))
    fusions = ledger.complete(judged.facts["fusions"], made.needs, made.whole["fusegen"])
    by_plm = outputs.Outputs(config, run, steps, started).costs(made.outcome)
    items = config.routing.items
    return {
        "task": config.task.name,
        "labels": list(config.task.label_names),
        "winner": winner,
        "advised": verdict.advised(fusions, winner),
        "recommendation": verdict.recommendation(fusions, winner, list(config.elsewhere)),
        "frontier": verdict.frontier(fusions),
        "final": {key: fusions[winner][key] for key in ("accuracy", "ci95", "macro_f1", "n")},
        "fusions": fusions,
        "stms": judged.facts["stms"],
        "best_single": made.best_single(run)["name"],
        "routing": {
            "fuser": made.kind,
            "lambda": made.rate,
            "learnt_from": "held-out samples" if items is None else items.path or items.dataset,
        },
        "timing": ledger.timing,
        "texts": made.texts.facts["counts"],
        "samples": costs.total(by_plm),
        "costs": by_plm,
        "warnings": made.texts.facts["warnings"],
    }
