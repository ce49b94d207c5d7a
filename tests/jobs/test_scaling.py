"""Models bring up the nodes that they need, and those leave when the models are done."""

import json
import signal
import subprocess
import time
from collections import Counter

import httpx
import pytest
import yaml

from cluster.proxy import free_port
from tests import corpus, experts
from tests.cluster.growing import Growing

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(400)]
NODES = {
    "l4": {"resources": {"CPU": 2, "GPU": 1, "accelerator_type:L4": 1}},
    "a100": {"resources": {"CPU": 2, "GPU": 1, "accelerator_type:A100": 1}},
}
PATIENCE_S = 180
"""Serve looks back half a minute before it ends a replica, and leaves an empty node as late again."""
SHORT = {"samples": {"per_plm": 10, "initial": 10, "rounds": 0}, "variant": "zerogen"}


def followed(driver: subprocess.Popen[str], cluster: Growing) -> Counter[str]:
    """How many nodes of each type a job had at most at a time."""
    most = Counter[str]()
    while driver.poll() is None:
        most |= cluster.nodes()
        time.sleep(0.3)
    out, err = driver.communicate()
    assert driver.returncode == 0, out + err
    return most


def wait_for(cluster: Growing, nodes: dict[str, int]) -> None:
    end = time.monotonic() + PATIENCE_S
    while cluster.nodes() != nodes:
        assert time.monotonic() < end, cluster.nodes()
        time.sleep(0.3)


def test_models_bring_up_nodes_with_their_gpus_which_leave_when_they_have_written(jobs, tiny, tmp_path):
    wanted = {"critic": (0.5, "L4"), "fan": (0.5, "L4"), "grump": (1, "A100")}
    plms = [corpus.plm(name, num_gpus=n, accelerator_type=kind) for name, (n, kind) in wanted.items()]
    linear = {"rounds": corpus.LINEAR, "final": corpus.LINEAR}
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(corpus.config(tiny, **SHORT, plms=plms, stm=linear)))
    run = tmp_path / "run"
    with Growing(NODES, cpus=4, idle_s=2) as cluster:
        assert not cluster.nodes()
        most = followed(jobs.start("fusegen", config, "--run", run, "--address", cluster.address), cluster)
        assert most == {"l4": 1, "a100": 1}, "two halves share a GPU, and nobody takes another's"
        wait_for(cluster, {})
    kept = json.loads((run / "summary.json").read_text())["samples"]["plms"]
    assert set(kept) == set(corpus.PLMS)


def test_pools_of_ray_data_bring_up_nodes_too(jobs, tiny, tmp_path):
    head = {"kind": "head", "num_gpus": 1, "accelerator_type": "A100"}
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(corpus.config(tiny, **SHORT, stm={"rounds": head, "final": head})))
    with Growing(NODES, cpus=4, idle_s=2) as cluster:
        command = ["fusegen", config, "--run", tmp_path / "run", "--address", cluster.address]
        assert set(followed(jobs.start(*command), cluster)) == {"a100"}
        wait_for(cluster, {})


def test_an_expert_that_is_asked_brings_up_its_node_and_one_that_nobody_asks_gives_it_back(jobs, tmp_path):
    (experts.write(tmp_path) / "linear").rename(tmp_path / "stm")
    (tmp_path / "summary.json").write_text(json.dumps({"name": "films"}))
    service = {"num_gpus": 1, "accelerator_type": "L4", "min_replicas": 0, "idle_s": 2, "timeout_s": 60}
    settings = [f"service.{key}={value}" for key, value in service.items()]
    port = free_port()
    options = ["--port", port, "--no-auth", *(part for one in settings for part in ("--set", one))]
    with Growing(NODES, cpus=4, idle_s=2) as cluster:
        server = jobs.start("serve", tmp_path, "--address", cluster.address, *options)
        while not (line := server.stdout.readline()).startswith("ready "):
            assert line or server.poll() is None, server.stderr.read()
        assert not cluster.nodes()
        body = {"inputs": ["A clever, warm film."], "deadline_ms": 60_000}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/classify", json=body, timeout=90)
        assert answer.status_code == 200, answer.text
        assert cluster.nodes() == {"l4": 1}
        wait_for(cluster, {})
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)
