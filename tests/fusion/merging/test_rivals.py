"""Averages, task arithmetic, TIES, DARE and SLERP, by hand."""

from math import cos, pi, sin, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fusion.merging.average import average, cosine, normalised
from fusion.merging.dare import COMBINE, added, dare, seed_of, thin
from fusion.merging.slerp import slerp
from fusion.merging.task_arithmetic import task_arithmetic
from fusion.merging.ties import elected, threshold, ties

NUMBERS = st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4)
BASE = torch.tensor([1.0, 1.0, 1.0, 1.0])


def of(*values: float):
    return torch.tensor(values, dtype=torch.float32)


def test_averages_are_weighted():
    assert average([of(1, 2), of(3, 6)]).tolist() == [2, 4]
    assert average([of(1, 2), of(3, 6)], coefficients=[3, 1]).tolist() == [1.5, 3]
    assert average([of(1).half(), of(2).half()]).dtype == torch.float16
    assert normalised([1, 3], 2) == [0.25, 0.75]


@given(values=NUMBERS, n=st.integers(1, 5))
def test_equal_tensors_stay_as_they_are(values, n):
    tensor = torch.tensor(values)
    assert torch.equal(average([tensor] * n), tensor)
    assert torch.equal(slerp(tensor, tensor, t=0.3), tensor) or torch.allclose(slerp(tensor, tensor), tensor)
    assert torch.equal(ties([tensor] * n, tensor), tensor)
    assert torch.equal(dare([tensor] * n, tensor, name="w", seed=0), tensor)


def test_half_precision_is_summed_in_single():
    many = [of(1.0).bfloat16(), *[of(1.0078125).bfloat16()] * 7]
    assert float(average(many)) == float(of(1.0068359).bfloat16())


def test_task_vectors_are_added_to_the_base():
    found = task_arithmetic([of(2, 1, 1, 1), of(1, 3, 1, 0)], BASE, scale=0.5)
    assert found.tolist() == [1.5, 2, 1, 0.5]
    weighted = task_arithmetic([of(2, 1, 1, 1), of(1, 3, 1, 0)], BASE, scale=1, coefficients=[2, -1])
    assert weighted.tolist() == [3, -1, 1, 2]
    with pytest.raises(ValueError, match="shapes differ"):
        task_arithmetic([of(1)], BASE)
    with pytest.raises(ValueError, match="1 coefficients for 2 models"):
        task_arithmetic([BASE, BASE], BASE, coefficients=[1])


def test_ties_trims_elects_and_combines():
    first, second = BASE + of(4, -3, 1, 0.1), BASE + of(2, 5, 0.2, -0.1)
    # Half of each is kept: (4, -3, 0, 0) and (2, 5, 0, 0); signs elected: +, +.
    assert ties([first, second], BASE, density=0.5).tolist() == [4, 6, 1, 1]
    assert ties([first, second], BASE, density=0.5, combine="sum").tolist() == [7, 6, 1, 1]
    assert ties([first, second], BASE, density=0.5, scale=2).tolist() == [7, 11, 1, 1]
    of_all = ties([first, second], BASE, thresholds=[3.5, 4.5])
    assert of_all.tolist() == [5, 6, 1, 1]


def test_the_threshold_keeps_the_share_asked_for():
    values = torch.arange(-50.0, 50.0)
    assert int((values.abs() >= threshold(values, 0.1)).sum()) in (10, 11)
    assert threshold(values, 1.0) == 0
    for density in (0.0, 1.5):
        with pytest.raises(ValueError, match="density"):
            threshold(values, density)


def test_nobody_agrees_with_a_tie():
    assert elected(torch.stack([of(1.0), of(-1.0)])).tolist() == [0]


def test_dare_drops_a_share_and_keeps_the_mean():
    delta = torch.ones(100_000)
    kept = thin(delta, 0.9, seed=0)
    assert float((kept != 0).float().mean()) == pytest.approx(0.1, abs=0.005)
    assert kept[kept != 0].unique().tolist() == pytest.approx([10.0])
    assert float(kept.mean()) == pytest.approx(1, abs=0.05)
    assert thin(delta, 0.9, seed=0, rescale=False).unique().tolist() == [0, 1]
    assert torch.equal(thin(delta, 0.0, seed=0), delta)
    with pytest.raises(ValueError, match="not 1"):
        thin(delta, 1, seed=0)


def test_dare_follows_from_seed_name_and_position():
    tensors = [torch.randn(200), torch.randn(200)]
    base = torch.zeros(200)
    found = dare(tensors, base, name="a", seed=1)
    assert torch.equal(found, dare(tensors, base, name="a", seed=1))
    assert not torch.equal(found, dare(tensors, base, name="b", seed=1))
    assert not torch.equal(found, dare(tensors, base, name="a", seed=2))
    total = dare(tensors, base, name="a", seed=1, combine=added)
    assert torch.allclose(total, 2 * found)
    assert COMBINE.keys() == {"sum", "mean", "ties"}
    assert len({seed_of(0, "ab", "c"), seed_of(0, "a", "bc"), seed_of(1, "ab", "c")}) == 3


def test_slerp_follows_the_arc():
    first, second = of(1.0, 0.0), of(0.0, 1.0)
    for t in (0.0, 0.25, 0.5, 1.0):
        expected = [cos(t * pi / 2), sin(t * pi / 2)]
        assert slerp(first, second, t=t).tolist() == pytest.approx(expected, abs=1e-6)
    assert slerp(2 * first, 2 * second).tolist() == pytest.approx([sqrt(2), sqrt(2)])


def test_slerp_of_parallel_or_empty_tensors_is_linear():
    assert slerp(of(1.0, 1.0), of(3.0, 3.0), t=0.25).tolist() == [1.5, 1.5]
    assert slerp(of(1.0, 0.0), of(-1.0, 0.0)).tolist() == [0, 0]
    assert slerp(of(0.0, 0.0), of(1.0, 0.0)).tolist() == [0.5, 0]
    with pytest.raises(ValueError, match="t lies between"):
        slerp(of(1.0), of(1.0), t=2)


def test_models_of_other_origin_are_at_right_angles():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(10_000, generator=generator) for _ in range(2))
    assert abs(cosine(a, b)) < 0.05
    assert cosine(a, a + 0.1 * b) > 0.99
    assert cosine(a, torch.zeros(10_000)) == 0
