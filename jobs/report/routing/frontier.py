"""The figure of cost and quality: all methods, and the upper end nearer."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from jobs.report.drawing import INK, MUTED, QUIET, SURFACE, canvas, legend, numbers, series
from jobs.report.routing.facts import BOUNDS, FRUGAL, SINGLE, Facts
from jobs.report.routing.labels import Label, place
from jobs.report.routing.tables import kind_of
from jobs.report.routing.words import amount, hundredth, method, pricing

HEIGHT = 318.0
STEPS = (1, 2, 2.5, 5, 10)
CROWDED = 12.0
"""Prices whose median is so many times below the highest need a logarithmic axis."""
NAMED_EXPERTS = 6
NEAR = 0.35
"""The upper end: this share of what the best method gains over the best single expert."""
STYLES: dict[str, tuple[str, str, str]] = {
    "frugalml": (series(1), "s", "-"),
    "cascade": (series(2), "^", "-"),
    "static_order": (series(3), "D", "-"),
    "random_order": (MUTED, "v", "--"),
    "input_gate": (series(5), "P", "-"),
    "input_knn": (series(7), "X", "-"),
}
"""Colour, marker and dashes of a curve, here and in the comparisons."""
DOTS = {
    "fuser": ("fuser of all outputs", "s", INK, 5.0),
    "vote": ("vote of all experts", "D", MUTED, 4.2),
    "expert": ("single expert", "o", MUTED, 3.6),
}
Drawn = tuple[Figure, str]
Points = list[tuple[float, float]]


def style(facts: Facts, name: str) -> tuple[str, str, str]:
    """Colour, marker and dashes of a curve."""
    if name.startswith(FRUGAL):
        number = facts.policies.index(name)
        return (series(0), "o", "-") if not number else (series(4 if number == 1 else 5 + number), "p", "-")
    return STYLES.get(name, (MUTED, "h", "-"))


def crowded(prices: Sequence[float]) -> bool:
    """Whether an axis of prices must be logarithmic to tell them apart."""
    paid = [price for price in prices if price > 0]
    return bool(paid) and float(np.median(paid)) * CROWDED < max(paid)


def price_axis(
    axes: Axes, facts: Facts, prices: Sequence[float], room: float = 0.06, *, most: int = 5, log: bool = False
) -> None:
    """Scale and ticks of the prices, `most` of them, with `room` at the right; starts where the first point
    is."""
    low, high = min(prices), max(prices)
    dollars = "$" if facts.unit.startswith("$") else ""
    if crowded(prices) or (log and low > 0):
        low = min(price for price in prices if price > 0)
        axes.set_xscale("log")
        axes.set_xlim(low / (high / low) ** 0.04, high * (high / low) ** room)
        ticks = LogLocator(10, subs=_subs(high / low)).tick_values(low, high)
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        span = high - low or high or 1.0
        axes.set_xlim(low - 0.05 * span, high + room * span)
        ticks = MaxNLocator(most, steps=STEPS).tick_values(low, high)
    axes.set_xticks([tick for tick in ticks if low * 0.999 <= tick <= high * 1.001])
    numbers(axes, "x", lambda value: dollars + amount(value))
    axes.set_xlabel(f"price, {facts.unit}")


def _subs(span: float) -> tuple[float, ...]:
    """Ticks within a decade, by how far prices span."""
    return (1.0, 2.0, 5.0) if span < 30 else (1.0, 3.0) if span < 1000 else (1.0,)


def overview(facts: Facts) -> Drawn | None:
    """Every method."""
    names = [name for name in facts.methods if name not in {*BOUNDS, "best_single"}]
    if not names:
        return None
    return _figure(facts, {name: facts.points(name) for name in names}, bound=True)


def upper_end(facts: Facts) -> Drawn | None:
    """The methods that come near the best one; None where that would be most of the overview."""
    if facts.single is None:
        return None
    best = max(y for name in facts.methods if name not in BOUNDS for _, y in facts.points(name))
    worst = min(y for name in facts.methods if name not in BOUNDS for _, y in facts.points(name))
    floor = best - max(0.02, NEAR * (best - facts.single["accuracy"]))
    if best - worst < 2 * (best - floor):
        return None
    shown = {
        name: [point for point in facts.points(name) if point[1] >= floor]
        for name in facts.methods
        if name not in {*BOUNDS, "best_single"}
    }
    shown = {name: points for name, points in shown.items() if points}
    return _figure(facts, shown, bound=False) if len(shown) > 1 else None


def _figure(facts: Facts, shown: dict[str, Points], *, bound: bool) -> Drawn:
    curves = [name for name in _curves(facts) if name in shown]
    dots = {kind: _dots(shown, kind) for kind in DOTS}
    entries = len(curves) + sum(map(bool, dots.values())) + 1
    figure = canvas(HEIGHT + 15 * -(-entries // 2))
    axes = figure.subplots()
    everything = [point for points in shown.values() for point in points]
    column, labels = _labels(facts, dots)
    price_axis(axes, facts, [x for x, _ in everything], 0.4 if column else 0.06)
    left = axes.get_xlim()[0]
    front = _front(axes, facts, everything)
    if bound:
        _bound(axes, facts)
    else:
        _band(axes, facts, min(y for _, y in everything))
    for name in reversed(curves):
        _curve(axes, facts, name, shown[name])
    for kind, points in dots.items():
        if points:
            title, marker, colour, size = DOTS[kind]
            x, y = np.array(sorted(points)).T
            axes.plot(
                np.maximum(x, left), y, marker, color=colour, markersize=size, label=title, zorder=4, **_EDGE
            )
    at = (facts.result["cost"], facts.result["accuracy"])
    axes.plot(*at, "o", color="none", markeredgecolor=INK, markeredgewidth=1.6, markersize=12, zorder=6)
    numbers(axes, "y", lambda value: f"{100 * value:.3g} %")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    axes.set_ylabel(f"{facts.measure} on {facts.judged:,} judged items")
    axes.margins(y=0.07)
    legend(figure, 2)
    place(figure, axes, labels, column, everything, [front, *(shown[name] for name in curves)])
    shape = "all methods" if bound else f"methods from {hundredth(min(y for _, y in everything))} on"
    return figure, f"Price and {facts.measure} of {shape}; the policy: {_point(facts)}"


_EDGE: dict[str, Any] = {"markeredgecolor": SURFACE, "markeredgewidth": 0.6, "linestyle": "none"}


def _curves(facts: Facts) -> list[str]:
    return [*facts.policies, *facts.rivals]


def _dots(shown: dict[str, Points], kind: str) -> dict[tuple[float, float], list[str]]:
    """Names by point, those of equal points together."""
    found: dict[tuple[float, float], list[str]] = {}
    for name, points in shown.items():
        if kind_of(name) == kind:
            found.setdefault(points[0], []).append(name)
    return found


def _curve(axes: Axes, facts: Facts, name: str, points: Points) -> None:
    colour, marker, dashes = style(facts, name)
    x, y = np.array(points).T
    main = name == facts.policy
    axes.plot(
        np.maximum(x, axes.get_xlim()[0]), y, dashes, marker=marker, color=colour, label=method(name),
        linewidth=2.2 if main else 1.4, markersize=5.2 if main else 4.4, zorder=5 if main else 3,
        markeredgecolor=SURFACE, markeredgewidth=0.5,
    )  # fmt: skip


def _front(axes: Axes, facts: Facts, everything: Points) -> Points:
    """Draw the front; returns its corners."""
    front = [point for point in facts.front() if point in set(everything)]
    if not front:
        return []
    front.append((max(x for x, _ in everything), front[-1][1]))
    x, y = np.array(front).T
    axes.plot(
        np.maximum(x, axes.get_xlim()[0]), y, color=QUIET, linewidth=5, alpha=0.75, drawstyle="steps-post",
        label="Pareto front", zorder=1, solid_capstyle="butt",
    )  # fmt: skip
    return [corner for (a, b), (c, d) in pairwise(front) for corner in ((a, b), (c, b), (c, d))]


def _bound(axes: Axes, facts: Facts) -> None:
    bound = facts.methods.get("any_correct")
    if bound is None:
        return
    axes.axhline(bound["accuracy"], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    called = method("any_correct") if facts.labels else "best answer of each item"
    axes.annotate(
        f"{called}: {hundredth(bound['accuracy'])}",
        (0, bound["accuracy"]), (3, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="bottom", fontsize=9, color=MUTED,
    )  # fmt: skip


def _band(axes: Axes, facts: Facts, floor: float) -> None:
    """Intervals of the policy."""
    points = sorted((p["cost"], *p["ci95"]) for p in facts.seen if p.get("ci95") and p["accuracy"] >= floor)
    if len(points) > 1:
        x, low, high = np.array(points).T
        axes.fill_between(x, low, high, color=series(0), alpha=0.13, linewidth=0, zorder=0)


def _point(facts: Facts) -> str:
    return f"{hundredth(facts.result['accuracy'])} at {pricing(facts.unit)(facts.result['cost'])}"


def _labels(
    facts: Facts, dots: dict[str, dict[tuple[float, float], list[str]]]
) -> tuple[list[Label], list[Label]]:
    """Labels of what asks everyone, for a column at the right, and of all else."""
    at = (facts.result["cost"], facts.result["accuracy"])
    few = len(facts.names) <= NAMED_EXPERTS
    front = set(facts.front())
    column = [
        Label(*point, _together(names))
        for point, names in sorted({**dots["fuser"], **dots["vote"]}.items(), key=lambda item: -item[0][1])
    ]
    found = [Label(*at, f"policy: {_point(facts)}", bold=True)]
    for point, names in sorted(dots["expert"].items(), key=lambda item: -item[0][1]):
        best = SINGLE + (facts.single_name or "") in names
        if few or best or point in front:
            found.append(Label(*point, _together(names)))
    return column, found


def _together(names: list[str]) -> str:
    """What points at one place are called."""
    called = [SHORT.get(name, method(name)) for name in names]
    text = ", ".join(called)
    return text if len(text) <= LONGEST or len(called) == 1 else f"{called[0]} and {len(called) - 1} more"


LONGEST = 15
"""Letters for which the column at the right has room."""
SHORT = {
    "foe_logistic": "logistic",
    "foe_trees": "trees",
    "ensemble": "mean",
    "majority": "majority",
    "max_softmax": "most confident",
    "weighted_vote": "by confidence",
}
