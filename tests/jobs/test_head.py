"""The head of a cluster goes down with all that runs on it, and comes back with its memory on disk."""

import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.proxy import free_port
from tests.jobs.test_faults import assert_same, committed, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]


class Head:
    """A cluster of one node whose GCS writes what it knows to a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        about = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(self.folder / "gcs")}
        where = ["--node-ip-address=127.0.0.1", f"--port={self.port}", f"--temp-dir={self.folder}"]
        small = ["--num-cpus=3", "--include-dashboard=false", f"--object-store-memory={128 << 20}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *where, *small],
            env={**os.environ, **about},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._listens, "the head")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """Kill every process of the node at once, with SIGKILL."""
        all_of_it = [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
        for process in all_of_it:
            process.kill()
        self.process.wait()
        psutil.wait_procs(all_of_it[1:], timeout=10)


@pytest.fixture
def head() -> Iterator[Head]:
    with tempfile.TemporaryDirectory(
        prefix="ray-", ignore_cleanup_errors=True
    ) as folder:  # short: for sockets
        (Path(folder) / "gcs").mkdir()
        made = Head(Path(folder))
        made.start()
        yield made
        made.kill()


def test_the_same_command_goes_on_with_the_head_that_came_back(jobs, quick, tiny, tmp_path, head):
    run, moment = tmp_path / "run", random.Random(7).randrange(3, 12)
    command = ["fusegen", tiny / "quick.yaml", "--run", run, "--address", head.address]
    driver = jobs.start(*command)
    wait_until(lambda: committed(run) >= moment or driver.poll() is not None, f"{moment} steps")
    head.kill()
    driver.communicate(timeout=120)
    assert driver.returncode != 0
    assert not (run / "stm").exists()
    steps = {path: path.stat().st_mtime_ns for path in run.glob("steps/*/manifest.json")}
    head.start()
    done = jobs(*command)
    assert done.returncode == 0, done.stderr
    assert_same(run, quick)
    assert {path: path.stat().st_mtime_ns for path in steps} == steps
