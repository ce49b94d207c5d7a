"""Joining a cluster, and sharing a machine of our own."""

import subprocess
import sys
import time

import pytest

from cluster.session import Session, SessionError, connect


def test_actors_of_a_machine_of_our_own_share_half_of_it():
    local = Session(local=True, cpus=6, gpus=0)
    shares = local.fit_cpus({"a": 3, "b": 1})
    assert shares == {"a": 1.5, "b": 0.5}
    assert local.fit_cpus({"a": 0.5, "b": 0.5}) == {"a": 0.5, "b": 0.5}
    assert Session(local=False, cpus=0, gpus=0).fit_cpus({"a": 30}) == {"a": 30}


def test_an_address_where_nobody_answers_is_said_at_once():
    started = time.monotonic()
    with pytest.raises(SessionError, match=r"Ray at 127\.0\.0\.1:1: cannot be reached"):
        connect("127.0.0.1:1")
    assert time.monotonic() - started < 60


@pytest.mark.ray
def test_workers_of_a_cluster_run_the_packages_of_the_driver(ray_session, tmp_path):
    import ray

    address = ray.get_runtime_context().gcs_address
    driver = (
        "import ray, configs, actors\n"
        "from cluster.session import connect\n"
        f"connect({address!r})\n"
        "where = ray.remote(lambda: [__import__(n).__file__ for n in ('configs', 'actors', 'cluster')])\n"
        "print(*ray.get(where.options(num_cpus=0).remote()), sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", driver], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    files = done.stdout.splitlines()
    assert len(files) == 3
    assert all("py_modules_files" in file for file in files)
