from dataclasses import replace

import numpy as np
import pytest

from actors.routing import collected, rehearsing
from actors.routing.curves import Curve
from cluster.storage import Run
from configs.schema.base import identity
from configs.schema.foe import Policy
from tests.actors.routing.conftest import config_of


@pytest.mark.parametrize("stored", [2, 7, 150, 12_345])
def test_folds_are_apart_and_enough_of_them_are_rehearsed(stored):
    out = [rehearsing.held_out(stored, fold, seed=3) for fold in range(rehearsing.folds(stored))]
    assert all(0 < len(one) < stored for one in out)
    if stored >= rehearsing.FOLDS:
        together = np.concatenate(out)
        assert len(together) == len(set(together.tolist())) >= min(stored, rehearsing.ENOUGH)


@pytest.mark.parametrize("kind", ["knn", "trees"])
def test_labels_of_items_that_are_held_out_are_not_known(services, tmp_path, kind):
    """Wrong labels there change what answers are worth, but neither the answers nor who is asked."""
    pool = collected.read(config_of(services))
    fit = pool.rows("fit")
    out = fit[rehearsing.held_out(len(fit), 0, 0)]
    values = pool.values.copy()
    values[out] = np.roll(values[out], 1, axis=1)
    params = {"pool": "p", "experts": None, "max_stored": 1000, "seed": 0, "policy": identity(Policy())}
    params |= {"neighbours": 5, "sample": 30, "kind": kind, "rates": [0.0, 0.01], "fold": 0}
    found = []
    for name, known in (("right", pool), ("wrong", replace(pool, values=values))):
        run = Run.open(str(tmp_path / name), {}, {}, "0")
        known.write(run.below("steps/p"))
        step = run.step("rehearsal", params)
        rehearsing.rehearse(run, step, params)
        found.append(Curve.read(step.files))
    right, wrong = found
    assert (right.answers == wrong.answers).all()
    assert (right.cost == wrong.cost).all()
    assert right.worth.mean() > wrong.worth.mean()


def test_distances_of_all_folds_are_summed_up_by_subset():
    parts = [{"0": np.arange(15.0), "0,1": np.ones(5)}, {"0": np.arange(15.0, 21)}]
    assert rehearsing.distances(parts) == {"0": [10.0, 19.0, 19.8]}
