import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from fusion.generation.reweighting import beta, judged, self_boost, sungen, swa_step, weighted_loss
from fusion.generation.spans import error

FOUR = np.array([[p, 1 - p] for p in (0.9, 0.6, 0.4, 0.1)])
ZEROS = np.zeros(4, int)


def test_fact_5_beta():
    sizes = (20, 45, 50, 200, 1000, 1200, 6000)
    inverse = [1 / beta(n, 30, "authors") for n in sizes]
    assert_allclose(inverse, [2, 2, 2.010768, 2.947881, 3.648229, 3.716203, 4.255247], atol=1e-6)
    assert_allclose([1 / beta(n, 30, "authors") for n in (49, 10)], 2)
    assert beta(6000, 30, "paper") == pytest.approx(0.567680, abs=1e-6)
    assert beta(1000, 30, "paper") == pytest.approx(0.595730, abs=1e-6)


@pytest.mark.parametrize(
    ("rule", "once", "twice"),
    [
        ("paper", [0.603734, 0.603734, 0.429841, 0.362692], [0.697398, 0.697398, 0.353513, 0.251691]),
        ("authors", [0.743207, 0.743207, 0.311713, 0.201873], [0.889012, 0.889012, 0.156386, 0.065591]),
    ],
)
def test_fact_6_swa_step(rule, once, twice):
    factor = beta(6000, 30, rule)
    first = swa_step(np.full(4, np.log(0.5)), *judged(FOUR, ZEROS), factor)
    second = swa_step(first, *judged(FOUR, ZEROS), factor)
    assert_allclose(np.exp(first), once, atol=1e-6)
    assert_allclose(np.exp(second), twice, atol=1e-6)
    assert_allclose([np.exp(first).sum(), np.exp(second).sum()], 2)


def test_fact_6_raw_weights_under_the_papers_beta():
    ratio = np.exp(swa_step(np.full(4, np.log(0.5)), *judged(FOUR, ZEROS), beta(6000, 30, "paper")))
    assert_allclose(ratio / ratio[0] * 0.5, [0.5, 0.5, 0.355985, 0.300375], atol=1e-6)


def test_fact_7_three_classes():
    p = np.array([[0.45, 0.50, 0.05], [0.45, 0.30, 0.25]])
    after = np.exp(swa_step(np.zeros(2), *judged(p, [0, 0]), 0.5))
    assert after[0] / after[1] == pytest.approx(0.683020, abs=1e-6)


def test_a_step_by_the_error_of_spans():
    # Errors .3, 1.1 and 1.8; the last two are wrong and fall by .5^1.1 and .5^1.8 before all are scaled.
    wrong = error([0.9, 0.6, 0.1], [0.8, 0.3, 0.1])
    after = np.exp(swa_step(np.full(3, np.log(0.5)), wrong, np.array([True, False, False]), 0.5))
    raw = np.array([0.5, 0.5 * 0.466517, 0.5 * 0.287175])
    assert_allclose(after, raw * 1.5 / raw.sum(), atol=1e-6)
    assert_allclose(after.sum(), 1.5)
    with pytest.raises(ValueError, match="finite"):
        swa_step(np.zeros(1), np.array([np.nan]), np.array([False]), 0.5)


def test_boosting_by_a_judge_of_spans_is_two_steps():
    def judge(weights, iteration):
        return np.array([0.2, 1.5]), np.array([True, False])

    weighing = self_boost(judge, 2, iterations=2)
    factor = beta(2, 2, "paper")
    assert weighing.weights[1] / weighing.weights[0] == pytest.approx(factor**3)
    assert weighing.weights.sum() == pytest.approx(1)
    assert [entry["share_ok"] for entry in weighing.history] == [0.5, 0.5]


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_fact_8_weighted_loss(kind):
    losses, weights = kind([0.1, 0.5, 0.9, 2.3]), kind([0.8, 0.8, 0.3, 0.1])
    assert float(weighted_loss(losses, weights)) == pytest.approx(0.245)
    assert float(weighted_loss(losses, weights, normalised=True)) == pytest.approx(0.49)


def boosted(train, labels, **settings):
    """SWA by a judge that gives probabilities of labels."""
    return self_boost(lambda weights, e: judged(train(weights, e), labels), len(labels), **settings)


def always(p):
    """A judge that never changes its mind."""
    return lambda weights, iteration: np.asarray(p)


