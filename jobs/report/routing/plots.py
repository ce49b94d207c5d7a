"""The figures of a fusion of experts: each from the facts of a run, None without its data."""

from collections.abc import Callable

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.ticker import MaxNLocator

from jobs.report.drawing import (
    INK,
    MUTED,
    QUIET,
    STYLE,
    canvas,
    grid,
    legend,
    name_rows,
    numbers,
    series,
    svg,
)
from jobs.report.routing import answers, tables
from jobs.report.routing.facts import Facts
from jobs.report.routing.frontier import STEPS, Drawn, overview, price_axis, style, upper_end
from jobs.report.routing.words import method, points, rate
from jobs.report.words import percent, share

MOST_ROWS = 16
"""Experts or domains in a figure; the table has all."""
ROW = 17.0
WIDE = 3.0
"""Prices that span more than this factor are compared on a logarithmic axis."""
PLACES = (("first", 1.0), ("second", 0.62), ("third", 0.36), ("later", 0.18))


def draw(facts: Facts) -> dict[str, Markup | None]:
    """All figures by name."""
    figures: dict[str, Callable[[Facts], Drawn | None]] = {
        "curve": overview,
        "near": upper_end,
        "rivals": _rivals,
        "asked": _asked,
        "domains": _domains,
        "roc": _roc,
    }
    with rc_context(STYLE):
        drawn = {name: figure(facts) for name, figure in figures.items()}
    return {name: svg(d[0], name, d[1]) if d else None for name, d in drawn.items()}


def _rivals(facts: Facts) -> Drawn | None:
    """The difference to each rival along the price, with its band."""
    rows = tables.comparisons(facts)
    if not rows:
        return None
    figure, panels = grid(len(rows), 122)
    prices = [point["cost"] for row in rows for point in row["points"]]
    for row, axes in zip(rows, panels, strict=True):
        colour, _, _ = style(facts, row["name"])
        x = [point["cost"] for point in row["points"]]
        low, high = np.array([point["ci95"] for point in row["points"]]).T
        axes.axhline(0, color=INK, linewidth=0.9)
        axes.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
        marker = "o" if len(x) == 1 else ""
        axes.plot(x, [p["difference"] for p in row["points"]], marker=marker, color=colour, linewidth=1.8)
        axes.set_title(method(row["name"]), loc="left", color=INK, fontsize=9.5, weight="bold", pad=3)
        price_axis(axes, facts, prices, most=3, log=max(prices) > WIDE * min(prices))
        axes.set_xlabel("")
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
        numbers(axes, "y", lambda value: points(value).removesuffix(".0"))
    figure.supxlabel(f"price, {facts.unit}", fontsize=10, color=MUTED)
    figure.supylabel("policy less rival, points", fontsize=10, color=MUTED)
    return (
        figure,
        f"Difference of the policy to {len(rows)} rivals at equal price; the table puts it in words",
    )


def _asked(facts: Facts) -> Drawn | None:
    """Who is asked at which place, at up to three rates side by side."""
    found = tables.asked(facts)
    if not found:
        return None
    names = found["names"][:MOST_ROWS]
    figure = canvas(ROW * len(names) + 84)
    panels = figure.subplots(1, len(found["rates"]), sharey=True, squeeze=False)[0]
    at = -np.arange(len(names), dtype=float)
    for axes, entry in zip(panels, found["rates"], strict=True):
        left = np.zeros(len(names))
        for number, (title, alpha) in enumerate(PLACES):
            values = np.array([entry["places"][name][number] for name in names])
            label = title if axes is panels[0] else "_"
            axes.barh(
                at, values, left=left, height=0.7, color=series(0), alpha=alpha, label=label, linewidth=0
            )
            left += values
        axes.set_xlim(0, 1)
        axes.set_title(
            f"λ = {rate(entry['lambda'])}", loc="left", color=INK, fontsize=9.5, weight="bold", pad=3
        )
        axes.set_xticks([0, 0.5, 1], ["0", "50 %", ""])
        name_rows(axes, at, [_short(name) for name in names])
    panels[len(panels) // 2].set_xlabel("share of the judged items")
    legend(figure, len(PLACES))
    return figure, f"How often each of {len(names)} experts is asked first, second, third and later"


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _domains(facts: Facts) -> Drawn | None:
    """Accuracy by domain: the policy, the best single expert, and the bound."""
    rows = answers.domains(facts)
    if not rows:
        return None
    half = MOST_ROWS // 2
    shown = rows if len(rows) <= MOST_ROWS else [*rows[:half], *rows[-half:]]
    figure = canvas(ROW * len(shown) + 70)
    axes = figure.subplots()
    at = -np.arange(len(shown), dtype=float)
    policy, single, bound = (
        np.array([row[k] for row in shown]) for k in ("policy", "best_single", "any_correct")
    )
    bound_name = "any right answer" if facts.labels else "best response"
    axes.hlines(at, single, policy, color=QUIET, linewidth=2)
    axes.plot(bound, at, "|", color=MUTED, markersize=9, markeredgewidth=1.4, label=bound_name)
    axes.plot(single, at, "o", color=series(1), markersize=5, label="best single expert")
    axes.plot(policy, at, "o", color=series(0), markersize=6.5, label="policy")
    numbers(axes, "x", lambda value: f"{100 * value:.3g} %")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(facts.measure)
    name_rows(axes, at, [_short(str(row["domain"]), 26) for row in shown])
    legend(figure, 3)
    return figure, f"{facts.measure} in {len(shown)} domains: the policy and the best single expert"


def _roc(facts: Facts) -> Drawn | None:
    """The ROC of the unseen-domain score after all experts, and what its limit flags."""
    found = tables.unseen(facts)
    if not found or not found.get("roc"):
        return None
    figure = canvas(270)
    axes = figure.subplots()
    false, true = np.array(found["roc"]).T
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="chance")
    axes.plot(false, true, color=series(0), linewidth=2, label=f"AUROC {share(found['last']['auroc'])}")
    flagged = (found["last"]["flagged_seen"], found["last"]["flagged_unseen"])
    axes.plot(*flagged, "o", color=series(1), markersize=7, label="at the limit")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("seen items that are flagged")
    axes.set_ylabel("unseen items that are flagged")
    numbers(axes, "x", percent)
    numbers(axes, "y", percent)
    legend(figure, 3)
    return figure, f"ROC of the distance to stored items: area {share(found['last']['auroc'])}"
