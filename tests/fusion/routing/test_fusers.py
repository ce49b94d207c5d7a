import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from fusion.routing import fusers
from fusion.routing.features import BlockNorm, one_hot, spread
from fusion.routing.knn import KnnFuser
from fusion.routing.mlp import MlpFuser
from fusion.routing.policy import FrugalPolicy
from fusion.routing.responses import ResponseFuser, agreement
from fusion.routing.trees import TreesFuser, TreesRegressor


@parametrize_with_checks(
    [
        KnnFuser(),
        MlpFuser(hidden=(16,), epochs=60),
        TreesFuser(smallest_leaf=2),
        TreesRegressor(smallest_leaf=2),
        ResponseFuser(),
        BlockNorm(),
        FrugalPolicy(start="mean_loss"),
    ]
)
def test_estimators_are_scikit_learn_s(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("name", "neighbours"),
    [("digits4", {5: 0.9533, 9: 0.9416, 15: 0.9332}), ("digits2", {5: 0.9048, 9: 0.8948, 15: 0.8681})],
)
def test_nearest_neighbours_on_digits(name, neighbours, request):
    data = request.getfixturevalue(name)
    found = {
        k: KnnFuser(k, ties="lowest").fit(data.columns, data.labels).score(data.requests, data.truth)
        for k in neighbours
    }
    assert found == pytest.approx(neighbours, abs=0.005)


def test_nearest_neighbours_are_those_of_scikit_learn(digits4):
    ours = KnnFuser(7, ties="lowest").fit(digits4.columns, digits4.labels)
    theirs = KNeighborsClassifier(7, algorithm="brute").fit(digits4.columns, digits4.labels)
    assert ours.predict_proba(digits4.requests) == pytest.approx(theirs.predict_proba(digits4.requests))


def test_everyone_as_near_as_the_last_neighbour_votes():
    x, y = np.array([[0.0], [1.0], [1.0], [1.0], [9.0]]), [0, 1, 1, 2, 2]
    assert KnnFuser(2).fit(x, y).predict_proba([[0.0]]).tolist() == [[0.25, 0.5, 0.25]]
    assert KnnFuser(2, ties="lowest").fit(x, y).predict_proba([[0.0]]).tolist() == [[0.5, 0.5, 0.0]]


@pytest.mark.parametrize(("name", "expected"), [("digits4", 0.9449), ("digits2", 0.8998)])
def test_logistic_regression_on_digits(name, expected, request):
    data = request.getfixturevalue(name)
    model = LogisticRegression(max_iter=2000).fit(data.columns, data.labels)
    assert model.score(data.requests, data.truth) == pytest.approx(expected, abs=0.005)


def test_the_perceptron_on_digits(digits4):
    model = MlpFuser().fit(digits4.columns, digits4.labels)
    assert model.score(digits4.requests, digits4.truth) == pytest.approx(0.9455, abs=0.01)
    again = MlpFuser().fit(digits4.columns, digits4.labels)
    assert (model.predict_proba(digits4.requests) == again.predict_proba(digits4.requests)).all()


@pytest.mark.parametrize(
    ("width", "hidden", "classes", "expected"),
    [
        (400, (512, 512), 20, 478_228), (400, (), 20, 8_020), (3072, (8192, 8192), 4, 92_323_844),
        (6144, (8192, 8192), 6, 117_506_054), (10752, (8192, 8192), 15, 155_328_527),
    ],
)  # fmt: skip
def test_fact_f7_parameter_counts(width, hidden, classes, expected):
    import torch

    with torch.device("meta"):
        network = MlpFuser(hidden=hidden)._network(width, classes)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_what_is_known_of_an_answer_becomes_a_vector():
    assert spread([1, 0], [0.7, 1.0], 4) == pytest.approx(np.array([[0.1, 0.7, 0.1, 0.1], [1, 0, 0, 0]]))
    assert one_hot([1, 0], [0.7, 1.0], 3).tolist() == [[0, 0.7, 0], [1.0, 0, 0]]


