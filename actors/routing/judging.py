"""The step that judges: accuracy, price and area of every method, and what is better than what.

Which policy is the result, and at which rate it is compared, is decided by rehearsals on the items that are
learnt from, never on the items that are judged. Rivals are compared at the setting that is best for
them on the items that are judged, which favours them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from actors.routing.curves import Curve
from actors.routing.fitting import read_pool
from actors.routing.pool import Pool
from actors.routing.rehearsing import joined
from cluster.storage import Run, Step
from fusion.routing.evaluation import Point, aiq, hull, pareto
from fusion.statistics import bootstrap_interval

RESAMPLES = 2000
GRID = 24
MOST_SEQUENCES = 40
CURVES = ("frugalml", "cascade", "static_order", "random_order", "input_gate", "input_knn")
Floats = NDArray[np.float64]


def judge(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """`params`: pool, methods (name: step), rehearsals (policy: steps), seed, unseen (step)."""
    pool, seed = read_pool(run, params["pool"]), params["seed"]
    keys: dict[str, str] = params["methods"]
    curves = {name: Curve.read(run.below(f"steps/{key}")) for name, key in keys.items()}
    rehearsals = {name: joined(run, of)[0] for name, of in params["rehearsals"].items()}
    largest = float(pool.prices[pool.rows("test")].sum(axis=1).mean())
    chosen = choose(rehearsals, largest)
    best = {name: best_setting(rehearsals.get(name, curve)) for name, curve in curves.items()}
    single = curves["best_single"]
    methods = {
        name: _method(curve, best[name], single, largest, seed, curved=name in CURVES or name in rehearsals)
        for name, curve in curves.items()
    }
    names, known = pool.about.experts, pool.only(params["experts"])
    fit, test = pool.rows("fit"), pool.rows("test")
    for number, name in enumerate(names):
        methods[f"single/{name}"] = {
            "accuracy": round(float(pool.quality[test, number].mean()), 6),
            "cost": round(float(pool.prices[test, number].mean()), 6),
            "experts": 1.0,
        }
    main = curves[chosen]
    area = methods[chosen]["aiq"]
    details = {
        "experts": _experts(pool),
        "best_single": names[int(pool.quality[fit].mean(axis=0).argmax())],
        "comparisons": {name: along(main, curves[name], seed) for name in CURVES if name in curves},
        "pareto": _pareto(methods),
        "sequences": _sequences(run, keys[chosen], known.about.experts),
        "confusion": _confusion(known, main.answers[best[chosen]]),
        "domains": _domains(pool, main, best[chosen], single),
        "unseen": _facts(run, params["unseen"]),
        "trace": _trace(run, keys[chosen], known, main, best[chosen]),
    }
    step.files.write_json("judgement.json", details)
    return {
        "policy": chosen,
        "aiq": area,
        "largest_cost": round(largest, 6),
        "frugal": [
            {**point, "aiq": area, "ci95": _interval(worth, seed)}
            for point, worth in zip(main.points(), main.worth, strict=True)
        ],
        "calibration": rehearsals[chosen].points(),
        "methods": methods,
    }


def _points(curve: Curve) -> list[Point]:
    return [Point(float(c.mean()), float(w.mean())) for c, w in zip(curve.cost, curve.worth, strict=True)]


def choose(rehearsals: dict[str, Curve], largest: float) -> str:
    """The policy whose rehearsals are worth most for their price; `largest` is that of asking everyone."""
    return max(rehearsals, key=lambda name: (aiq(_points(rehearsals[name]), largest), name))


def best_setting(curve: Curve) -> int:
    """The most accurate setting, the cheapest of equals."""
    return int(max(range(len(curve.rates)), key=lambda i: (curve.worth[i].mean(), -curve.cost[i].mean())))


def _interval(values: Floats, seed: int) -> list[float]:
    return [round(v, 6) for v in bootstrap_interval(values, resamples=RESAMPLES, seed=seed)]


def _method(
    curve: Curve, setting: int, single: Curve, largest: float, seed: int, *, curved: bool
) -> dict[str, Any]:
    point = curve.points()[setting]
    gap = curve.worth[setting] - single.worth[0]
    found = {
        "accuracy": point["accuracy"],
        "ci95": _interval(curve.worth[setting], seed),
        "cost": point["cost"],
        "experts": point["experts"],
        "against_best_single": {"difference": round(float(gap.mean()), 6), "ci95": _interval(gap, seed)},
    }
    if curved:
        found |= {
            "lambda": point["lambda"],
            "aiq": round(aiq(_points(curve), largest), 6),
            "points": curve.points(),
        }
    return found


def _experts(pool: Pool) -> list[dict[str, Any]]:
    fit, test = pool.rows("fit"), pool.rows("test")
    return [
        {
            "name": name,
            "price": round(float(pool.expected_prices[k]), 6),
            "accuracy": round(float(pool.quality[test, k].mean()), 6),
            "accuracy_fit": round(float(pool.quality[fit, k].mean()), 6),
            "only_one_right": round(
                float(
                    ((pool.quality[test] > 0.5).sum(axis=1) == 1)[pool.quality[test, k] > 0.5].sum()
                    / len(test)
                ),
                6,
            ),
        }
        for k, name in enumerate(pool.about.experts)
    ]


def mixture(curve: Curve, cost: float) -> Floats | None:
    """Expected worth (m,) of the mixture of two settings that costs as much; None below the cheapest."""
    points = _points(curve)
    front = hull(points)
    if cost < front[0].cost:
        return None
    at = [points.index(point) for point in front]
    costs = [point.cost for point in front]
    upper = int(np.searchsorted(costs, cost, side="left"))
    if upper >= len(front):
        return curve.worth[at[-1]]
    if upper == 0 or costs[upper] == cost:
        return curve.worth[at[upper]]
    share = (cost - costs[upper - 1]) / (costs[upper] - costs[upper - 1])
    return np.asarray((1 - share) * curve.worth[at[upper - 1]] + share * curve.worth[at[upper]])


def along(main: Curve, other: Curve, seed: int) -> list[dict[str, Any]]:
    """The paired difference between two curves at equal prices, where both can be had."""
    low = max(min(p.cost for p in _points(curve)) for curve in (main, other))
    high = max(p.cost for curve in (main, other) for p in hull(_points(curve)))
    found = []
    for cost in np.unique(np.geomspace(max(low, high * 1e-3), max(high, low, 1e-9), GRID)):
        ours, theirs = mixture(main, cost), mixture(other, cost)
        if ours is not None and theirs is not None:
            gap = ours - theirs
            found.append(
                {
                    "cost": round(float(cost), 6),
                    "difference": round(float(gap.mean()), 6),
                    "ci95": _interval(gap, seed),
                }
            )
    return found


def _pareto(methods: dict[str, dict[str, Any]]) -> list[str]:
    """Methods that no other beats at their point; oracles do not count."""
    names = [name for name in methods if name not in {"any_correct", "mean_single"}]
    every = [
        (name, Point(p["cost"], p["accuracy"]))
        for name in names
        for p in methods[name].get("points", [methods[name]])
    ]
    best = pareto([point for _, point in every])
    return list(dict.fromkeys(name for (name, _), wins in zip(every, best, strict=True) if wins))


def _sequences(run: Run, key: str, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """By rate: how often each expert is asked first, second, third, later, and never."""
    arrays = load(run.read_bytes(f"steps/{key}/walks.safetensors"))
    rates = Curve.read(run.below(f"steps/{key}")).rates
    found = []
    for number, rate in enumerate(rates):
        order = arrays[f"calls.{number}"]
        places = np.stack([(order == expert) for expert in range(len(names))])
        counts = places.mean(axis=1)
        found.append(
            {
                "lambda": float(rate),
                "places": {
                    name: [
                        *(round(float(c), 6) for c in _padded(counts[e][:3])),
                        round(float(counts[e][3:].sum()), 6),
                        round(float(1 - counts[e].sum()), 6),
                    ]
                    for e, name in enumerate(names)
                },
            }
        )
    return found


def _padded(counts: Floats) -> list[float]:
    return [*counts, *([0.0] * (3 - len(counts)))]


def _confusion(pool: Pool, answers: NDArray[np.int64]) -> dict[str, Any]:
    """Rows: what an item is (its domain or label); columns: what was answered (a label or an expert)."""
    test = pool.rows("test")
    by_domain = "domain" in pool.items.column_names
    if by_domain:
        group = np.array([str(v) for v in pool.items["domain"].to_pylist()])[test]
        rows = sorted(set(group))
        of = np.searchsorted(rows, group)
    else:
        rows = list(pool.about.classes or pool.about.experts)
        of = pool.labels[test]
    columns = list(pool.about.experts if pool.about.answer == "expert" else pool.about.classes)
    counts = np.zeros((len(rows), len(columns)), int)
    np.add.at(counts, (of, answers), 1)
    return {
        "rows": rows,
        "columns": columns,
        "counts": counts.tolist(),
        "by": "domain" if by_domain else "label",
    }


def _domains(pool: Pool, main: Curve, setting: int, single: Curve) -> list[dict[str, Any]]:
    """Accuracy by domain of the result, the best single expert, and any right one."""
    if "domain" not in pool.items.column_names:
        return []
    test = pool.rows("test")
    group = np.array([str(v) for v in pool.items["domain"].to_pylist()])[test]
    return [
        {
            "domain": name,
            "n": int((group == name).sum()),
            "policy": round(float(main.worth[setting][group == name].mean()), 6),
            "best_single": round(float(single.worth[0][group == name].mean()), 6),
            "any_correct": round(float(pool.quality[test][group == name].max(axis=1).mean()), 6),
        }
        for name in sorted(set(group))
    ]


def _facts(run: Run, key: str) -> dict[str, Any]:
    facts = run.read_json(f"steps/{key}/manifest.json")
    return {name: value for name, value in facts.items() if name not in {"key", "wall_seconds"}}


def _trace(run: Run, key: str, pool: Pool, main: Curve, setting: int) -> list[dict[str, Any]]:
    """A few requests, step by step: one for each number of experts asked."""
    arrays = load(run.read_bytes(f"steps/{key}/walks.safetensors"))
    order, test = arrays[f"order.{setting}"], pool.rows("test")
    asked = (order >= 0).sum(axis=1)
    found = []
    for count in np.unique(asked)[:5]:
        row = int(np.flatnonzero(asked == count)[0])
        steps = [
            {
                "expert": pool.about.experts[expert] if expert < len(pool.about.experts) else "the input",
                "current": _number(arrays[f"current.{setting}"][row, place]),
                "best": _number(arrays[f"best.{setting}"][row, place]),
            }
            for place, expert in enumerate(order[row, :count])
        ]
        answer = int(main.answers[setting][row])
        right = int(pool.labels[test[row]])
        names = pool.about.experts if pool.about.answer == "expert" else pool.about.classes
        found.append(
            {
                "item": str(pool.items["item"][int(test[row])].as_py()),
                "steps": steps,
                "answer": names[answer],
                "right": names[right],
                "worth": round(float(main.worth[setting][row]), 6),
                "cost": round(float(main.cost[setting][row]), 6),
            }
        )
    return found


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
