"""Labels that do not overlap: each goes to the free place nearest to its point, or is left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi, sin

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from numpy.typing import NDArray

from jobs.report.drawing import INK, MUTED, UNIT

SIZE = 9.0
RADII = (5.0, 9.0, 15.0, 22.0, 31.0, 42.0, 55.0)
DIRECTIONS = tuple(pi * turn / 6 for turn in (0, 6, 3, 9, 1, 5, 11, 7, 2, 4, 10, 8))
ROOM = 76.0
"""Width of the column of labels at the right edge."""
GAP, ROUNDS = 11.0, 200
FAR = 12.0
"""From this distance on, a line leads from the label to its point."""
MARKER, RING = 4.0, 4.0
"""Half of the room that a marker takes, and how much more a ring does."""
Boxes = NDArray[np.float64]
"""(n, 4): left, bottom, right, top in units of the figure."""


@dataclass(frozen=True)
class Label:
    """A text at a point, in data coordinates; those that come first are placed first."""

    x: float
    y: float
    text: str
    bold: bool = False
    """Of the point that is ringed: further off, and even where it covers a line."""


def place(
    figure: Figure,
    axes: Axes,
    labels: Sequence[Label],
    column: Sequence[Label],
    markers: Sequence[tuple[float, float]],
    lines: Sequence[Sequence[tuple[float, float]]],
) -> None:
    """Write the labels around the markers, and beside the lines where there is room; those of a `column` of
    points at the right one below the other at the edge."""
    figure.draw_without_rendering()
    scale = UNIT / figure.dpi
    inside = np.array(axes.bbox.extents) * scale
    points = _units(axes, markers, scale)
    blocked = np.hstack([points - MARKER, points + MARKER]) if len(points) else np.empty((0, 4))
    if column:
        at = _units(axes, [(label.x, label.y) for label in column], scale)
        blocked = np.vstack([blocked, _column(axes, column, at, inside)])
    covered = np.vstack([_along(_units(axes, line, scale)) for line in lines] or [np.empty((0, 2))])
    for label in labels:
        at = _units(axes, [(label.x, label.y)], scale)[0]
        offset = _best(at, _extent(label), inside, blocked, covered, label)
        if offset is None:
            continue
        box, distance = offset
        blocked = np.vstack([blocked, box])
        _write(axes, label, box - np.tile(at, 2), lead=distance >= FAR)


def _column(
    axes: Axes, labels: Sequence[Label], at: NDArray[np.float64], inside: NDArray[np.float64]
) -> Boxes:
    """Labels at the right edge, as near to the height of their points as they can be without touching."""
    order = np.argsort(-at[:, 1], kind="stable")
    heights = at[order, 1].copy()
    low, high = inside[1] + SIZE / 2, inside[3] - SIZE / 2
    for _ in range(ROUNDS):
        heights = np.clip(heights, low, high)
        for upper in range(len(heights) - 1):
            lack = GAP - (heights[upper] - heights[upper + 1])
            if lack > 0:
                heights[upper] += lack / 2
                heights[upper + 1] -= lack / 2
    boxes = []
    for place_, height in zip(order, heights, strict=True):
        width, tall = _extent(labels[place_])
        left = inside[2] - ROOM
        box = np.array([left, height - tall / 2, left + width, height + tall / 2])
        _write(axes, labels[place_], box - np.tile(at[place_], 2), lead=True)
        boxes.append(box)
    return np.array(boxes)


def _units(axes: Axes, points: Sequence[tuple[float, float]], scale: float) -> NDArray[np.float64]:
    found = np.array(points, float).reshape(-1, 2)
    found[:, 0] = np.maximum(
        found[:, 0], axes.get_xlim()[0]
    )  # what is free has no place on a logarithmic axis
    return np.asarray(axes.transData.transform(found) * scale) if len(found) else found


def _along(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points every few units along a line."""
    parts = [points[:1]]
    for start, end in pairwise(points):
        steps = max(1, int(np.hypot(*(end - start)) // 4))
        parts.append(start + (end - start) * np.linspace(0, 1, steps + 1)[1:, None])
    return np.vstack(parts)


def _extent(label: Label) -> tuple[float, float]:
    font = FontProperties(family="DejaVu Sans", weight="bold" if label.bold else "normal")
    return TextPath((0, 0), label.text, size=SIZE, prop=font).get_extents().width + 2, SIZE + 2


def _best(
    at: NDArray[np.float64],
    extent: tuple[float, float],
    inside: NDArray[np.float64],
    blocked: Boxes,
    covered: NDArray[np.float64],
    label: Label,
) -> tuple[NDArray[np.float64], float] | None:
    """The box that suits best and its distance: free of markers and labels, near, and off the lines."""
    width, height = extent
    found: list[tuple[float, float, NDArray[np.float64]]] = []
    for radius in (radius + RING * label.bold for radius in RADII):
        for angle in DIRECTIONS:
            across, up = cos(angle), sin(angle)
            middle = at + np.array([across * (radius + width / 2), up * (radius + height / 2)])
            if abs(across) > 0.3:
                middle = np.array([at[0] + np.sign(across) * (radius * abs(across) + width / 2), middle[1]])
            half = np.array([width, height]) / 2
            box = np.concatenate([middle - half, middle + half])
            if (box[:2] < inside[:2] - 2).any() or (box[2:] > inside[2:] + 2).any() or _hits(box, blocked):
                continue
            on_lines = int(((covered >= box[:2]) & (covered <= box[2:])).all(axis=1).sum())
            if on_lines and not label.bold and radius > 2 * FAR:
                continue
            found.append((radius + 4 * on_lines, radius, box))
    if not found:
        return None
    _, radius, box = min(found, key=lambda candidate: candidate[0])
    return box, radius


def _hits(box: NDArray[np.float64], blocked: Boxes) -> bool:
    return bool(((blocked[:, :2] < box[2:]) & (blocked[:, 2:] > box[:2])).all(axis=1).any())


def _write(axes: Axes, label: Label, box: NDArray[np.float64], *, lead: bool) -> None:
    left, bottom, right, top = box
    side = "left" if left > 0 else "right" if right < 0 else "center"
    x = left + 1 if side == "left" else right - 1 if side == "right" else (left + right) / 2
    arrow = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3}
    arrow["relpos"] = (
        {"left": 0.0, "center": 0.5, "right": 1.0}[side],
        0.5 if side != "center" else float(top < 0),
    )
    note = axes.annotate(
        label.text,
        (label.x, label.y),
        (x, (bottom + top) / 2),
        textcoords="offset points",
        ha=side,
        va="center_baseline",
        fontsize=SIZE,
        weight="bold" if label.bold else "normal",
        color=INK if label.bold else MUTED,
        arrowprops=arrow if lead else None,
        annotation_clip=False,
    )
    note.set_in_layout(False)