def test_weights_fall_far_without_loss_of_precision():
    proba = np.array([[0.9, 0.1]] * 9 + [[0.1, 0.9]])
    result = boosted(always(proba), np.zeros(10, int), iterations=3000)
    log_ratio = np.log(result.weights[0]) - 3000 * 0.9 * np.log(beta(10, 3000, "paper"))
    assert np.isfinite(result.weights).all()
    assert result.weights.sum() == pytest.approx(5)
    assert log_ratio > 0
    thirty = boosted(always(proba), np.zeros(10, int), iterations=30)
    assert thirty.weights[9] / thirty.weights[0] == pytest.approx(beta(10, 30, "paper") ** 27)


def test_history_tells_share_right_survivors_and_quantiles():
    result = boosted(always(FOUR), ZEROS, iterations=2, beta_rule="authors")
    assert [entry["share_ok"] for entry in result.history] == [0.5, 0.5]
    last = result.history[-1]
    assert last["min_weight"] == pytest.approx(result.weights.min())
    assert last["survivors"] == (result.weights >= 0.25).mean()
    assert_allclose(last["quantiles"], np.quantile(result.weights, [0, 0.25, 0.5, 0.75, 1]))


@pytest.mark.parametrize(("shares", "patience", "trained"), [
    ([0.5, 0.75, 1.0, 1.0, 1.0, 1.0], 2, 5),
    ([1.0, 0.75, 0.5, 0.25, 0.0, 0.0], 1, 2),
    ([0.0, 0.25, 0.5, 0.75, 1.0, 1.0], 1, 6),
    ([1.0, 0.5, 1.0, 0.5, 1.0, 0.5], None, 6),
])  # fmt: skip
def test_patience_stops_when_the_share_right_stops_rising(shares, patience, trained):
    def judge(weights, iteration):
        right = np.arange(4) < 4 * shares[iteration]
        return np.where(right[:, None], [0.8, 0.2], [0.2, 0.8])

    result = boosted(judge, ZEROS, iterations=6, patience=patience)
    assert len(result.history) == trained


def test_the_judge_sees_the_weights_of_the_iteration():
    seen = []

    def judge(weights, iteration):
        seen.append((iteration, weights.copy()))
        return FOUR

    result = boosted(judge, ZEROS, iterations=3)
    assert [iteration for iteration, _ in seen] == [0, 1, 2]
    assert_allclose(seen[0][1], 0.5)
    assert result.weights[3] < seen[2][1][3] < seen[1][1][3]


def test_no_samples_and_no_numbers():
    empty = boosted(always(np.zeros((0, 2))), [], iterations=2)
    assert empty.weights.shape == (0,)
    with pytest.raises(ValueError, match="finite"):
        swa_step(np.zeros(1), *judged([[np.nan, 1]], [0]), 0.5)


PROBA = st.lists(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=1, max_size=12)


@given(PROBA, st.sampled_from(["paper", "authors"]), st.data())
def test_the_sum_stays_and_right_samples_weigh_most(raw, rule, data):
    p = np.array(raw) / np.sum(raw, axis=1, keepdims=True)
    y = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(p), max_size=len(p))))
    weights = boosted(always(p), y, iterations=5, beta_rule=rule).weights
    right = p.argmax(axis=1) == y
    assert_allclose(weights.sum(), len(y) / 2)
    if right.any():
        assert_allclose(weights[right], weights.max())
    order = np.random.default_rng(0).permutation(len(y))
    assert_allclose(boosted(always(p[order]), y[order], iterations=5, beta_rule=rule).weights, weights[order])


def clusters(n=120, flipped=24, seed=0):
    """Two well separated clusters; the first `flipped` samples carry the wrong label."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 2
    features = rng.normal(size=(n, 2)) + np.where(truth[:, None] == 1, 2.0, -2.0)
    labels = truth.copy()
    labels[:flipped] = 1 - labels[:flipped]
    return features, labels


def train(features, labels):
    def fit(weights, iteration):
        model = LogisticRegression().fit(features, labels, sample_weight=weights)
        return features, model.predict_proba(features)

    return fit


def test_sungen_lowers_mislabelled_samples():
    features, labels = clusters()
    result = sungen(train(features, labels), labels, iterations=20, outer_samples=60, seed=0)
    assert result.weights[:24].mean() < 0.3
    assert result.weights[24:].mean() > 0.6
    assert len(result.history) == 20
    again = sungen(train(features, labels), labels, iterations=20, outer_samples=60, seed=0)
    assert_allclose(again.weights, result.weights)


def test_swa_lowers_mislabelled_samples():
    features, labels = clusters()
    fit = train(features, labels)
    result = boosted(lambda w, e: fit(w, e)[1], labels, iterations=10)
    assert result.weights[:24].max() < 0.2
    assert result.weights[24:].mean() > 0.5
