"""Progress as a person sees it, from the coordinator's own board."""

import io

import pytest
from rich.console import Console

from actors.board import Board
from jobs.progress import Progress


def board_of_experts():
    board = Board()
    board.enter("asking the experts")
    board.start_experts({"small": 520, "chat": 520})
    board.known_of("small", asked=64, failed=2)
    return board


def board_of_plms():
    board = Board(4)
    board.enter("round 0: writing")
    board.start_round(0, {"critic": 60})
    board.asked({"critic": [10, 12]})
    board.judged({"critic": {"kept": [7, 8], "rejected": {"short": 3}}})
    return board


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    ("board", "lines", "cells"),
    [
        (board_of_experts(), ["small: answered 62 of 520, failed 2", "chat: answered 0 of 520"], "62/520"),
        (board_of_plms(), ["critic: kept 15 of 60, answered 0 of 22, rejected 3"], "15/60"),
    ],
    ids=["experts", "PLMs"],
)
def test_counts_are_shown_as_lines_or_as_a_table(board, lines, cells, terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, highlight=False)
    with Progress("runs/mine", console) as progress:
        progress.show(board.view(progress.seen))
        assert progress.seen == 1
        if terminal:
            progress.live.refresh()
    said = out.getvalue()
    assert "run runs/mine" in said and board.phase in said
    assert all(line in said for line in lines) != terminal
    assert (cells in said) == terminal
