"""`jobs submit`: the job as a cluster runs it that asks for a token, with its code sent along."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from cluster import submission
from cluster.proxy import free_port
from cluster.session import SessionError
from cluster.submission import exit_status
from jobs.submit import environment_of
from tests.jobs.conftest import ROOT, results

pytestmark = pytest.mark.cluster
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-of-thirty-two-characters"}


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
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        head = subprocess.Popen(command, env={**os.environ, **TOKEN}, **quiet)
        yield f"127.0.0.1:{dashboard}"
        for process in [*psutil.Process(head.pid).children(recursive=True), head]:
            process.kill()
        head.wait()


def submit(address: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """`jobs submit`, started."""
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", "submit", "--address", address, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def until(condition: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def asked_without_a_token(address: str) -> int:
    """The status of the answer; 0 while there is none."""
    try:
        return httpx.get(f"http://{address}/api/version").status_code
    except httpx.TransportError:
        return 0


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_submitted_run_is_followed_left_stopped_and_ends_with_the_bytes_of_one_started_by_hand(
    tiny, quick, tmp_path, dashboard
):
    run = tmp_path / "run"
    command = ["--python", sys.executable, "--", "fusegen", tiny / "quick.yaml", "--run", run]
    until(lambda: asked_without_a_token(dashboard) == 401)
    first = submit(dashboard, *command, **TOKEN)
    until(lambda: list(run.glob("steps/*/manifest.json")))
    second = submit(dashboard, *command, **TOKEN)
    assert "attached to job fusegen-tiny-" in second.stdout.readline()
    second.send_signal(signal.SIGINT)
    code, _, err = ended(second)
    assert code == 130 and "goes on" in err
    code, out, err = ended(submit(dashboard, "--stop", *command, **TOKEN))
    assert code == 0 and "-1: stopped" in out, err
    code, out, err = ended(first)
    assert code == 130 and "submitted job fusegen-tiny-" in out
    assert not (run / "stm").exists()
    code, out, err = ended(submit(dashboard, *command, **TOKEN))
    assert code == 0, out + err
    assert "Report" in out and "-2 at http" in out
    assert results(run) == results(quick)


def test_a_refused_token_is_one_line(monkeypatch):
    def refuse(address: str) -> None:
        raise AuthenticationError("Unauthenticated: no token.\nMore than one line.")

    monkeypatch.setattr(submission, "JobSubmissionClient", refuse)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    with pytest.raises(
        SessionError, match=r"^Ray's jobs at http://there:1: .*; set RAY_AUTH_MODE=token"
    ) as error:
        submission.Submissions("there:1")
    assert "\n" not in str(error.value)


def test_exit_statuses_are_those_of_the_command_itself():
    def job(status: JobStatus, code: int | None = None) -> int:
        return exit_status(SimpleNamespace(status=status, driver_exit_code=code))

    assert job(JobStatus.SUCCEEDED, 0) == 0
    assert [job(JobStatus.FAILED, code) for code in (1, 2, -9, None)] == [1, 2, 1, 1]
    assert job(JobStatus.STOPPED, 130) == 130


def test_code_is_sent_along_and_runs_are_not(tmp_path, monkeypatch):
    here = environment_of(None)
    assert here["working_dir"] == str(ROOT) and "py_modules" not in here and "/runs" in here["excludes"]
    (tmp_path / "env.yaml").write_text("env_vars: {KEY: x}\nexcludes: [data]\n")
    monkeypatch.chdir(tmp_path)
    there = environment_of("env.yaml")
    assert there["working_dir"] == str(tmp_path) and str(ROOT / "jobs") in there["py_modules"]
    assert there["excludes"][0] == "data" and there["env_vars"] == {
        "KEY": "x",
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("serve runs/mine", "submit: serve is no job of a cluster; allowed: fusegen, foe, merge"),
        ("fusegen configs/fusegen/demo.yaml", "--run (none): a folder"),
        ("fusegen configs/fusegen/demo.yaml --run runs/x", "--run runs/x: a folder"),
        ("fusegen configs/fusegen/demo.yaml --run /x --fresh", "submit: --fresh"),
        ("fusegen configs/fusegen/demo.yaml --run /x --plan", "submit: --plan"),
        ("fusegen configs/fusegen/demo.yaml --run /x --address auto:1", "submit: --address"),
        ("fusegen configs/fusegen/demo.yaml --run /x --set seeed=1", "seeed: unknown key"),
        ("fusegen configs/fusegen/demo.yaml --runs /x", "No such option"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused_before_it_is_asked(command, line, words):
    code, _, err = command("submit", "--address", "127.0.0.1:1", "--", *shlex.split(line))
    assert code == 2 and words in err and err.count("\n") == 1
