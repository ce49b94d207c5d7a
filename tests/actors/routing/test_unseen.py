import pytest

from actors.routing import collected, unseen
from cluster.storage import Run
from configs.schema.base import identity
from configs.schema.foe import Unseen
from tests.actors.routing.conftest import config_of, services  # noqa: F401 - a fixture


@pytest.fixture
def scored(tmp_path):
    """Facts of the step for a configuration."""

    def run(config, spec, sample=10):
        folder = Run.open(str(tmp_path / "run"), {}, {}, "0")
        step = folder.step("pool", {})
        collected.read(config).write(step.files)
        params = {
            "pool": step.key,
            "unseen": identity(spec),
            "sample": sample,
            "max_stored": 10_000,
            "seed": 0,
        }
        return unseen.unseen(folder, step, params)

    return run


def test_super_classes_that_were_left_out_are_noticed(scored, shared):
    config = config_of(shared / "data/experts/foe_cifar100_superclass")
    found = scored(config, Unseen(column="label", values=("17", "18", "19")))
    everyone, one = found["experts"]["20"], found["experts"]["1"]
    assert everyone["auroc"] == pytest.approx(0.997, abs=0.01)
    assert everyone["flagged_seen"] == pytest.approx(0.046, abs=0.02)
    assert everyone["flagged_unseen"] == pytest.approx(0.983, abs=0.02)
    assert one["auroc"] == pytest.approx(0.82, abs=0.05)
    assert found["roc"][0] == [0, 0]
    assert found["roc"][-1] == [1, 1]


def test_what_is_left_out_when_nothing_is_said(scored, services):  # noqa: F811
    assert scored(config_of(services), Unseen())["column"] is None  # two domains only: nothing would be left
    found = scored(config_of(services), Unseen(column="label"))
    assert found["values"] == ["2"]
    assert scored(config_of(services), Unseen(column="absent"))["column"] is None
