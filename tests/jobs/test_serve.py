"""`jobs serve` as a person and a script use it."""

import json
import signal
import socket

import httpx
import psutil
import pytest

from cluster.proxy import free_port
from tests import experts

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (experts.write(folder) / "linear").rename(folder / "stm")
    (folder / "summary.json").write_text(json.dumps({"name": "films"}))
    return folder


def test_it_says_when_it_is_ready_and_leaves_nothing_behind(run, jobs):
    port = free_port()
    arguments = ("serve", run, "--port", port, "--no-auth", "--address", "local")
    process = jobs.start(*arguments, on_interrupt=signal.SIG_IGN)  # as in the background of a script
    try:
        lines = []
        while not lines or not lines[-1].startswith("ready "):
            lines.append(process.stdout.readline())
            assert lines[-1] or process.poll() is None, process.stderr.read()
        assert lines[-1] == f"ready http://127.0.0.1:{port}\n"
        body = {"inputs": ["A clever, warm film."], "lambda": 0.1}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/classify", json=body, timeout=30).json()
        (result,) = answer["results"]
        assert {"label", "scores", "experts", "cost", "stop_reason"} <= set(result)
        assert result["experts"] == ["stm"] and answer["artefact"]
        below = psutil.Process(process.pid).children(recursive=True)
        proxies = [p for p in below if "haproxy" in p.name()]
        assert proxies, "HAProxy is installed with Ray Serve and not used"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        _, alive = psutil.wait_procs(below, timeout=30)
        assert not alive
    finally:
        if process.poll() is None:
            process.kill()
    assert "no API keys" in process.stderr.read()


def test_what_cannot_be_served_is_one_line(run, jobs, command, tmp_path):
    elsewhere = ["--address", "127.0.0.1:1"]
    done = jobs("serve", run, "--host", "0.0.0.0")  # noqa: S104
    assert done.returncode == 2 and "reaches other machines" in done.stderr and done.stderr.count("\n") == 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = command("serve", run, "--port", taken.getsockname()[1], "--no-auth", *elsewhere)
    assert code == 2 and "something listens there already" in err
    code, _, err = command("serve", tmp_path, "--no-auth", *elsewhere)
    assert code == 2 and "neither a finished run" in err and err.count("\n") == 1
