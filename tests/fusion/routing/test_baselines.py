"""Rules without training, on digits and on recorded services."""

import numpy as np
import pytest

from fusion.routing import baselines
from fusion.routing.losses import KnnLosses
from fusion.routing.stored import Stored

FIGURES = {
    "digits4": {
        "mean": 0.3937,
        "best": 0.3907,
        "majority": 0.8130,
        "max_softmax": 0.8481,
        "ensemble": 0.9316,
    },
    "digits2": {
        "mean": 0.1995,
        "best": 0.1937,
        "majority": 0.3840,
        "max_softmax": 0.6995,
        "ensemble": 0.8063,
    },
}


@pytest.mark.parametrize("name", FIGURES)
def test_rules_on_digits(name, request):
    data, expected = request.getfixturevalue(name), FIGURES[name]
    stored, new = (o.argmax(axis=2) == y for o, y in ((data.stored, data.labels), (data.new, data.truth)))
    right = {
        "mean": new.mean(),
        "best": new[baselines.single_best(stored)].mean(),
        **{
            rule: (getattr(baselines, rule)(data.new) == data.truth).mean()
            for rule in ("majority", "max_softmax", "ensemble")
        },
    }
    assert right == pytest.approx(expected, abs=0.005)


def test_rules_by_hand():
    outputs = np.array([
        [[0.6, 0.3, 0.1], [0.4, 0.35, 0.25]],
        [[0.5, 0.4, 0.1], [0.1, 0.2, 0.7]],
        [[0.0, 0.9, 0.1], [0.2, 0.5, 0.3]],
    ])  # fmt: skip
    assert baselines.majority(outputs).tolist() == [0, 0]  # three different votes: the lowest class
    assert baselines.max_softmax(outputs).tolist() == [1, 2]
    assert baselines.ensemble(outputs).tolist() == [1, 2]
    assert baselines.weighted_vote(outputs).tolist() == [0, 2]


def test_bounds():
    correct = np.array([[1, 0, 0], [1, 1, 0]], bool)
    competent = np.array([[1, 0, 0], [1, 1, 0]], bool)
    assert baselines.any_correct(correct) == pytest.approx(2 / 3)
    assert baselines.domain_oracle(correct, competent) == pytest.approx(2 / 3)
    assert baselines.selection_accuracy(np.array([0, 0, 1]), competent) == pytest.approx(1 / 3)


def test_random_subsets_are_different_and_repeatable():
    draws = list(baselines.random_subsets(20, 3, 50, seed=4))
    assert draws == list(baselines.random_subsets(20, 3, 50, seed=4))
    assert len(set(draws)) == 50
    assert all(len(set(s)) == 3 and list(s) == sorted(s) for s in draws)
    assert len(list(baselines.random_subsets(5, 2, 50, seed=0))) == 10
    assert list(baselines.random_subsets(20, 20, 3, seed=0)) == [tuple(range(20))]


def test_forward_selection_takes_what_helps_most(digits4):
    tables = KnnLosses(Stored(tuple(digits4.stored), np.eye(10)[digits4.labels]), loss="zero_one")
    everyone = np.arange(len(digits4.labels))
    order = list(baselines.forward_selection(10, lambda subset: float(tables.at(subset, everyone).mean())))
    assert sorted(expert for expert, _ in order) == list(range(10))
    alone = [tables.at((expert,), everyone).mean() for expert in range(10)]
    assert order[0] == (int(np.argmin(alone)), pytest.approx(min(alone)))
    assert order[3][1] < order[0][1] / 3


def test_fact_f8_the_recorded_image_experts(recorded):
    data = recorded("foe_cifar100_superclass")
    right = data.labels == data.truth
    assert right.shape == (20, 10_000)
    assert right.mean() == pytest.approx(0.553995)
    own = [right[k, 500 * k : 500 * k + 500].mean() for k in range(20)]
    assert own == pytest.approx(
        [.868, .994, .994, .992, .996, .998, .994, .992, .996, .992,
         .992, 1.0, .998, .996, .986, .994, .992, .994, .992, 1.0]
    )  # fmt: skip
    assert (right.sum() - sum(own) * 500) / (20 * 9500) == pytest.approx(0.5312, abs=5e-5)


def test_fact_f9_the_recorded_face_services(recorded):
    data = recorded("frugalml_rafdb")
    right = data.labels == data.truth
    assert right.shape == (4, 15_339)
    assert sorted(right.mean(axis=1)) == pytest.approx([0.599974, 0.611709, 0.656431, 0.716866], abs=1e-6)
    assert baselines.any_correct(right) == pytest.approx(0.887542, abs=1e-6)
    seen = [
        len(set(zip(*of, strict=True)))
        for of in zip(data.labels.tolist(), data.confidence.tolist(), strict=True)
    ]
    assert sorted(seen) == [17, 2415, 10_887, 14_507]


def test_a_shortlist_keeps_who_is_good_and_who_is_cheap():
    rng = np.random.default_rng(0)
    quality = (rng.random((5, 400)) < np.array([0.9, 0.6, 0.59, 0.58, 0.5])[:, None]).astype(float)
    prices = np.array([100.0, 90, 90, 90, 1])
    assert baselines.shortlist(quality, prices, [0, 0.002, 0.01], 2) == [0, 4]
    assert baselines.shortlist(quality, prices, [0], 9) == [0, 1, 2, 3, 4]