def test_normalised_blocks_count_alike():
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.normal(5, 100, (500, 64)), rng.normal(0, 0.01, (500, 4)), np.ones((500, 2))], axis=1
    )
    found = BlockNorm(blocks=[64, 4, 2]).fit_transform(x)
    spread_ = [found[:, part].var(axis=0).sum() for part in (slice(0, 64), slice(64, 68), slice(68, 70))]
    assert spread_ == pytest.approx([1, 1, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": [10] * 9}, "blocks sum to 90 columns, X has 100"),
        ({"blocks": [10] * 10, "prices": [1.0] * 9}, "prices must be 10 finite numbers"),
        ({"blocks": [10] * 10, "prices": [-1.0] + [1.0] * 9}, "prices must be 10 finite numbers"),
    ],
)
def test_wrong_parameters_are_named(digits4, options, message):
    with pytest.raises(ValueError, match=message):
        FrugalPolicy(**options).fit(digits4.columns, digits4.labels)


DIGITS = {
    "digits4": {
        "soft": {0.02: (0.9349, 2.38), 0.05: (0.9182, 2.14), 0.1: (0.9048, 2.01), 0.2: (0.8681, 1.75)},
        "zero_one": {0.01: (0.8898, 2.08), 0.1: (0.8898, 2.08)},
        "reference": {0.01: (0.8798, 2.41), 0.1: (0.8798, 2.41)},
    },
    "digits2": {
        "soft": {0.02: (0.8765, 3.73), 0.05: (0.8664, 3.24), 0.1: (0.8431, 2.85), 0.2: (0.7980, 2.50)},
        "zero_one": {0.01: (0.8548, 3.28), 0.1: (0.8548, 3.28)},
        "reference": {0.01: (0.8097, 3.50), 0.1: (0.8097, 3.50)},
    },
}


@pytest.mark.parametrize("name", DIGITS)
@pytest.mark.parametrize("kind", ["soft", "zero_one", "reference"])
def test_the_frugal_policy_on_digits(name, kind, request):
    data, expected = request.getfixturevalue(name), DIGITS[name][kind]
    options = (
        {"compat": "reference"}
        if kind == "reference"
        else {"loss": kind, "m_neighbors": 10, "start": "mean_loss", "ties": "lowest"}
    )
    policy = FrugalPolicy(blocks=data.blocks, **options).fit(data.columns, data.labels)
    assert policy.starts(0.02)[0] == 3
    for rate, walks in zip(expected, policy.sweep(data.requests, expected), strict=True):
        right, asked = expected[rate]
        assert (policy.classes_[walks.answers] == data.truth).mean() == pytest.approx(right, abs=0.005)
        assert walks.asked.mean() == pytest.approx(asked, rel=0.05)


@pytest.mark.parametrize("kind", ["logistic", "mlp", "trees"])
def test_a_trained_fuser_survives_as_arrays(kind, digits4):
    trained = fusers.make(kind, seed=3).fit(digits4.columns, digits4.labels)
    again = fusers.from_arrays(kind, fusers.to_arrays(trained), digits4.columns.shape[1])
    assert (again.predict_proba(digits4.requests) == trained.predict_proba(digits4.requests)).all()
    assert (again.predict(digits4.requests) == trained.predict(digits4.requests)).all()


@pytest.mark.parametrize("kind", ["logistic", "trees"])
def test_a_trained_predictor_of_quality_survives_as_arrays(kind, digits4):
    quality = (digits4.stored.argmax(axis=2) == digits4.labels).T.astype(float)
    trained = fusers.make(kind, chooses=True).set_params(blocks=digits4.blocks).fit(digits4.columns, quality)
    again = fusers.responses_from_arrays(kind, fusers.to_arrays(trained), digits4.blocks, 0)
    assert (again.predict(digits4.requests) == trained.predict(digits4.requests)).all()
    assert again.predict(digits4.requests).shape == (len(digits4.truth), 10)


def test_the_perceptron_predicts_no_qualities():
    with pytest.raises(ValueError, match="allowed: knn, logistic, trees"):
        fusers.make("mlp", chooses=True)


def test_agreement_is_of_equal_answers_only():
    found = agreement(np.array([[3, 3, -1, 0], [-1, -1, 2, 1]]))
    others, none, largest, inside = found[:, :4], found[:, 4:8], found[:, 8], found[:, 9:]
    assert others == pytest.approx(np.array([[1 / 3, 1 / 3, 0, 0], [0, 0, 0, 0]]))
    assert none.tolist() == [[0, 0, 1, 0], [1, 1, 0, 0]]
    assert largest.tolist() == [0.5, 0.25]
    assert inside.tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
