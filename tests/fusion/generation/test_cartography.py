import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fusion.generation.cartography import candidates, confidence, shares, variability

TWO = np.array([[0.9, 0.2, 0.1], [0.8, 0.95, 0.15]])


def test_fact_1_variability_of_two_models():
    assert_allclose(variability(TWO), [0.070711, 0.530330, 0.035355], atol=1e-6)
    assert_allclose(confidence(TWO), [0.85, 0.575, 0.125])
    assert np.argsort(variability(TWO)).tolist() == [2, 0, 1]


def test_fact_1_candidates_admit_a_hard_sample_unless_confidence_is_asked_for():
    d = variability(TWO)
    assert candidates(d, 2, 0.5).tolist() == [2, 1]
    assert candidates(d, 2, 0.5, confidence=confidence(TWO), n_classes=2).tolist() == [0, 1]


def test_fact_2_variability_of_three_models():
    p = np.array([[0.9, 0.2, 0.5], [0.8, 0.95, 0.5], [0.7, 0.5, 0.5]])
    assert_allclose(variability(p), [0.1, 0.377492, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("k", "largest"), [(2, 0.707107), (3, 0.577350), (4, 0.577350), (5, 0.547723), (6, 0.547723)]
)
def test_fact_3_largest_variability(k, largest):
    splits = [variability(np.repeat([[1.0], [0.0]], [ones, k - ones], axis=0))[0] for ones in range(k + 1)]
    assert max(splits) == pytest.approx(largest, abs=1e-6)


def test_fact_3_one_model_and_missing_numbers_are_refused():
    with pytest.raises(ValueError, match="two models"):
        variability([[0.5, 0.6]])
    with pytest.raises(ValueError, match="finite"):
        variability([[0.5], [np.nan]])


@pytest.mark.parametrize(
    ("size", "alpha", "low", "high"),
    [(40, 0.5, 20, 20), (40, 0.3, 28, 12), (40, 0, 40, 0), (40, 1, 0, 40), (40, 0.55, 18, 22),
     (20, 0.5, 10, 10),
     (100, 0.29, 71, 29)],
)  # fmt: skip
def test_fact_4_split(size, alpha, low, high):
    d = np.arange(1000.0)
    chosen = candidates(d, size, alpha)
    assert chosen[:low].tolist() == list(range(low))
    assert chosen[low:].tolist() == list(range(999, 999 - high, -1))


def test_a_small_pool_is_taken_whole():
    for n in (0, 3, 30):
        assert sorted(candidates(np.linspace(0, 1, n), 40, 0.5)) == list(range(n))


def test_ties_go_to_the_smaller_index():
    assert candidates(np.zeros(9), 4, 0.5).tolist() == [2, 3, 0, 1]


def test_groups_take_turns_and_make_up_for_small_ones():
    d = np.linspace(0, 1, 100)
    groups = np.repeat([0, 1, 2], [90, 9, 1])
    chosen = candidates(d, 12, 0, groups=groups)
    assert np.bincount(groups[chosen]).tolist() == [6, 5, 1]
    assert d[chosen].tolist() == sorted(d[chosen])


def test_the_confidence_rule_spares_the_ambiguous_end_and_has_a_margin():
    d, conf = [0.0, 0.1, 0.2, 0.9], [0.1, 0.55, 0.8, 0.3]
    assert candidates(d, 2, 0.5, confidence=conf, n_classes=2).tolist() == [1, 3]
    assert candidates(d, 2, 0.5, confidence=conf, n_classes=2, margin=0.1).tolist() == [2, 3]
    with pytest.raises(ValueError, match="classes"):
        candidates(d, 2, 0.5, confidence=conf)


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_is_a_share(alpha):
    with pytest.raises(ValueError, match="alpha"):
        candidates([0.1], 1, alpha)


def test_shares_of_the_map():
    found = shares([0.0, 0.3, 0.01, 0.02], [0.9, 0.5, 0.1, 0.6], 2)
    assert (found.easy, found.ambiguous, found.hard) == (0.5, 0.25, 0.25)
    assert shares([], [], 2).easy == 0


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3]), max_size=40),
    st.integers(0, 20),
    st.floats(0, 1),
    st.integers(1, 4),
)
def test_candidates_are_distinct_and_as_many_as_can_be(d, size, alpha, n_groups):
    groups = np.arange(len(d)) % n_groups
    chosen = candidates(d, size, alpha, groups=groups)
    assert len(set(chosen.tolist())) == len(chosen) == min(size, len(d))


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=8), st.randoms())
def test_the_order_of_the_models_does_not_matter(p, random):
    shuffled = random.sample(p, len(p))
    assert_allclose(variability(p), variability(shuffled), atol=1e-12)
