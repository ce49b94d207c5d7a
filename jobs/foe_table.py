"""The result of a fusion of experts as tables for the terminal."""

import io
from typing import Any

from rich.console import Console
from rich.table import Table

ORACLES = ("any_correct", "mean_single")


def result_table(summary: dict[str, Any]) -> str:
    """Methods by accuracy with what they cost, and the points of the chosen policy."""
    console = Console(file=io.StringIO(), width=100, highlight=False)
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
