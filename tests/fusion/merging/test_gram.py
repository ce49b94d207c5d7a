from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.merging.gram import Gram, doubt, exact_products


def rows(n: int, d: int, seed: int = 0, dtype=torch.float64):
    return torch.randn(n, d, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("width", [1, 7, 511, 512, 513, 2048, 2051])
def test_panels_give_the_whole_matrix(width):
    x = rows(30, width)
    gram = Gram(width, dtype=torch.float64)
    gram.add(x)
    assert torch.allclose(gram.symmetric(), x.T @ x, rtol=1e-12, atol=1e-12)
    assert torch.equal(gram.symmetric(), gram.symmetric().T)
    assert torch.equal(gram.mean(), gram.total / 30)


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 64), max_size=5), width=st.sampled_from([3, 600]))
def test_check_13_how_rows_are_batched_does_not_matter(cuts, width):
    x = rows(64, width)
    whole, parts, absorbed = (Gram(width, dtype=torch.float64) for _ in range(3))
    whole.add(x)
    edges = [0, *sorted(cuts), 64]
    for start, stop in pairwise(edges):
        parts.add(x[start:stop])
        one = Gram(width, dtype=torch.float64)
        one.add(x[start:stop].reshape(1, stop - start, width))
        absorbed.absorb(one)
    for gram in (parts, absorbed):
        assert gram.rows == whole.rows == 64
        difference = float((gram.symmetric() - whole.symmetric()).norm())
        assert difference <= 1e-14 * float(whole.symmetric().norm())


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_triangle_is_enough(width):
    gram = Gram(width, dtype=torch.float64)
    gram.add(rows(7, width))
    again = Gram.unpacked(gram.packed(), gram.rows)
    assert gram.packed().shape == (width * (width + 1) // 2,)
    assert torch.equal(again.symmetric(), gram.symmetric())
    assert again.rows == 7
    again.add(rows(7, width))
    assert torch.allclose(again.mean(), gram.mean())


@pytest.mark.parametrize("shape", [(4,), (3, 1)])
def test_what_is_no_triangle_is_refused(shape):
    with pytest.raises(ValueError, match="not the triangle"):
        Gram.unpacked(torch.ones(shape), 1)


def test_counting_goes_on_after_the_matrix_was_looked_at():
    x = rows(40, 600)
    gram = Gram(600, dtype=torch.float64)
    gram.add(x[:10])
    gram.symmetric()
    gram.add(x[10:])
    assert torch.allclose(gram.symmetric(), x.T @ x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_batch_with_a_number_that_is_none_is_left_out_and_counted(bad):
    x = rows(8, 4)
    spoilt = x.clone()
    spoilt[2, 1] = bad
    gram = Gram(4, dtype=torch.float64)
    gram.add(spoilt)
    with pytest.raises(ValueError, match=r"no rows were counted \(1 batches"):
        gram.mean()
    gram.add(x)
    assert (gram.rows, gram.skipped) == (8, 1)
    assert torch.allclose(gram.symmetric(), x.T @ x)


def test_half_precision_inputs_are_summed_in_full():
    x = rows(4096, 8, dtype=torch.float32).to(torch.bfloat16)
    gram = Gram(8)
    for part in x.split(16):
        gram.add(part)
    exact = x.double().T @ x.double()
    assert gram.total.dtype == torch.float32
    assert float((gram.symmetric().double() - exact).norm()) < 1e-5 * float(exact.norm())


def test_sums_may_begin_in_inference_mode():
    with torch.inference_mode():
        gram = Gram(3)
        gram.add(torch.ones(2, 3))
    gram.add(torch.ones(2, 3))
    assert gram.total.tolist() == [[4.0] * 3] * 3


def test_the_cpu_has_no_precision_to_set():
    before = torch.get_float32_matmul_precision()
    with exact_products(torch.ones(1)):
        assert torch.get_float32_matmul_precision() == before


def test_few_rows_are_doubted_and_too_few_refused():
    assert doubt(640, 64, 0.9) is None
    assert "639 rows for 64 input features" in doubt(639, 64, 1.0)
    assert doubt(3, 64, 0.99)
    with pytest.raises(ValueError, match="too few for alpha = 1: collect 128"):
        doubt(127, 64, 1.0)


def test_wrong_shapes_and_types_are_refused():
    with pytest.raises(ValueError, match="rows have 3 features, the Gram matrix 4"):
        Gram(4).add(torch.ones(2, 3))
    with pytest.raises(ValueError, match="4 and 3 features do not add up"):
        Gram(4).absorb(Gram(3))
    with pytest.raises(ValueError, match=r"square, not \(2, 3\)"):
        Gram.of(torch.ones(2, 3))
    with pytest.raises(ValueError, match="bfloat16"):
        Gram(4, dtype=torch.bfloat16)
