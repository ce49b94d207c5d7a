import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, ttest_1samp
from sklearn.metrics import f1_score

from fusion.statistics import bootstrap_interval, macro_f1, mcnemar, sign_flips


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_macro_f1_is_that_of_scikit_learn(pairs):
    truth, guess = zip(*pairs, strict=True)
    expected = f1_score(truth, guess, labels=range(4), average="macro", zero_division=0)
    assert macro_f1(truth, guess, 4) == pytest.approx(expected)


def test_bootstrap_interval_of_an_accuracy_is_binomial():
    right = np.repeat([1.0, 0.0], [813, 187])
    low, high = bootstrap_interval(right, seed=0)
    assert (low, high) == pytest.approx(binom.ppf([0.025, 0.975], 1000, 0.813) / 1000, abs=0.002)
    assert bootstrap_interval(right, seed=0) == (low, high)
    assert bootstrap_interval(right[::-1], seed=0) == (low, high)


def test_bootstrap_interval_of_a_paired_difference():
    difference = np.repeat([1.0, 0.0, -1.0], [60, 900, 40])
    low, high = bootstrap_interval(difference, seed=1)
    error = np.sqrt((0.06 + 0.04 - 0.02**2) / 1000)
    assert (low, high) == pytest.approx((0.02 - 1.96 * error, 0.02 + 1.96 * error), abs=0.002)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_bootstrap_intervals_need_numbers(values):
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval(values, seed=0)


def test_mcnemar_looks_at_discordant_pairs_only():
    right = np.repeat([True, False, True, False], [50, 40, 8, 2])
    other = np.repeat([True, False, False, True], [50, 40, 8, 2])
    assert mcnemar(right, other) == pytest.approx(2 * binom.cdf(2, 10, 0.5))
    assert mcnemar(right, other) == mcnemar(other, right)
    assert mcnemar(right, right) == 1
    with pytest.raises(ValueError, match="length"):
        mcnemar([True], [True, False])


def test_sign_flips_of_few_differences_are_counted():
    one_way = np.array([0.5, 0.25, 1.0, 0.0, 0.5])  # of 2**4 signs, two give a mean as far from zero
    assert sign_flips(one_way, seed=0) == pytest.approx(2 / 16, abs=0.01)
    assert sign_flips([0.5, -0.5, 0.0], seed=0) == 1.0
    assert sign_flips(np.zeros(3), seed=0) == 1.0
    assert sign_flips(np.full(100, 0.1), resamples=999, seed=0) == 0.001


def test_sign_flips_of_many_differences_are_a_t_test():
    values = np.random.default_rng(0).normal(0.1, 1, 400)
    assert sign_flips(values, seed=1) == pytest.approx(ttest_1samp(values, 0).pvalue, abs=0.01)
