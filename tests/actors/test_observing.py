"""What a run tells Prometheus and the logs."""

import pytest

from actors.board import Board
from actors.observing import Observer
from configs.schema.plm import PlmSpec, RecordedEngine
from tests.actors.test_plm import spec


class Recorder:
    """Stands for a metric, and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[float, dict[str, str]]] = []

    def inc(self, value, tags):
        self.told.append((value, {name: tag for name, tag in tags.items() if name not in {"job", "model"}}))

    set = inc


@pytest.fixture
def observer():
    found = Observer("fusegen", "runs/x")
    for name in ("requests", "tokens", "cost", "rejected", "waiting", "busy", "processes", "gpus"):
        setattr(found, name, Recorder())
    return found


def test_a_board_tells_what_it_shows(observer, caplog):
    board = Board(1, observer)
    board.enter("writing")
    board.start_round(0, {"one": 9})
    board.asked({"one": [5, 5]})
    facts = {"plm": "one", "asked": 4, "failed": 1, "prompt_tokens": 7, "completion_tokens": 20}
    board.answered({**facts, "cost": 0.5, "seconds": 2.0, "error": "", "over": ""})
    board.judged({"one": {"kept": [2], "rejected": {"short": 1}}})
    writer: PlmSpec = spec(engine=RecordedEngine(path="x"), num_gpus=0.5)
    board.holds({"one": (writer, 3)})
    assert observer.requests.told == [(3, {"outcome": "answered"}), (1, {"outcome": "failed"})]
    assert observer.tokens.told == [(7, {"direction": "prompt"}), (20, {"direction": "completion"})]
    assert observer.cost.told == [(0.5, {})] and observer.busy.told == [(2.0, {})]
    assert observer.rejected.told == [(1, {"reason": "short"})] and observer.waiting.told == [(6, {})]
    assert observer.processes.told == [(3, {})] and observer.gpus.told == [(1.5, {})]
    (record,) = caplog.records
    assert record.message == "writing"
    assert record.facts == {"job": "fusegen", "run": "runs/x", "phase": "writing"}
