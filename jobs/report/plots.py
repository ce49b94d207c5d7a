"""The figures of the page: each from the facts of a run, None without its data."""

from collections.abc import Callable
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from jobs.report import tables
from jobs.report.drawing import (
    DARK,
    INK,
    MARKERS,
    MUTED,
    QUIET,
    STYLE,
    SURFACE,
    canvas,
    grid,
    legend,
    name_rows,
    numbers,
    plain,
    series,
    stack,
    svg,
)
from jobs.report.facts import NOT_JUDGED, Facts
from jobs.report.words import count, percent, reason, share

MOST_REASONS = 8
ROW = 19.0
REGIONS = {"easy": (series(0), SURFACE), "ambiguous": (series(5), DARK), "hard": (series(1), SURFACE)}
"""Colours of the regions of the map, and of text on them."""
Drawn = tuple[Figure, str]


def draw(facts: Facts) -> dict[str, Markup | None]:
    """All figures by name."""
    figures: dict[str, Callable[[Facts], Drawn | None]] = {
        "scores": _scores,
        "rounds": _rounds,
        "scaling": _scaling,
        "samples": _samples,
        "map": _map,
        "shares": _shares,
        "weights": _weights,
        "history": _history,
    }
    with rc_context(STYLE):
        drawn = {name: figure(facts) for name, figure in figures.items()}
    return {name: svg(d[0], name, d[1]) if d else None for name, d in drawn.items()}


def _scores(facts: Facts) -> Drawn | None:
    """Accuracy of every model as a dot with its interval."""
    groups = tables.scores(facts)
    if not groups:
        return None
    lines: list[tuple[str, Any]] = []
    for group in groups:
        lines += [(group["title"], None), *((label, score) for _, label, score in group["rows"])]
    figure = canvas(ROW * len(lines) + 36)
    axes = figure.subplots()
    places = -np.arange(len(lines), dtype=float)
    low, high = facts.final["ci95"]
    axes.axvspan(low, high, color=series(0), alpha=0.12, linewidth=0)
    for place, (_, score) in zip(places, lines, strict=True):
        if score:
            colour = series(0) if score is facts.final else MUTED
            axes.plot(score["ci95"], [place, place], color=colour, linewidth=2, solid_capstyle="round")
            axes.plot([score[facts.measure]], [place], "o", color=colour, markersize=6, markeredgewidth=0)
    axes.set_yticks(places, [label for label, _ in lines])
    for tick, (_, score) in zip(axes.get_yticklabels(), lines, strict=True):
        heading = score is None
        tick.set(fontsize=9 if heading else 9.5, style="italic" if heading else "normal")
        tick.set_color(MUTED if heading else INK)
    axes.set_ylim(places[-1] - 0.7, 0.7)
    axes.set_xlabel(_on_real(facts))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.spines["left"].set_visible(False)
    plain(axes, y=False)
    numbers(axes, "x", lambda value: share(value, 2))
    models = sum(score is not None for _, score in lines)
    return figure, f"{facts.said['Measure']} with 95 % intervals of {models} models"


def _on_real(facts: Facts) -> str:
    return f"{facts.said['measure']} on real {'questions' if facts.spans else 'texts'}"


def _rounds(facts: Facts) -> Drawn | None:
    """Accuracy of the model trained on all texts so far, by round."""
    rows = [row for row in tables.rounds(facts) if row["score"] is not None]
    if len(rows) < 2:
        return None
    figure = canvas(235)
    axes = figure.subplots()
    x = [row["round"] for row in rows]
    y = [row["score"] for row in rows]
    bands = np.array([row["ci95"] for row in rows])
    axes.fill_between(x, bands[:, 0], bands[:, 1], color=series(0), alpha=0.15, linewidth=0)
    axes.plot(x, y, "o-", color=series(0), linewidth=2, markersize=6)
    for at, value in zip(x, y, strict=True):
        axes.annotate(
            share(value), (at, value), (0, 8), textcoords="offset points", ha="center", weight="bold"
        )
    if facts.final:
        _level(axes, facts.final[facts.measure])
    axes.set_xticks(x, [f"{row['round']}\n{count(row['total'])}" for row in rows])
    axes.set_xlabel("round, and texts so far")
    axes.set_ylabel(_on_real(facts))
    axes.margins(x=0.08, y=0.12)
    plain(axes, x=False)
    numbers(axes, "y", lambda value: share(value, 2))
    return figure, f"{facts.said['Measure']} by round: {', '.join(share(value) for value in y)}"


