"""Joining a cluster, and sharing a machine of our own."""

import subprocess
import sys
import time

import pytest

from cluster.session import Session, SessionError, connect, leave


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


@pytest.mark.ray
def test_a_session_that_is_there_is_used_and_stays(ray_session):
    import ray

    mine = connect()
    assert mine == Session(local=True, cpus=3, gpus=0, opened=False)
    leave(mine)
    assert ray.is_initialized()
    with pytest.raises(SessionError, match="cannot be reached: this process is connected to"):
        connect("10.0.0.1:6379")


@pytest.mark.ray
@pytest.mark.slow
def test_one_that_is_too_small_is_refused_and_one_of_our_own_ends():
    driver = (
        "import ray\n"
        "from cluster.session import connect, leave, SessionError\n"
        "ray.init(num_cpus=2, include_dashboard=False, logging_level='error')\n"
        "try: connect()\n"
        "except SessionError as error: print(error)\n"
        "ray.shutdown()\n"
        "own = connect('local')\n"
        "print(own.local, own.opened)\n"
        "leave(own)\n"
        "print(ray.is_initialized())\n"
    )
    done = subprocess.run([sys.executable, "-c", driver], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    small, own, gone = done.stdout.splitlines()
    assert "has 2 CPUs, 3 at least are needed" in small
    assert (own, gone) == ("True True", "False")
