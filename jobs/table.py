"""The result of a job as a table for the terminal."""

import io
from typing import Any

from rich.console import Console
from rich.table import Table


def result_table(summary: dict[str, Any]) -> str:
    """The accuracies of a summary, the result last; counts alone when nothing was evaluated."""
    final, samples = summary["final"], summary["samples"]
    console = Console(file=io.StringIO(), force_jupyter=False, width=100, highlight=False)
    console.print(
        f"{summary['task']}: {samples['kept']} texts kept of {samples['asked']} asked, "
        f"seed {summary['seed']}, {summary['seconds']:.0f} s"
    )
    if final:
        console.print(_scores(summary))
    else:
        console.print("No evaluation data was given (eval:), so nothing was measured.")
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.rstrip()


def _scores(summary: dict[str, Any]) -> Table:
    stm, base = summary["stm"]["final"], summary["baseline_stm"]
    table = Table()
    heading = "F1" if "f1" in summary["final"] else "accuracy"
    for name, justify in (("trained on", "left"), ("model", "left"), (heading, "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("95 % interval", justify="right")
    table.add_column("result better by", justify="right")
    for name, score in summary["baselines"].items():
        against = score.get("against_result", {})
        table.add_row(name, base, *_numbers(score), _difference(against))
    table.add_section()
    table.add_row(summary["variant"], stm, *_numbers(summary["final"]), "", style="bold")
    return table


def _numbers(score: dict[str, Any]) -> list[str]:
    low, high = score["ci95"]
    return [f"{score['f1' if 'f1' in score else 'accuracy']:.3f}", f"{low:.3f}–{high:.3f}"]


def _difference(against: dict[str, Any]) -> str:
    return f"{against['difference']:+.3f} (p {against['p_value']:.2g})" if against else ""