def _scaling(facts: Facts) -> Drawn | None:
    """Accuracy by number of PLMs, with all texts of each and with as many in all as one has."""
    rows = [row for row in tables.stages(facts) if row["all"] and row["one"]]
    if len(rows) < 2:
        return None
    figure = canvas(255)
    axes = figure.subplots()
    x = [row["models"] for row in rows]
    for number, (part, label) in enumerate((("all", "all texts of each"), ("one", "as many as one has"))):
        bands = np.array([row[part]["ci95"] for row in rows])
        axes.fill_between(x, bands[:, 0], bands[:, 1], color=series(number), alpha=0.15, linewidth=0)
        y = [row[part]["accuracy"] for row in rows]
        axes.plot(x, y, MARKERS[number] + "-", color=series(number), linewidth=2, markersize=6, label=label)
    axes.set_xticks(x, [f"{row['models']}\n+ {row['added']}" for row in rows])
    axes.set_ylabel("accuracy on real texts")
    axes.margins(x=0.08, y=0.12)
    plain(axes, x=False)
    numbers(axes, "y", lambda value: share(value, 2))
    legend(figure, 2)
    return figure, "Accuracy by number of models: " + ", ".join(share(r["all"]["accuracy"]) for r in rows)


def _level(axes: Axes, accuracy: float) -> None:
    """A dashed line at the accuracy of the result."""
    axes.axhline(accuracy, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"result {share(accuracy)}",
        (1, accuracy),
        (0, 4),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
    )


