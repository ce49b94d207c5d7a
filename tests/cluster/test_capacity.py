"""The cluster files that ship, and whether what ships can run on them."""

import copy
import re
from collections import Counter

import pytest
import yaml
from ray.serve.schema import DeploymentSchema, ServeDeploySchema

from cluster.capacity import CapacityError, Demand, NodeType, node_types, placed
from configs.load import PACKAGE_ROOT, load
from configs.schema.fusegen import FusegenConfig
from configs.schema.serve import Serving
from jobs.needs import phases
from tests.cluster.kuberay import SPECS, faults

pytestmark = pytest.mark.cluster
FOLDER = PACKAGE_ROOT / "cluster"
CLUSTERS = ["aws.yaml", "gcp.yaml", "kuberay/cluster.yaml", "kuberay/service.yaml"]
FUSEGEN = sorted((PACKAGE_ROOT / "configs/fusegen").glob("*.yaml"))
L4 = NodeType("l4", 8, 1, frozenset({"L4"}), 3, 0.98)
H100 = NodeType("h100", 192, 8, frozenset({"H100"}), 1, 55.04)
CPU = NodeType("cpu", 16, 0, frozenset(), 2, 0.81)


def content(name):
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters_that_ship_begin_at_zero_and_have_prices_and_gpus_of_several_kinds(name):
    types = node_types(FOLDER / name)
    assert all(kind.price > 0 and kind.most > 0 for kind in types)
    assert {model for kind in types for model in kind.accelerators} >= {"L4"}
    assert any(not kind.gpus and kind.cpus >= 16 for kind in types)


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_heads_have_no_cpu_a_token_and_their_memory_on_disk(name):
    config = content(name)
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert all(kind.get("min_workers", 0) == 0 for kind in types.values())
    (head,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    (worker,) = [command for command in config["worker_start_ray_commands"] if "ray start" in command]
    for part in (
        "--num-cpus=0",
        "RAY_gcs_storage=rocksdb",
        "--dashboard-host=127.0.0.1",
        "--autoscaling-config",
    ):
        assert part in head
    assert "RAY_AUTH_MODE=token" in head and "RAY_AUTH_MODE=token" in worker
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}


@pytest.mark.parametrize("name", ["cluster.yaml", "job.yaml", "service.yaml"])
def test_objects_of_kuberay_have_known_fields(name):
    found = content(f"kuberay/{name}")
    assert set(found) == {"apiVersion", "kind", "metadata", "spec"} and found["apiVersion"] == "ray.io/v1"
    assert faults(found["spec"], SPECS[found["kind"]]) == []
    wrong = copy.deepcopy(found["spec"])
    wrong["surprise"] = 1
    assert faults(wrong, SPECS[found["kind"]]) == ["spec.surprise"]
    cluster = found["spec"].get("rayClusterConfig", found["spec"])
    if "headGroupSpec" in cluster:
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert cluster["rayVersion"] == "2.60.0" and cluster["authOptions"]["mode"] == "token"


def test_the_service_deploys_what_serve_takes():
    served = yaml.safe_load(content("kuberay/service.yaml")["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(served)
    (application,) = served["applications"]
    ours = yaml.safe_load((FOLDER / "serve.yaml").read_text())["applications"][0]
    assert Serving.model_validate(application["args"]) == Serving.model_validate(ours["args"])
    assert all(set(d) <= set(DeploymentSchema.model_fields) for d in application["deployments"])


def test_the_image_has_the_version_of_ray_that_is_required():
    (version,) = re.findall(r"^ray\[.*\]==(.+)$", (PACKAGE_ROOT / "requirements/base.txt").read_text(), re.M)
    assert f"rayproject/ray:{version}-py311-gpu" in (FOLDER / "Dockerfile").read_text()


@pytest.mark.parametrize("path", FUSEGEN, ids=lambda path: path.stem)
def test_what_ships_fits_every_cluster(path):
    overrides = [] if "generations" not in path.read_text() else ["generations.path=x", "eval.path=x"]
    config = load(str(path), FusegenConfig, overrides)
    for name in CLUSTERS:
        types = node_types(FOLDER / name)
        for demands in phases(config).values():
            assert placed(demands, types)


def test_demands_share_nodes_and_take_the_cheapest_that_can():
    half = Demand("half", cpus=1, gpus=0.5, count=2)
    assert placed([half, Demand("task", cpus=2)], [H100, L4, CPU]) == Counter({L4: 1})
    assert placed([Demand("task", cpus=12)], [H100, L4, CPU]) == Counter({CPU: 1})
    assert placed([Demand("wide", gpus=4)], [L4, H100]) == Counter({H100: 1})
    assert placed([Demand("h", gpus=1, accelerator="H100"), half], [L4, H100]) == Counter({H100: 1})


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        (
            Demand("plm a", gpus=1, accelerator="A100"),
            "plm a: 1 GPU of type A100 and 0 CPU: no node type has",
        ),
        (Demand("plm b", gpus=9), "plm b: 9 GPU and 0 CPU: no node type has that; there are 3 x l4"),
        (Demand("plm c", gpus=1, count=12), "plm c: 1 GPU and 0 CPU: no room beside the others"),
    ],
)
def test_a_cluster_that_is_too_small_is_refused_with_what_finds_no_room(demand, words):
    with pytest.raises(CapacityError, match=f"^{words}"):
        placed([demand], [L4, H100])
