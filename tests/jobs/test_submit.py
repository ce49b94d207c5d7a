"""`ray job submit`: the job as a cluster runs it, with its code sent along."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from cluster.proxy import free_port
from tests.jobs.conftest import results

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def dashboard() -> Iterator[str]:
    """The dashboard's address of a cluster in a process of its own."""
    port, dashboard, agent = (free_port() for _ in range(3))
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray = Path(sys.executable).with_name("ray")
        command = [
            ray,
            "start",
            "--head",
            "--block",
            "--num-cpus=4",
            f"--temp-dir={folder}",
            f"--port={port}",
        ]
        command += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        command += [f"--object-store-memory={256 << 20}"]
        head = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield f"127.0.0.1:{dashboard}"
        for process in [*psutil.Process(head.pid).children(recursive=True), head]:
            process.kill()
        head.wait()


def submitted(dashboard: str, command: str) -> tuple[JobSubmissionClient, str]:
    """A client, and the id of a new job; a young cluster does not answer, or has no agent yet to take it."""
    deadline = time.monotonic() + 120
    while True:
        try:
            client = JobSubmissionClient(f"http://{dashboard}")
            return client, client.submit_job(entrypoint=command, runtime_env={"working_dir": str(ROOT)})
        except (ConnectionError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def test_a_submitted_job_ends_with_the_bytes_of_one_started_by_hand(dashboard, tiny, quick, tmp_path):
    command = f"{sys.executable} -m jobs fusegen {tiny / 'quick.yaml'} --run {tmp_path / 'run'}"
    client, job = submitted(dashboard, command)
    while (status := client.get_job_status(job)) in {JobStatus.PENDING, JobStatus.RUNNING}:
        time.sleep(0.5)
    assert status == JobStatus.SUCCEEDED, client.get_job_logs(job)
    assert results(tmp_path / "run") == results(quick)
