"""The page of a merge: what the methods are worth, and what was done to every tensor."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup
from matplotlib import rc_context

from jobs.report import words
from jobs.report.drawing import INK, MUTED, STYLE, canvas, series, svg
from jobs.report.pages import environment

SECTIONS = (
    ("result", "Accuracy", "rows"),
    ("layers", "Layer by layer", "layers"),
    ("tensors", "Tensors", "tensors"),
)
"""Anchor and title of each section, and the part of the page without which it is left out."""
BLOCK = re.compile(r"^(.*?\.\d+)\.")
NAMES = {
    "ensemble": "ensemble of all models (not one model)",
    "own_expert": "each domain's own model (not one model)",
}


def render(summary: Mapping[str, Any], report: Mapping[str, Any] | None, record: Mapping[str, Any]) -> str:
    """The page; parameters as of `jobs.report.render`."""
    report = report or {}
    parts = {
        "rows": rows(summary),
        "layers": layers(report.get("tensors", {})),
        "tensors": tensors(report.get("tensors", {})),
    }
    return (
        environment(words.FILTERS, "merging/templates")
        .get_template("page.html.j2")
        .render(
            summary=summary,
            config=record["config"],
            record=record,
            columns=columns(summary),
            sections=[(anchor, title) for anchor, title, part in SECTIONS if parts[part]],
            figure=figure(parts["layers"]),
            outcome=outcome(summary),
            notes=notes(report),
            **parts,
            yaml=yaml.safe_dump(dict(record["config"]), sort_keys=False, allow_unicode=True, width=100),
        )
    )


def columns(summary: Mapping[str, Any]) -> list[str]:
    """Test sets in the order of the table: means first."""
    known = {name for one in summary["methods"].values() for name in one if name != "against_result"}
    means = [name for name in ("in_domain", "held_out") if name in known]
    return [*means, *sorted(known - set(means))]


def rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per method: merged checkpoints by accuracy, then bounds, then the models that were merged."""
    own = {model["name"] for model in summary["models"]}

    def order(item: tuple[str, Any]) -> tuple[bool, bool, float]:
        return item[0] in own, item[0] in NAMES, -item[1]["in_domain"]["accuracy"]

    return [
        {
            "name": NAMES.get(name, name),
            "result": name == summary["result"],
            "source": name in own,
            "cells": [one.get(column) for column in columns(summary)],
            "against": one.get("against_result"),
        }
        for name, one in sorted(summary["methods"].items(), key=order)
    ]


def layers(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per block: objective by that of the average, and the largest condition."""
    blocks: dict[str, list[dict[str, Any]]] = {}
    for name, one in found.items():
        match = BLOCK.match(name)
        blocks.setdefault(match[1] if match else "outside blocks", []).extend(one["diagnostics"])
    return [
        {
            "name": name,
            "ratio": _ratio(some),
            "condition": max(d["condition"] for d in some),
            "deficit": max(d["deficit"] for d in some),
            "solver": ", ".join(sorted({d["solver"] for d in some})),
        }
        for name, some in blocks.items()
        if some
    ]


def _ratio(some: list[dict[str, Any]]) -> float | None:
    """None where the models are equal, so that there is nothing to gain."""
    of_average = sum(d["of_average"] for d in some)
    return sum(d["objective"] for d in some) / of_average if of_average > 0 else None


def tensors(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every tensor with its rule and reason."""
    return [
        {
            "name": name,
            "rule": one["kind"],
            "reason": one["reason"],
            "ratio": _ratio(one["diagnostics"]) if one["diagnostics"] else None,
        }
        for name, one in sorted(found.items())
    ]


def figure(found: list[dict[str, Any]]) -> Markup | None:
    """The objective of each block by that of the average."""
    if not found:
        return None
    with rc_context(STYLE):
        drawn = canvas(200)
        axes = drawn.add_subplot()
        places = np.arange(len(found))
        heights = [row["ratio"] or 0.0 for row in found]
        axes.bar(places, heights, color=series(0), width=0.7)
        axes.axhline(1, color=MUTED, linewidth=0.8)
        axes.set_ylim(0, max(1.05, *heights))
        names = [row["name"].rpartition(".")[2].replace("outside blocks", "other") for row in found]
        axes.set_xticks(places, names, color=INK)
        axes.set_xlabel("block")
        axes.set_title("distance to the models' own outputs, average = 1", loc="left", color=MUTED)
        return svg(drawn, "layers", "Objective of each block by that of the simple average")


def outcome(summary: Mapping[str, Any]) -> str:
    """What came out, in a sentence or two."""
    methods, result = summary["methods"], summary["result"]
    names = ", ".join(model["name"] for model in summary["models"])
    if len(summary["models"]) == 1:
        return f"The Gram files of {names} were collected, for others to merge."
    text = f"{len(summary['models'])} models ({names}) became one by {result}."
    if methods:
        mine = methods[result]["in_domain"]["accuracy"]
        text += f" It is right on {mine:.1%} of the test texts of their domains"
        if "simple" in methods and result != "simple":
            text += f"; the simple average on {methods['simple']['in_domain']['accuracy']:.1%}"
        best = methods.get(summary["upper"])
        if best:
            text += f", each domain's own model on {best['in_domain']['accuracy']:.1%}"
        text += "."
    if summary.get("objective_ratio") is not None:
        text += (
            f" Layer by layer, its outputs differ from the models' own by {summary['objective_ratio']:.1%} "
            "of what those of the average do, which is known without any data."
        )
    return text


def notes(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader should know."""
    return [
        (
            f"{name}: {len(facts['few'])} Gram matrices rest on fewer than ten rows per input feature; "
            "they are less exact, and may give inputs away when they are published.",
            "tensors",
        )
        for name, facts in report.get("statistics", {}).items()
        if facts.get("few")
    ]
