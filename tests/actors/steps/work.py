"""Step functions for the tests of the runner: workers import them by name."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from cluster.storage import Run, Step


def note(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write a file and count the calls."""
    _called(params)
    step.files.write_json("value.json", params["value"])
    return {"double": 2 * params["value"]}


def fail(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Raise an error of two lines."""
    _called(params)
    raise ValueError("no such thing\nand a second line")


def die(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Kill the own process, the first `times` times."""
    if _called(params) <= params["times"]:
        step.files.write_json("value.json", "half")
        os.kill(os.getpid(), signal.SIGKILL)
    return note(run, step, params)


def wait(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Sleep for long."""
    _called(params)
    time.sleep(600)
    return {}


def _called(params: dict[str, Any]) -> int:
    path = Path(params["log"])
    with path.open("a") as log:
        log.write("x")
    return len(path.read_text())
