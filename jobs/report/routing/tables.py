"""Rows of the tables of a fusion of experts."""

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from matplotlib.ticker import MaxNLocator

from jobs.report.routing.facts import BOUNDS, FRUGAL, FUSER, RIVALS, SINGLE, VOTES, Facts
from jobs.report.routing.words import method

MOST_EXPERTS = 8
"""Experts that are compared one by one; of more, only those on the front."""
Row = dict[str, Any]


def methods(facts: Facts) -> list[Row]:
    """Groups of compared methods: `title`, `rows` of (name, label, method, whether on the front)."""
    best = SINGLE + (facts.single_name or "")
    singles = [name for name in facts.methods if name.startswith(SINGLE) and name != best]
    if len(singles) > MOST_EXPERTS:
        singles = [name for name in singles if facts.on_front(name)]
    groups = {
        "Frugal policies": facts.policies,
        "Rivals that choose whom to ask": [n for n in RIVALS if n in facts.methods],
        "Asking everyone: fusers of all outputs": facts.fusers,
        "Asking everyone: votes": [n for n in VOTES if n in facts.methods],
        "One expert": [*(["best_single"] if facts.single else []), *singles],
        "For orientation: nobody can have these": [n for n in BOUNDS if n in facts.methods],
    }
    placed = {name for names in groups.values() for name in names}
    others = [n for n in facts.methods if n not in placed and not n.startswith(SINGLE)]
    groups["Others"] = others
    return [
        {"title": title, "rows": [_method(facts, name) for name in _ordered(facts, names)]}
        for title, names in groups.items()
        if names
    ]


def _ordered(facts: Facts, names: Sequence[str]) -> list[str]:
    first = {facts.policy: 0, "best_single": 1}
    return sorted(names, key=lambda name: (first.get(name, 2), -facts.methods[name]["accuracy"]))


def _method(facts: Facts, name: str) -> tuple[str, str, Mapping[str, Any], bool]:
    label = method(name)
    if name == "best_single" and facts.single_name:
        label = f"{label}: {facts.single_name}"
    return name, label, facts.methods[name], facts.on_front(name)


def rates(facts: Facts) -> list[Row]:
    """What each rate buys: `first` and `last` rate of those that do the same, `expected` and `seen` points,
    whether it is that of the result."""
    seen = {point["lambda"]: point for point in facts.seen}
    pairs = [(point, seen.get(point["lambda"])) for point in facts.expected]

    def alike(pair: tuple[Mapping[str, Any], Mapping[str, Any] | None]) -> Any:  # noqa: ANN401
        return [(p["accuracy"], p["cost"]) if p else None for p in pair]

    rows = []
    for _, group in groupby(pairs, alike):
        same = list(group)
        expected, found = same[0]
        every = [point["lambda"] for point, _ in same]
        main = facts.rate in every
        rows.append({"first": every[0], "last": every[-1], "expected": expected, "seen": found, "main": main})
    return rows


def rates_for(facts: Facts) -> dict[str, list[Row]]:
    """The rate for round prices (`cost`), and for round accuracies (`accuracy`), as an artefact finds it."""
    every = facts.expected
    if len({(p["accuracy"], p["cost"]) for p in every}) < 3:
        return {}
    costs = _round([point["cost"] for point in every])
    accuracies = _round([point["accuracy"] for point in every])
    return {
        "cost": [
            {
                "wanted": wanted,
                **max((p for p in every if p["cost"] <= wanted), key=lambda p: (p["accuracy"], -p["cost"])),
            }
            for wanted in costs
        ],
        "accuracy": [
            {
                "wanted": wanted,
                **min(
                    (p for p in every if p["accuracy"] >= wanted), key=lambda p: (p["cost"], -p["accuracy"])
                ),
            }
            for wanted in accuracies
        ],
    }


