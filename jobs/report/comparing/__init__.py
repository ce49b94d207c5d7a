"""The page of a comparison: one table, one plot, one recommendation."""

from collections.abc import Mapping
from typing import Any

import yaml
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes

from actors.comparing.verdict import SIGNIFICANT
from jobs.report import words
from jobs.report.drawing import INK, MARKERS, MUTED, STYLE, canvas, legend, numbers, series, svg
from jobs.report.pages import environment

LABELS = {
    "fusegen": "FuseGen",
    "foe": "FoE, everyone asked",
    "frugal": "FoE, frugal",
    "regmean": "RegMean",
    "simple": "average of weights",
    "fisher": "Fisher merging",
    "task_arithmetic": "task arithmetic",
    "ties": "TIES",
    "dare": "DARE",
    "slerp": "SLERP",
    "ensemble": "ensemble",
    "best_single": "best single model",
    "pooled": "trained on everything",
}
FUSED = (
    ("through data", ("fusegen", "pooled")),
    ("through outputs", ("foe", "frugal", "ensemble")),
    ("through weights", ("regmean", "simple", "fisher", "task_arithmetic", "ties", "dare", "slerp")),
    ("not fused", ("best_single",)),
)
SECTIONS = (("result", "Table"), ("price", "Cost and accuracy"), ("models", "The models that were fused"))
APART = 0.014
"""How far points at the same price are drawn from each other, as a share of the axis."""


def render(summary: Mapping[str, Any], report: Mapping[str, Any] | None, record: Mapping[str, Any]) -> str:
    """The page; parameters as of `jobs.report.render`."""
    fusions = summary["fusions"]
    return (
        environment({**words.FILTERS, "fusion": LABELS.__getitem__, "size": size}, "comparing/templates")
        .get_template("page.html.j2")
        .render(
            summary=summary,
            config=record["config"],
            record=record,
            fusions=fusions,
            best=fusions[summary["winner"]],
            groups=groups(fusions),
            elsewhere=list(fusions[summary["winner"]]["elsewhere"]),
            front={one["fusion"] for one in summary["frontier"]},
            rivals=rivals(summary, report or {}),
            notes=notes(summary),
            sections=SECTIONS,
            serving=figure(fusions, "serve_cost", summary["timing"]["unit"], "serving"),
            training=figure(fusions, "train_seconds", "seconds of training, samples apart", "training"),
            yaml=yaml.safe_dump(dict(record["config"]), sort_keys=False, allow_unicode=True, width=100),
        )
    )


def groups(fusions: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Fusions by what is fused, in each the most accurate first."""
    found = []
    for title, names in FUSED:
        there = [name for name in names if name in fusions]
        found.append((title, sorted(there, key=lambda name: -fusions[name]["accuracy"])))
    return found


def rivals(summary: Mapping[str, Any], report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Other ways to route among the same models, as the routing job judges them: over all sets together."""
    kind = summary["routing"]["fuser"]
    shown = {f"foe_{kind}", f"frugal_{kind}", "ensemble", "best_single"}
    return [
        (name, one)
        for name, one in sorted(report.get("routing", {}).items(), key=lambda of: -of[1]["accuracy"])
        if name not in shown and not name.startswith("single/")
    ]


def size(count: float) -> str:
    """Bytes in megabytes."""
    return f"{count / 1e6:,.0f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"


def notes(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader should know before trusting the numbers: (text, anchor of the section)."""
    fusions, winner = summary["fusions"], summary["winner"]
    ties = [n for n, one in fusions.items() if n != winner and _p(one) >= SIGNIFICANT]
    found = [
        (
            f"The winner was chosen among {len(fusions)} on the very texts it is shown for, which flatters "
            "it a little; p-values are not corrected for their number, and do not cover the variance of "
            "training.",
            "result",
        )
    ]
    if ties:
        count = f"{len(ties)} of the others" if len(ties) > 1 else "One of the others"
        found.append((f"{count} cannot be told from the winner on these texts.", "result"))
    learnt, texts = summary["routing"]["learnt_from"], summary["texts"]["test"]["fusing"]
    source = f"{learnt}, whose labels nobody has checked" if learnt.startswith("held-out") else learnt
    found.append((f"Fusers learnt whom to trust from {texts:,} texts: {source}.", "models"))
    return [*found, *((warning.capitalize() + ".", "result") for warning in summary["warnings"])]


def _p(one: Mapping[str, Any]) -> float:
    return float(one["against_winner"]["p_value"])


def figure(fusions: Mapping[str, Any], price: str, title: str, name: str) -> Markup:
    """Accuracy with its interval over a price; points at one price stand side by side."""
    with rc_context(STYLE):
        drawn = canvas(300)
        axes = drawn.add_subplot()
        apart = APART * (max(one[price] for one in fusions.values()) or 1.0)
        together: dict[float, list[str]] = {}
        for fusion, one in fusions.items():
            near = next((p for p in together if abs(p - one[price]) < apart / 2), one[price])
            together.setdefault(near, []).append(fusion)
        for position, (fusion, one) in enumerate(fusions.items()):
            x, beside = next((p, names) for p, names in together.items() if fusion in names)
            shift = apart * (beside.index(fusion) - (len(beside) - 1) / 2)
            _point(axes, x + shift, one, position, LABELS[fusion])
        axes.set_xlim(left=0)
        axes.set_xlabel(title, color=INK)
        axes.set_title("accuracy, 95 % interval", loc="left", color=MUTED)
        numbers(axes, "y", lambda value: words.share(value, 2))
        legend(drawn, 2)
        return svg(drawn, name, f"Accuracy of {len(fusions)} fusions over {title}")


def _point(axes: Axes, x: float, one: Mapping[str, Any], position: int, label: str) -> None:
    low, high = one["ci95"]
    axes.errorbar(
        [x],
        [one["accuracy"]],
        yerr=[[one["accuracy"] - low], [high - one["accuracy"]]],
        fmt=MARKERS[position % len(MARKERS)],
        color=series(position),
        elinewidth=1.2,
        markersize=6,
        label=label,
    )