def _samples(facts: Facts) -> Drawn | None:
    """What became of the texts of each PLM, as stacked bars."""
    rows = tables.rejections(facts)["rows"]
    if not any(row["asked"] for row in rows):
        return None
    judged = [name for name in facts.reasons if name not in NOT_JUDGED]
    shown, rest = judged[:MOST_REASONS], judged[MOST_REASONS:]
    unseen = [name for name in facts.reasons if name in NOT_JUDGED]
    parts: list[tuple[str, str, list[int]]] = [("kept", series(0), [row["kept"] for row in rows])]
    for i, name in enumerate(shown):
        parts.append((reason(name), series(i + 1), [row["reasons"].get(name, 0) for row in rows]))
    for title, colour, names in (("other reasons", MUTED, rest), ("never judged", QUIET, unseen)):
        if names:
            parts.append((title, colour, [sum(row["reasons"].get(n, 0) for n in names) for row in rows]))
    figure = canvas(24 * len(rows) + 60 + 15 * -(-len(parts) // 3))
    axes = figure.subplots()
    left = np.zeros(len(rows))
    places = -np.arange(len(rows), dtype=float)
    for title, colour, values in parts:
        stack(axes, places, values, left, colour, title)
        left += values
    name_rows(axes, places, facts.plms)
    axes.set_xlabel("texts asked for")
    numbers(axes, "x", count)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    legend(figure, 3)
    return figure, "What became of the texts that each PLM was asked for; the table gives the numbers"


def _map(facts: Facts) -> Drawn | None:
    """Cartography: one panel per PLM, its texts over those of all, shots ringed."""
    found = facts.report.get("cartography") or {}
    points = found.get("points") or []
    if not points:
        return None
    sets = [group for entry in facts.report.get("shots") or [] for group in entry["sets"]]
    shots = {shot["id"] for group in sets for shot in group["shots"]}
    owners = np.array([point["plm"] for point in points], dtype=object)
    xy = np.array([(point["variability"], point["confidence"]) for point in points])
    marked = np.array([point["id"] in shots for point in points])
    plms = [plm for plm in facts.plms if (owners == plm).any()]
    figure, panels = grid(len(plms), 135)
    for i, (plm, axes) in enumerate(zip(plms, panels, strict=True)):
        mine = owners == plm
        axes.axhline(facts.guess, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        style: dict[str, Any] = {"linestyle": "none", "markeredgewidth": 0}
        axes.plot(*xy[mine].T, MARKERS[i % 10], color=series(i), alpha=0.5, markersize=3.6, **style)
        axes.plot(
            *xy[mine & marked].T, "o", color="none", markeredgecolor=INK, markeredgewidth=1.4, markersize=8
        )
        axes.set_title(plm, loc="left", color=INK, fontsize=10, weight="bold", pad=3)
        axes.set_ylim(-0.04, 1.04)
        axes.set_xlim(0, max(0.3, float(xy[:, 0].max())) * 1.04)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        numbers(axes, "x", lambda value: share(value, 1))
        numbers(axes, "y", lambda value: share(value, 1))
    figure.supxlabel("variability", fontsize=10, color=MUTED)
    figure.supylabel("confidence", fontsize=10, color=MUTED)
    return figure, f"Variability and confidence of {len(points)} texts, by PLM"


def _shares(facts: Facts) -> Drawn | None:
    """Easy, ambiguous and hard texts of each PLM."""
    found = (facts.report.get("cartography") or {}).get("shares") or {}
    plms = [plm for plm in facts.plms if plm in found]
    if not plms:
        return None
    figure = canvas(24 * len(plms) + 52)
    axes = figure.subplots()
    places, left = -np.arange(len(plms), dtype=float), np.zeros(len(plms))
    for name, (colour, ink) in REGIONS.items():
        values = np.array([found[plm][name] for plm in plms])
        stack(axes, places, values, left, colour, name)
        for place, start, value in zip(places, left, values, strict=True):
            if value >= 0.07:
                axes.annotate(
                    percent(value), (start + value / 2, place), ha="center", va="center_baseline", fontsize=9,
                    color=ink, weight="bold",
                )  # fmt: skip
        left += values
    name_rows(axes, places, plms)
    axes.set_xlim(0, 1)
    numbers(axes, "x", percent)
    legend(figure, 3)
    named = (", ".join(f"{percent(found[plm][name])} {name}" for name in REGIONS) for plm in plms)
    return figure, "; ".join(f"{plm}: {part}" for plm, part in zip(plms, named, strict=True))


def _weights(facts: Facts) -> Drawn | None:
    """Distribution of the weights of each PLM's texts."""
    found = facts.report.get("weights") or {}
    counts, edges = found.get("counts") or {}, np.array(found.get("edges") or [])
    plms = [plm for plm in facts.plms if plm in counts]
    if not plms or len(edges) < 2:
        return None
    figure, panels = grid(len(plms), 92)
    for plm, axes in zip(plms, panels, strict=True):
        values = np.array(counts[plm]) / max(1, sum(counts[plm]))
        axes.stairs(values, edges, fill=True, color=series(facts.plms.index(plm)))
        axes.axvline(1, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_title(plm, loc="left", color=INK, fontsize=10, weight="bold", pad=3)
        axes.set_xscale("log")
        axes.set_xlim(edges[0], edges[-1])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(MaxNLocator(3))
        numbers(axes, "x", lambda value: f"{value:g}")
        numbers(axes, "y", percent)
        plain(axes, x=False)
    figure.supxlabel("weight in units of the mean, the least ones in the first bar", fontsize=10, color=MUTED)
    figure.supylabel("share of its texts", fontsize=10, color=MUTED)
    return figure, f"Distribution of weights by PLM: {', '.join(plms)}"


def _history(facts: Facts) -> Drawn | None:
    """Share of texts judged right, and of survivors, by iteration of the weighting."""
    entries = [entry for entry in facts.report.get("weight_history") or [] if "share_ok" in entry]
    if len(entries) < 2:
        return None
    x = range(1, len(entries) + 1)
    figure = canvas(200)
    axes = figure.subplots()
    lines = (("judged right", "share_ok", series(0), "-"), ("survivors", "survivors", series(1), "--"))
    drawn = [line for line in lines if all(line[1] in entry for entry in entries)]
    for title, key, colour, dashes in drawn:
        values = [entry[key] for entry in entries]
        title = f"{title}: {share(values[0])} to {share(values[-1])}"  # noqa: PLW2901
        axes.plot(x, values, dashes, color=colour, linewidth=2, label=title)
    axes.set_xlabel("iteration")
    axes.margins(y=0.18)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    plain(axes, x=False)
    numbers(axes, "y", lambda value: f"{100 * value:.3g} %")
    legend(figure, 1)
    first, last = entries[0]["share_ok"], entries[-1]["share_ok"]
    return figure, f"Training texts judged right, by iteration: from {share(first)} to {share(last)}"
