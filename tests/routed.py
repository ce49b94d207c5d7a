"""Summaries and reports of fusions of experts, made up so that every part of their pages is there."""

import json
from typing import Any

import numpy as np

from configs.load import load
from configs.schema.base import identity
from configs.schema.foe import FoeConfig
from jobs.report import render
from jobs.report.routing.facts import Facts

RATES = (0.0, 0.001, 0.004, 0.02, 0.1)
DOLLARS = "$ per 10,000 requests"


def config(**changes: Any) -> dict[str, Any]:
    config = identity(load("configs/foe/digits.yaml", FoeConfig))
    return {**json.loads(json.dumps(config)), **changes}


def names_of(count: int) -> list[str]:
    return [f"expert {number}" for number in range(count)]


def _prices(names: list[str]) -> list[float]:
    return [round(float(p), 3) for p in np.geomspace(0.5, 12, len(names))] if len(names) > 1 else [2.0]


def score(accuracy: float, cost: float, experts: float, against: float | None = None) -> dict[str, Any]:
    found = {"accuracy": accuracy, "cost": cost, "experts": experts}
    if against is not None:
        ci95 = [round(against - 0.02, 6), round(against + 0.02, 6)]
        found["ci95"] = [round(accuracy - 0.01, 6), round(accuracy + 0.01, 6)]
        found["against_best_single"] = {"difference": against, "ci95": ci95}
    return found


def _points(accuracies: list[float], costs: list[float]) -> list[dict[str, float]]:
    rows = zip(RATES, accuracies, costs, (2.4, 2.4, 2.0, 1.5, 1.0), strict=True)
    return [{"lambda": r, "accuracy": a, "cost": c, "experts": n} for r, a, c, n in rows]


def _curve(points: list[dict[str, float]], at: int, single: float) -> dict[str, Any]:
    point = points[at]
    found = score(point["accuracy"], point["cost"], point["experts"], round(point["accuracy"] - single, 6))
    return {**found, "lambda": point["lambda"], "aiq": 0.7, "points": points}


def summary(names: list[str], answer: str = "label", **changes: Any) -> dict[str, Any]:
    prices, single = _prices(names), 0.715
    whole, best = sum(prices), prices[-1]
    seen = _points([0.81, 0.81, 0.803, 0.76, 0.62], [v * whole for v in (0.4, 0.4, 0.3, 0.15, 0.05)])
    methods = {
        "foe_logistic": score(0.815, whole, len(names), 0.1),
        "any_correct": score(0.95, 1.0, 1.0, 0.235),
        "best_single": score(single, best, 1.0, 0.0),
        "mean_single": score(0.6, whole / len(names), 1.0, -0.115),
    }
    if answer == "label":
        methods |= {
            "majority": score(0.74, whole, len(names), 0.025),
            "frugalml": _curve(_points([0.78, 0.78, 0.77, 0.7, 0.6], [v["cost"] for v in seen]), 0, single),
            "cascade": _curve(_points([0.79, 0.78, 0.76, 0.7, 0.6], [v["cost"] for v in seen]), 0, single),
        }
    methods["input_knn"] = _curve(_points([0.7] * 5, [prices[0]] * 5), 0, single)
    methods["frugal_knn"] = _curve(seen, 1, single)
    methods |= {
        f"single/{name}": score(0.5 + 0.215 * (i + 1) / len(names), price, 1.0)
        for i, (name, price) in enumerate(zip(names, prices, strict=True))
    }
    return {
        "status": "done",
        "job": "foe",
        "name": "trial",
        "seed": 7,
        "answer": answer,
        "unit": DOLLARS,
        "items": {"fit": 4000, "test": 3000, "left_out": 0},
        "warnings": [],
        "seconds": 84.9,
        "policy": "frugal_knn",
        "aiq": 0.7,
        "largest_cost": whole,
        "frugal": [{**p, "ci95": [p["accuracy"] - 0.01, p["accuracy"] + 0.01]} for p in seen],
        "calibration": [{**p, "accuracy": round(p["accuracy"] + 0.004, 6)} for p in seen],
        "methods": methods,
        "artefact": "0123456789abcdef",
        **changes,
    }


def _places(names: list[str]) -> dict[str, list[float]]:
    found = {name: [0.0, 0.1, 0.05, 0.05, 0.8] for name in names}
    found[names[0]] = [1.0, 0.0, 0.0, 0.0, 0.0]
    return found


def _difference(values: list[float]) -> list[dict[str, Any]]:
    return [
        {"cost": 1.0 + i, "difference": value, "ci95": [round(value - 0.02, 6), round(value + 0.02, 6)]}
        for i, value in enumerate(values)
    ]


def report(names: list[str], classes: int = 3, domains: int = 4, answer: str = "label") -> dict[str, Any]:
    columns = names if answer == "expert" else [f"class {i}" for i in range(classes)]
    rows = [f"domain {i}" for i in range(domains)] if answer == "expert" else columns
    counts = [[50 if i == j else i + j + 1 for j in range(len(columns))] for i in range(len(rows))]
    steps = [
        {"expert": names[0], "current": 0.5, "best": 0.25},
        {"expert": names[-1], "current": 0.125, "best": 0.2},
    ]
    unseen = {"auroc": 0.655, "limit": 0.03, "flagged_seen": 0.05, "flagged_unseen": 0.133}
    return {
        "experts": [
            {"name": name, "price": price, "accuracy": 0.6, "accuracy_fit": 0.61, "only_one_right": 0.0125}
            for name, price in zip(names, _prices(names), strict=True)
        ],
        "best_single": names[-1],
        "comparisons": {
            "frugalml": _difference([0.05, 0.04, 0.0]),
            "input_knn": _difference([-0.1, 0.0, 0.06]),
        },
        "pareto": ["frugal_knn"],
        "sequences": [{"lambda": rate, "places": _places(names)} for rate in RATES],
        "confusion": {
            "rows": rows,
            "columns": columns,
            "counts": counts,
            "by": "domain" if answer == "expert" else "label",
        },
        "domains": [
            {
                "domain": f"domain {i}",
                "n": 100 + i,
                "policy": 0.8 + i / 1000,
                "best_single": 0.7,
                "any_correct": 0.9,
            }
            for i in range(domains)
        ],
        "unseen": {
            "column": "label",
            "values": ["class 2"],
            "n": [2900, 100],
            "experts": {"1": unseen, "4": {**unseen, "auroc": 0.883}},
            "roc": [[0.0, 0.0], [0.1, 0.6], [1.0, 1.0]],
        },
        "trace": [
            {
                "item": "i-17",
                "steps": steps,
                "answer": columns[0],
                "right": columns[-1],
                "worth": 0.0,
                "cost": 2.5,
            }
        ],
    }


def record(**changes: Any) -> dict[str, Any]:
    return {
        "version": "0.1.0",
        "hash": "x",
        "config": config(**changes),
        "inputs": {"data/items.parquet": "ab12"},
    }


def page(names: list[str], answer: str = "label", **changes: Any) -> str:
    return render(summary(names, answer, **changes), report(names, answer=answer), record())


def facts(summary: dict[str, Any], found: dict[str, Any] | None = None) -> Facts:
    return Facts(summary, found or {}, config())


LLMS = names_of(41)
FOUR = names_of(4)