def _round(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    ticks = MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [round(float(tick), 9) for tick in ticks if low <= tick <= high]


def comparisons(facts: Facts) -> list[Row]:
    """Per rival the points of the difference at equal price, and spans of prices where the policy is
    `better`, is `worse`, or neither can be shown (`open`)."""
    found = facts.report.get("comparisons") or {}
    rows = []
    for name in [n for n in RIVALS if n in found] + [n for n in found if n not in RIVALS]:
        points = [point for point in found[name] if point.get("ci95")]
        if points:
            rows.append({"name": name, "points": points, **_spans(points)})
    return rows


def _spans(points: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    def kind(point: Mapping[str, Any]) -> str:
        low, high = point["ci95"]
        return "better" if low > 0 else "worse" if high < 0 else "open"

    spans: dict[str, list[tuple[float, float]]] = {"better": [], "worse": [], "open": []}
    for name, group in groupby(points, kind):
        run = [point["cost"] for point in group]
        spans[name].append((run[0], run[-1]))
    return spans


def places(facts: Facts, rate: float) -> Mapping[str, Sequence[float]]:
    """Per expert the share of requests that ask it first, second, third, later and never, at a rate."""
    for entry in facts.report.get("sequences") or []:
        if entry["lambda"] == rate:
            found: Mapping[str, Sequence[float]] = entry["places"]
            return found
    return {}


def asked(facts: Facts) -> Row | None:
    """Who is asked: `rates` (up to three, the cheapest first) with `places`, experts by how often they are
    asked; `every` rate with the shares at all."""
    entries = facts.report.get("sequences") or []
    if not entries:
        return None
    shown = _three(facts, [entry["lambda"] for entry in entries])
    weight = {name: sum(1 - places(facts, rate)[name][-1] for rate in shown) for name in entries[0]["places"]}
    names = sorted(weight, key=lambda name: -weight[name])
    every = []
    for row in rates(facts):
        found = places(facts, row["first"])
        if found:
            every.append({**row, "shares": [1 - found[name][-1] for name in names]})
    return {
        "names": names,
        "rates": [{"lambda": rate, "places": places(facts, rate)} for rate in shown],
        "every": every,
        "inputs": any(sum(place[0] for place in entry["places"].values()) < 0.999 for entry in entries),
    }


def _three(facts: Facts, known: Sequence[float]) -> list[float]:
    """A cheap rate, one between, and that of the result; fewer where the walks do not differ."""
    last = facts.rate if facts.rate in known else known[0]
    points = {point["lambda"]: point["cost"] for point in facts.seen}
    if last not in points or len(points) < 3:
        return [last]
    cheaper = sorted({cost: rate for rate, cost in points.items() if cost < points[last]}.items())
    if not cheaper:
        return [last]
    middle = min(cheaper, key=lambda pair: abs(pair[0] - (cheaper[0][0] + points[last]) / 2))
    return list(dict.fromkeys([cheaper[0][1], middle[1], last]))


def unseen(facts: Facts) -> Row | None:
    """The test with unseen domains: `rows` by how many experts were asked, the `last` of them."""
    found = facts.report.get("unseen") or {}
    if not found.get("column"):
        return None
    rows = [(int(count), of) for count, of in sorted(found["experts"].items(), key=lambda item: int(item[0]))]
    return {**found, "rows": rows, "last": rows[-1][1]}


def published(facts: Facts) -> list[Row]:
    """Published figures beside ours, for the outputs that the authors recorded (foe.md, 5.1)."""
    names = facts.names
    recorded = len(names) == 20 and {re.sub(r"\d+", "", name) for name in names} == {"Expert"}
    classes = (facts.report.get("confusion") or {}).get("columns") or []
    if not recorded or len(classes) != 20:
        return []
    held_out, combined = "held-out validation items", "the experts' combined training set"
    rows = [("foe_mlp", 0.8213, held_out), ("foe_mlp", 0.8423, combined), ("foe_logistic", 0.8312, combined)]
    return [
        {"name": name, "published": value, "on": on, "method": facts.methods.get(name)}
        for name, value, on in rows
    ]


def kind_of(name: str) -> str:
    """The kind of a method: how the figure draws it."""
    if name.startswith(FRUGAL) or name in RIVALS:
        return "curve"
    if name.startswith(SINGLE):
        return "expert"
    return "fuser" if name.startswith(FUSER) else "vote" if name in VOTES else "bound"
