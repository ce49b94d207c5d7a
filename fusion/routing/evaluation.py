"""How good a routing method is at which price: curves, their hulls, and the numbers that sum them up.

A curve is a list of (cost, quality) points. AIQ is the area under its non-decreasing convex hull divided by
the largest cost (RouterBench, arXiv 2403.12031).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import ttest_rel


@dataclass(frozen=True, order=True)
class Point:
    """Mean cost and mean quality of a method at one setting."""

    cost: float
    quality: float


def hull(points: Sequence[Point]) -> list[Point]:
    """The non-decreasing upper convex hull, by cost; mixing two of its neighbours at random reaches any point
    between them."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if front and point.quality <= front[-1].quality:
            continue
        while len(front) > 1 and _slope(front[-2], point) >= _slope(front[-2], front[-1]):
            front.pop()
        front.append(point)
    return front


def quality_at(points: Sequence[Point], cost: float) -> float:
    """Quality that the hull reaches for `cost`; NaN below its cheapest point."""
    front = hull(points)
    if cost < front[0].cost:
        return float("nan")
    return float(np.interp(cost, [p.cost for p in front], [p.quality for p in front]))


def aiq(points: Sequence[Point], largest: float) -> float:
    """Area under the hull from cost 0 to `largest`, divided by it; 0 below its cheapest point."""
    front = [p for p in hull(points) if p.cost <= largest]
    if not front or largest <= 0:
        return 0.0
    ends = Point(largest, quality_at(points, largest))
    costs, heights = zip(*((p.cost, p.quality) for p in [*front, ends]), strict=True)
    return float(np.trapezoid(heights, costs) / largest)


def pareto(points: Sequence[Point]) -> list[bool]:
    """Which points no other one beats: at most its cost and at least its quality, one of them better."""
    return [
        not any(
            q.cost <= p.cost and q.quality >= p.quality and (q.cost < p.cost or q.quality > p.quality)
            for q in points
        )
        for p in points
    ]


@dataclass(frozen=True)
class Paired:
    """Mean difference between two methods over the same seeds or items, its 95 % interval and p-value."""

    difference: float
    low: float
    high: float
    p: float


def paired(a: ArrayLike, b: ArrayLike) -> Paired:
    """A paired t-test of a (n,) less b (n,); p is 1 where they do not differ at all."""
    x, y = np.asarray(a, float), np.asarray(b, float)
    gap = x - y
    if len(gap) < 2 or np.allclose(gap, gap[0]):
        mean = float(gap.mean())
        return Paired(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    test = ttest_rel(x, y)
    interval = test.confidence_interval()
    return Paired(float(gap.mean()), float(interval.low), float(interval.high), float(test.pvalue))


def _slope(a: Point, b: Point) -> float:
    return (b.quality - a.quality) / (b.cost - a.cost) if b.cost > a.cost else np.inf
