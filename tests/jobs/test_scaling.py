"""Models bring up the nodes that they need, and those leave when the models are done."""

import json
import time
from collections import Counter

import pytest
import yaml

from tests import corpus
from tests.cluster.growing import Growing

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(240)]
NODES = {
    "l4": {"resources": {"CPU": 2, "GPU": 1, "accelerator_type:L4": 1}},
    "a100": {"resources": {"CPU": 2, "GPU": 1, "accelerator_type:A100": 1}},
}
SHORT = {"samples": {"per_plm": 10, "initial": 10, "rounds": 0}, "variant": "zerogen"}


def test_models_bring_up_nodes_with_their_gpus_which_leave_when_they_have_written(jobs, tiny, tmp_path):
    wanted = {"critic": (0.5, "L4"), "fan": (0.5, "L4"), "grump": (1, "A100")}
    plms = [corpus.plm(name, num_gpus=n, accelerator_type=kind) for name, (n, kind) in wanted.items()]
    linear = {"rounds": corpus.LINEAR, "final": corpus.LINEAR}
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(corpus.config(tiny, **SHORT, plms=plms, stm=linear)))
    run, most = tmp_path / "run", Counter()
    with Growing(NODES, cpus=4, idle_s=2) as cluster:
        assert not cluster.nodes()
        driver = jobs.start("fusegen", config, "--run", run, "--address", cluster.address)
        while driver.poll() is None:
            most |= cluster.nodes()
            time.sleep(0.3)
        out, err = driver.communicate()
        assert driver.returncode == 0, out + err
        assert most == {"l4": 1, "a100": 1}, "two halves share a GPU, and nobody takes another's"
        end = time.monotonic() + 30
        while cluster.nodes():
            assert time.monotonic() < end, cluster.nodes()
            time.sleep(0.3)
    kept = json.loads((run / "summary.json").read_text())["samples"]["plms"]
    assert set(kept) == set(corpus.PLMS)
