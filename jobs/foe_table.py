"""The result of a fusion of experts as tables for the terminal."""

import io
from typing import Any

from rich.console import Console
from rich.table import Table

ORACLES = ("any_correct", "mean_single")


def result_table(summary: dict[str, Any]) -> str:
    """Methods by accuracy with what they cost, and the points of the chosen policy."""
    console = Console(file=io.StringIO(), force_jupyter=False, width=100, highlight=False)
    items = summary["items"]
    console.print(
        f"{summary['name']}: learnt from {items['fit']:,} items, judged on {items['test']:,}, "
        f"seed {summary['seed']}, {summary['seconds']:.0f} s; prices in {summary['unit']}"
    )
    console.print(_methods(summary))
    console.print(_points(summary))
    for warning in summary["warnings"]:
        console.print(f"Warning: {warning}", soft_wrap=True)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.rstrip()


def _methods(summary: dict[str, Any]) -> Table:
    table = Table()
    table.add_column("method")
    for name in ("accuracy", "95 % interval", "price", "experts", "AIQ"):
        table.add_column(name, justify="right")
    methods = summary["methods"].items()
    for name, method in sorted(methods, key=lambda of: (of[0].startswith("single/"), -of[1]["accuracy"])):
        low, high = method.get("ci95", (None, None))
        table.add_row(
            name + (" (bound)" if name == "any_correct" else ""),
            f"{method['accuracy']:.3f}",
            f"{low:.3f}–{high:.3f}" if low is not None else "",
            f"{method['cost']:.4g}",
            f"{method['experts']:.2f}",
            f"{method['aiq']:.3f}" if "aiq" in method else "",
            style="bold" if name == summary["policy"] else "",
        )
    return table


def _points(summary: dict[str, Any]) -> Table:
    table = Table(title=f"{summary['policy']}: what a rate buys", title_justify="left")
    for name in ("lambda", "accuracy", "95 % interval", "price", "experts"):
        table.add_column(name, justify="right")
    for point in summary["frugal"]:
        low, high = point["ci95"]
        table.add_row(
            f"{point['lambda']:g}",
            f"{point['accuracy']:.3f}",
            f"{low:.3f}–{high:.3f}",
            f"{point['cost']:.4g}",
            f"{point['experts']:.2f}",
        )
    return table


def artefact_text(manifest: dict[str, Any]) -> str:
    """What an artefact is, whom it asks at which price, and what a rate buys."""
    console = Console(file=io.StringIO(), force_jupyter=False, width=100, highlight=False)
    experts = manifest["experts"]
    console.print(
        f"{manifest['name']}: version {manifest['version']}, {manifest['kind']} policy, decides a "
        + ("label" if manifest["answer"] == "label" else "response")
        + f"; {manifest['stored']:,} stored items, schema {manifest['schema']}"
    )
    table = Table("expert", title=f"Experts, prices in {manifest['unit']}", title_justify="left")
    table.add_column("price", justify="right")
    table.add_column("columns", justify="right")
    for expert in experts:
        table.add_row(expert["name"], f"{expert['price']:.4g}", str(expert["width"]))
    console.print(table)
    points = Table(title="What a rate buys, in rehearsals", title_justify="left")
    for name in ("lambda", "accuracy", "price", "experts"):
        points.add_column(name, justify="right")
    points.add_column("asks first")
    first = {start["lambda"]: start["order"][0] for start in manifest["starts"]}
    names = [expert["name"] for expert in experts]
    for point in manifest["calibration"]:
        start = first.get(point["lambda"])
        begins = "" if start is None else names[start] if start < len(names) else "(the input)"
        row = [f"{point['lambda']:g}", f"{point['accuracy']:.3f}", f"{point['cost']:.4g}"]
        points.add_row(*row, f"{point['experts']:.2f}", begins)
    console.print(points)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.rstrip()
