"""FrugalFoE on recorded outputs: points of its curves of price and accuracy, known from other code."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from fusion.routing.policy import FrugalPolicy


def points(data, rates, items, **settings):
    """Accuracy and mean price, and mean number of experts, for the first items of the second half."""
    order = np.random.default_rng(0).permutation(len(data.truth))
    fit, test = order[: len(order) // 2], order[len(order) // 2 :][:items]
    x = np.concatenate(data.outputs, axis=1)
    blocks = [data.outputs.shape[2]] * len(data.outputs)
    with threadpool_limits(1):
        policy = FrugalPolicy(blocks=blocks, prices=data.prices, start="mean_loss", **settings)
        policy.fit(x[fit], data.truth[fit])
        walks = policy.sweep(x[test], rates)
    right = [policy.classes_[walk.answers] == data.truth[test] for walk in walks]
    return [(r.mean(), w.spent.mean(), w.asked.mean()) for r, w in zip(right, walks, strict=True)]


@pytest.mark.long
def test_the_reference_behaviour_on_cifar(recorded):
    data = recorded("foe_cifar100_superclass")
    found = points(data, [0.005, 0.02, 0.05, 0.15, 0.3], 2000, compat="reference")
    assert found[0] == found[1] == found[2]  # hard losses of ten neighbours move in tenths
    for at, (accuracy, experts) in {0: (0.916, 3.30), 3: (0.871, 2.67), 4: (0.826, 2.33)}.items():
        assert found[at][0] == pytest.approx(accuracy, abs=0.01)
        assert found[at][2] == pytest.approx(experts, rel=0.05)


def test_left_out_soft_losses_on_cifar(recorded):
    data = recorded("foe_cifar100_superclass")
    found = points(data, [0.15, 0.3], 1000, m_neighbors=10)
    for (accuracy, experts), (got, _, asked) in zip([(0.889, 2.37), (0.826, 1.85)], found, strict=True):
        assert got == pytest.approx(accuracy, abs=0.015)
        assert asked == pytest.approx(experts, rel=0.05)


def test_real_prices_on_rafdb(recorded):
    data = recorded("frugalml_rafdb")
    settings = {"n_neighbors": 51, "m_neighbors": 100, "loss": "zero_one"}
    accuracy, spent, _ = points(data, [0.005], len(data.truth), **settings)[0]
    assert accuracy == pytest.approx(0.7788, abs=0.01)
    assert spent == pytest.approx(11.86, rel=0.05)
