"""Kill parts of every job at random moments until each is done, and compare what is left with an undisturbed
run: the same bytes, nothing twice, nothing lost.

Prints one line, `N kills, N differing, N duplicates, N lost`, and exits with 1 unless the last three are 0.
What is done meanwhile is told on standard error.
"""

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    RAY_DATA_DISABLE_PROGRESS_BARS="1",
    RAY_health_check_initial_delay_ms="1000",
    RAY_health_check_period_ms="1000",
    RAY_health_check_failure_threshold="3",
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
)

from transformers.utils.logging import disable_progress_bar

from tests.faults.town import Town
from tests.faults.victims import Job, jobs
from tests.jobs.conftest import CommandLine

KILLS = 12
"""Kills per job."""
PAUSE_S = (0.2, 2.5)
"""Shortest and longest time between two of them."""
ATTEMPTS = 3
"""Times in a row that the same command may fail after a kill: parts that die all the time end a step."""
PATIENCE_S = 240
COMMAND = CommandLine()


class FaultsError(Exception):
    """A run that did not end; the message says why."""


class Disturbed:
    """One run of a job whose parts are killed until it is done, or `kills` were made."""

    def __init__(self, job: Job, run: Path, town: Town, rng: random.Random) -> None:
        self.command = [job.name, job.config, "--run", run, "--address", town.address]
        self.begun = run / "run.json"
        self.town, self.rng, self.killed = town, rng, Counter[str]()
        self.driver = COMMAND.start(*self.command)

    def follow(self, kills: int) -> Counter[str]:
        """What was killed, by kind; FaultsError when the run does not end."""
        failures, due, end = 0, self._soon(), time.monotonic() + PATIENCE_S
        while (code := self.driver.poll()) != 0:
            if code is not None:
                failures += 1
                said = self.driver.communicate()[1].strip().splitlines()
                print(f"  ended with {code}: {said[-1] if said else ''}", file=sys.stderr)
                if failures > ATTEMPTS:
                    raise FaultsError(f"{self.command[0]}: the same command failed {failures} times")
                self.driver = COMMAND.start(*self.command)
            if self.killed.total() < kills and time.monotonic() > due and self.begun.exists():
                self._kill()
                failures, due, end = 0, self._soon(), time.monotonic() + PATIENCE_S
            if time.monotonic() > end:
                raise FaultsError(f"{self.command[0]}: not done within {PATIENCE_S} s of the last kill")
            time.sleep(0.05)
        self.driver.communicate()
        return self.killed

    def _soon(self) -> float:
        return time.monotonic() + self.rng.uniform(*PAUSE_S)

    def _kill(self) -> None:
        kind = self.rng.choice(["driver", *self.town.kinds()])
        if kind == "driver":
            self.driver.kill()
            self.driver.communicate()
            self.driver = COMMAND.start(*self.command)
        elif not self.town.kill(kind, self.rng):
            return
        self.killed[kind] += 1

    def end(self) -> None:
        """Leave no process behind."""
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            self.driver.kill()
            self.driver.communicate(timeout=60)


def disturb(job: Job, place: Path, town: Town, rng: random.Random, kills: int) -> Counter[str]:
    """Run a job in new directories until so many kills were made; counts of `kills` and of what is wrong."""
    whole = place / "whole"
    started = time.monotonic()
    done = COMMAND(job.name, job.config, "--run", whole, "--address", town.address)
    if done.returncode:
        raise FaultsError(f"{job.name}: fails without any kill: {done.stderr.strip()}")
    undisturbed = time.monotonic() - started
    files, rows = job.files(whole), job.rows(whole)
    if not files or not rows:
        raise FaultsError(f"{job.name}: left nothing to compare")
    found: Counter[str] = Counter()
    number = 0
    while found["kills"] < kills:
        number += 1
        run, started = place / f"run-{number}", time.monotonic()
        disturbed = Disturbed(job, run, town, rng)
        try:
            killed = disturbed.follow(kills - found["kills"])
        finally:
            disturbed.end()
        seconds = time.monotonic() - started
        said = ", ".join(f"{count} {kind}" for kind, count in sorted(killed.items())) or "nothing"
        print(f"{job.name}: killed {said}; {seconds:.0f} s, {undisturbed:.0f} s without", file=sys.stderr)
        mine, ids = job.files(run), job.rows(run)
        changed = [name for name in sorted(files | mine) if files.get(name) != mine.get(name)]
        if changed:
            print(f"  differing: {', '.join(changed)}; see {run}", file=sys.stderr)
        found["kills"] += killed.total()
        found["differing"] += len(changed) + len(set(ids) - set(rows))
        found["duplicates"] += len(ids) - len(set(ids))
        found["lost"] += len(set(rows) - set(ids))
    return found


def main() -> int:
    """Run the suite; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of who is killed, and when")
    parser.add_argument("--kills", type=int, default=KILLS, help="per job")
    parser.add_argument("--jobs", nargs="*", default=["fusegen", "foe", "merge"])
    options = parser.parse_args()
    disable_progress_bar()
    found: Counter[str] = Counter()
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    with Town() as town:
        for job in jobs(place):
            if job.name in options.jobs:
                folder = place / job.name
                folder.mkdir()
                rng = random.Random(f"{options.seed}/{job.name}")
                found += disturb(job, folder, town, rng, options.kills)
    wrong = [f"{found[what]} {what}" for what in ("differing", "duplicates", "lost")]
    print(", ".join([f"{found['kills']} kills", *wrong]))
    return int(bool(found["differing"] or found["duplicates"] or found["lost"]))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FaultsError as error:
        sys.exit(f"faults: {error}")
