"""Fixtures that all tests share."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest

os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    RAY_DATA_DISABLE_PROGRESS_BARS="1",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    RAY_idle_worker_killing_time_threshold_ms="10000",
    RAY_worker_niceness="0",  # actors would starve beside the tests of another worker
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    ENDPOINT_KEY="sk-of-the-tests",
    AWS_ACCESS_KEY_ID="a",
    AWS_SECRET_ACCESS_KEY="b",  # noqa: S106
    AWS_EC2_METADATA_DISABLED="true",
)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository; the test is skipped where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the shared data folder beside the repository")
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Makes a folder that all processes of the tests share: the first that needs it fills it."""
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, mark = place / name, place / f"{name}.done"
        with (place / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not mark.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                mark.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """A bucket of an S3 server on this machine: a URI with `{}` where the path goes."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    options = f"region=us-east-1&scheme=http&endpoint_override=127.0.0.1:{port}"
    pafs.FileSystem.from_uri(f"s3://runs?{options}&allow_bucket_creation=true")[0].create_dir("runs")
    yield f"s3://runs/{{}}?{options}"
    server.stop()


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray cluster of three logical CPUs for all tests marked `ray`: steps run side by side, and no more
    processes are started, each of which takes seconds, than two cores can use."""
    import ray

    from cluster.session import SPARE_WORKERS_MS

    folder = tempfile.mkdtemp(prefix="ray-")  # short: it becomes part of socket names
    os.environ["TMPDIR"] = folder
    os.environ.update(RAY_idle_worker_killing_time_threshold_ms=str(SPARE_WORKERS_MS))
    ray.init(
        address="local",
        _temp_dir=folder,
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=256 << 20,
        logging_level="error",
    )
    del os.environ["TMPDIR"]
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
