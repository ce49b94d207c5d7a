"""What is learnt from arrays is what a job learns from the same items."""

import numpy as np
import pytest
from safetensors.numpy import load

from actors.routing import artefact, collected, inplace
from cluster.storage import Storage
from configs.schema.base import ConfigError
from tests.actors.routing.conftest import config_of

SETTINGS = {"rates": [0.0, 0.005, 0.05], "eager_depth": 2}


def test_it_is_the_artefact_of_the_job(services, fused, tmp_path):
    config = config_of(services, fusers=["knn"], policy={**SETTINGS, "fusers": ["knn"]})
    theirs = artefact.read(fused(config)[1].below("artefact"))
    pool = collected.read(config)
    fit = pool.rows("fit")
    blocks = {name: block[fit] for name, block in zip(pool.about.experts, pool.blocks, strict=True)}
    prices = dict(zip(pool.about.experts, pool.expected_prices.tolist(), strict=True))
    config = config.model_copy(update={"prices": prices})
    ours = inplace.learn(inplace.pool_of(blocks, pool.labels[fit], pool.about.classes, config), config)
    same = (
        "kind",
        "classes",
        "calibration",
        "distances",
        "contexts",
        "rate",
        "features",
        "settings",
        "answer",
    )
    assert {name: ours.manifest[name] for name in same} == {name: theirs.manifest[name] for name in same}
    assert [e["price"] for e in ours.manifest["experts"]] == [10, 4, 0.5]
    assert ours.policy.starts_ == theirs.policy.starts_
    mine, other = (arrays(found, tmp_path / name) for name, found in (("ours", ours), ("theirs", theirs)))
    assert mine.keys() == other.keys() and any(name.startswith("0,1") for name in mine)
    assert all((mine[name] == other[name]).all() for name in mine)


def arrays(found, folder):
    """What an artefact holds in safetensors."""
    files = Storage(str(folder))
    artefact.write(found, files)
    return load(files.read_bytes("stored.safetensors")) | load(files.read_bytes("tables.safetensors"))


def test_what_does_as_well_for_less_in_rehearsals_is_kept():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 80)
    sure = np.eye(2)[labels]
    guess = np.eye(2)[rng.integers(0, 2, 80)]
    config = config_of("nowhere", prices={"sure": 1, "guess": 1}, policy={"fusers": ["knn", "logistic"]})
    found = inplace.learn(inplace.pool_of({"guess": guess, "sure": sure}, labels, ("a", "b"), config), config)
    assert found.manifest["calibration"][0]["accuracy"] == 1
    assert found.policy.starts(0.01)[0] == found.experts.index("sure")
    if found.manifest["kind"] == "logistic":
        assert set(found.policy.losses_.trained()) == {(0,), (1,), (0, 1)}


def test_prices_of_strangers_are_refused():
    config = config_of("nowhere", prices={"other": 1})
    with pytest.raises(ConfigError, match="prices: no expert 'other'; there are one"):
        inplace.pool_of({"one": np.eye(2)}, np.array([0, 1]), ("a", "b"), config)
