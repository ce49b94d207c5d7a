"""Whatever is killed, and whenever: the same command ends with the bytes of an undisturbed run.

The victims are found among the children of this process: the Ray cluster of the tests, or the command itself.
"""

import contextlib
import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.jobs.conftest import CommandLine, ids_of_chains, results

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
PATIENCE_S = 240


def committed(run: Path) -> int:
    """Number of committed steps."""
    return len(list(run.glob("steps/*/manifest.json")))


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of a condition."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


def children(title: str) -> list[int]:
    """Process ids of the Ray workers below this process whose title begins so."""
    pids = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith(title):
                pids.append(process.pid)
    return pids


class Victims:
    """A job on the cluster of the tests, and ways to kill its parts."""

    def __init__(self, jobs: CommandLine, command: list[object], run: Path) -> None:
        self.jobs, self.command, self.run = jobs, command, run
        self.driver = jobs.start(*command)

    def kill(self, what: str) -> None:
        """Kill a part with SIGKILL; a killed driver is started again."""
        os.kill(getattr(self, what)(), signal.SIGKILL)
        if what == "the_driver":
            self.driver.communicate(timeout=60)
            self.driver = self.jobs.start(*self.command)

    def interrupt(self, signal_: signal.Signals) -> None:
        """Interrupt the driver once it follows the run, which it then says, and start it again."""
        wait_until(lambda: select.select([self.driver.stdout], [], [], 0)[0], "the driver")
        self.driver.send_signal(signal_)
        _, err = self.driver.communicate(timeout=PATIENCE_S)
        assert self.driver.returncode == 130, err
        assert err.strip() == "jobs: interrupted; start the same command again to go on"
        self.driver = self.jobs.start(*self.command)

    def the_driver(self) -> int:
        assert self.driver.poll() is None, self.driver.communicate()
        return self.driver.pid

    def the_coordinator(self) -> int:
        return wait_until(lambda: children("ray::Coordinator"), "the coordinator")[0]

    def a_plm(self) -> int:
        return random.choice(wait_until(lambda: children("ray::Plm"), "a PLM"))

    def a_worker(self) -> int:
        return random.choice(wait_until(lambda: children("ray::perform"), "a worker at work"))


@pytest.fixture
def victims(jobs, address, quick, tiny, tmp_path) -> Iterator[Victims]:
    run = tmp_path / "run"
    job = Victims(jobs, ["fusegen", tiny / "quick.yaml", "--run", run, "--address", address], run)
    yield job
    if job.driver.poll() is None:
        job.driver.kill()
        job.driver.communicate(timeout=60)


def assert_same(run: Path, undisturbed: Path) -> None:
    """The same results, and every request recorded once."""
    mine, theirs = results(run), results(undisturbed)
    assert sorted(mine) == sorted(theirs)
    assert [name for name in mine if mine[name] != theirs[name]] == []
    ids = [i for chain in ids_of_chains(run) for i in chain]
    assert len(ids) == len(set(ids))
    assert not [path for path in run.rglob("*.tmp") if "stm" in path.parts or "dataset" in path.parts]


def test_fact_19_parts_that_are_killed_or_interrupted_leave_no_trace(victims, quick):
    rng = random.Random(52)  # who is interrupted has started the run, and texts are still asked for
    order: list[Any] = ["the_driver", "the_coordinator", "a_plm", "a_worker", signal.SIGINT, signal.SIGTERM]
    moments = sorted(rng.sample(range(1, 21), len(order)))
    rng.shuffle(order)
    for moment, what in zip(moments, order, strict=True):
        wait_until(lambda count=moment: committed(victims.run) >= count, f"{moment} steps")
        if isinstance(what, str):
            victims.kill(what)
        else:
            victims.interrupt(what)
    _, err = victims.driver.communicate(timeout=PATIENCE_S)
    assert victims.driver.returncode == 0, err
    assert_same(victims.run, quick)


@pytest.mark.long
def test_a_machine_that_goes_down_goes_on_where_it_was(jobs, quick, tiny, tmp_path):
    run, moment = tmp_path / "run", random.Random(3).randrange(5, 24)
    command = ["fusegen", tiny / "quick.yaml", "--run", run, "--address", "local"]
    driver = jobs.start(*command)
    wait_until(lambda: committed(run) >= moment or driver.poll() is not None, f"{moment} steps")
    below = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()  # takes the cluster that it started with it
    driver.communicate(timeout=60)
    _, left = psutil.wait_procs(below, timeout=10)  # agents of Ray's that wait for their raylet much longer
    for process in left:
        process.kill()
    assert not (run / "stm").exists()
    steps = {path: path.stat().st_mtime_ns for path in run.glob("steps/*/manifest.json")}
    assert len(steps) >= moment
    done = jobs(*command)
    assert done.returncode == 0, done.stderr
    assert_same(run, quick)
    assert all(path.stat().st_mtime_ns == before for path, before in steps.items())
