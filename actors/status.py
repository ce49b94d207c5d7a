"""Where a run stands, as its `summary.json` says."""

from typing import Any

from actors.board import Board
from cluster.storage import Run


def status_of(run: Run) -> str | None:
    """`running`, `done` or `failed`; None before a run has any results."""
    status: str | None = run.read_json("summary.json")["status"] if run.exists("summary.json") else None
    return status


def enter(run: Run, board: Board, stage: str, known: dict[str, Any]) -> None:
    """Begin a stage, and say so, with what is known, in the summary of a run that was not done before."""
    board.enter(stage)
    if status_of(run) != "done":
        run.write_json("summary.json", {"status": "running", "stage": stage, **known})


def mark_failed(run: Run, error: str) -> None:
    """Say in the summary why the run ended, unless it was done before."""
    if status_of(run) == "running":
        run.write_json("summary.json", {**run.read_json("summary.json"), "status": "failed", "error": error})
