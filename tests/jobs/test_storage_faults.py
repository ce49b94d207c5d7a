"""Storage that is full, fails for a while, or is slow: one clear line, and the same command goes on."""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from actors.coordinator import Coordinator
from actors.steps.runner import StepError
from cluster.session import Session
from cluster.storage import Run, StorageError
from configs.schema.base import identity
from configs.schema.foe import FoeConfig
from tests import corpus
from tests.actors.routing.conftest import services  # noqa: F401 - fixture
from tests.jobs.conftest import coordinated

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(300)]
QUICK = {**corpus.SHORT, "variant": "zerogen", "eval": None, "baselines": {"plms": False, "union": False}}
RESULTS = ("dataset/train.parquet", "stm/model.safetensors")


@pytest.fixture(scope="module")
def whole(ray_session, tiny, tmp_path_factory) -> dict[str, bytes]:
    """The results of a run on a healthy disk."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    coordinated(tiny, str(folder), **QUICK)
    return {path: (folder / path).read_bytes() for path in RESULTS}


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of 64 KB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_said_in_one_line_and_the_run_goes_on_once_there_is_room(tiny, disk, whole):
    run = disk / "run"
    with pytest.raises((StepError, StorageError), match="No space left on device") as error:
        coordinated(tiny, str(run), **QUICK)
    assert "\n" not in str(error.value)
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    coordinated(tiny, str(run), **QUICK)
    assert {path: (run / path).read_bytes() for path in RESULTS} == whole


def test_a_routing_job_goes_on_after_a_full_disk(ray_session, services, disk, tmp_path):  # noqa: F811
    config = FoeConfig(job="foe", name="services", experts={"kind": "recorded", "path": str(services)})

    def route(folder: Path) -> dict[str, bytes]:
        run = Run.open(str(folder), identity(config), {}, "0")
        Coordinator(run.uri, config, Session(local=False, cpus=0, gpus=0)).run()
        return {name: run.read_bytes(f"artefact/{name}") for name in run.names("artefact")}

    with pytest.raises((StepError, StorageError), match="No space left on device") as error:
        route(disk / "run")
    assert "\n" not in str(error.value)
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    assert route(disk / "run") == route(tmp_path / "whole")


class Unsteady:
    """An S3 server that is slow, refuses one request in forty, and is away after `lasts` of them."""

    def __init__(self, lasts: int) -> None:
        self.lasts, self.asked, self.lock = lasts, 0, threading.Lock()
        self.inner = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ, start_response):
        with self.lock:
            self.asked += 1
            away = self.asked > self.lasts or self.asked % 40 == 0
        if away:
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [
                b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            ]
        time.sleep(0.005)
        return self.inner(environ, start_response)


def test_a_store_that_fails_is_said_in_one_line_and_one_that_is_unsteady_is_outlasted(tiny, whole):
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = Unsteady(lasts=150)
    server = make_server("127.0.0.1", 0, store, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = f"region=us-east-1&scheme=http&endpoint_override=127.0.0.1:{server.server_port}"
    pafs.FileSystem.from_uri(f"s3://runs?{options}&allow_bucket_creation=true")[0].create_dir("runs")
    uri = f"s3://runs/unsteady?{options}"
    with pytest.raises((StepError, StorageError), match="cannot be") as error:
        coordinated(tiny, uri, **QUICK)
    assert "\n" not in str(error.value)
    store.lasts = 10**9
    coordinated(tiny, uri, **QUICK)
    assert {path: Run(uri).read_bytes(path) for path in RESULTS} == whole
    server.shutdown()
