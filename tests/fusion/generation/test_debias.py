import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fusion.generation.debias import self_debias


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
@pytest.mark.parametrize(
    ("other", "expected"), [([0.9, 0.1], [0.022801, 0.977199]), ([0.705, 0.295], [0.461898, 0.538102])]
)
def test_fact_15_self_debiasing(kind, other, expected):
    assert_allclose(self_debias(kind([0.7, 0.3]), kind([other])), expected, atol=1e-6)


def test_the_worst_of_several_other_labels_counts_and_batches_work():
    p = np.array([[0.7, 0.3], [0.5, 0.5]])
    others = np.stack([np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([[0.6, 0.4], [0.5, 0.5]])])
    assert_allclose(self_debias(p, others)[1], [0.5, 0.5])
    assert_allclose(self_debias(p, others), self_debias(torch.tensor(p), torch.tensor(others)), atol=1e-12)


@given(
    st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.lists(st.floats(0.01, 1), min_size=6, max_size=6)
)
def test_the_result_is_a_distribution_and_raises_no_token_against_an_untouched_one(p, other):
    p = np.array(p) / sum(p)
    other = np.array(other[: len(p)]) / sum(other[: len(p)])
    result = self_debias(p, other[None])
    assert_allclose(result.sum(), 1)
    assert (result / p).argmax() in np.flatnonzero(result / p >= (result / p)[other <= p].max() - 1e-9)
