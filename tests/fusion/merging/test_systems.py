import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.merging.systems import Cholesky, Eigen, inverse_norm, shrunk, system


def positive(m: int, condition: float, seed: int = 0):
    """A symmetric matrix with eigenvalues from 1 down to 1 / condition."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.linalg.qr(torch.randn(m, m, dtype=torch.float64, generator=generator))[0]
    matrix = (
        vectors * torch.logspace(0, -torch.tensor(condition).log10(), m, dtype=torch.float64)
    ) @ vectors.T
    return (matrix + matrix.T) / 2


def test_shrinking_leaves_the_diagonal_and_the_argument():
    gram = positive(5, 100.0).float()
    before = gram.clone()
    found = shrunk(gram, 0.25)
    assert torch.equal(gram, before)
    assert found.dtype == torch.float64
    assert torch.equal(found.diagonal(), gram.diagonal().double())
    assert torch.allclose(
        (found - torch.diag(found.diagonal())) * 4, (gram - torch.diag(gram.diagonal())).double()
    )


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), power=st.floats(0, 5), alpha=st.floats(0.1, 1))
def test_a_regular_matrix_is_solved_with(seed, power, alpha):
    gram = positive(9, 10**power, seed)
    target = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = system(gram, alpha)
    assert found.name == "cholesky"
    assert (found.deficit, found.dead, found.shift) == (0, 0, 0)
    residual = shrunk(gram, alpha) @ found.solve(target.clone()) - target
    assert float(residual.norm()) < 1e-8 * float(target.norm())


@pytest.mark.parametrize("power", [1, 4, 8])
def test_the_condition_is_estimated_within_an_order(power):
    gram = positive(40, 10.0**power)
    scale = gram.diagonal().rsqrt()
    exact = float(torch.linalg.cond(gram * scale * scale[:, None]))
    assert exact / 3 < system(gram, 1.0).condition < 40 * exact


def test_the_norm_of_the_inverse_is_found():
    factor = torch.linalg.cholesky(positive(30, 1e6))
    assert inverse_norm(factor, rounds=40) == pytest.approx(1e6, rel=1e-3)
    assert inverse_norm(factor) <= 1e6 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("precision", "expected"), [(0.0, Cholesky), (torch.finfo(torch.float32).eps, Eigen)]
)
def test_rounding_of_the_sums_decides_whom_to_trust(precision, expected):
    assert isinstance(system(positive(20, 1e9), 1.0, precision=precision), expected)


def test_an_indefinite_matrix_loses_what_is_negative():
    found = system(torch.tensor([[1.0, 2, 0], [2, 1, 0], [0, 0, 1]]), 1.0)
    assert found.name == "eigen"
    assert (found.deficit, found.condition) == (1, float("inf"))
    moved = found.solve(torch.tensor([[1.0], [-1.0], [0.0]], dtype=torch.float64))
    assert float(moved.norm()) < 1e-12


@pytest.mark.parametrize("least", [0.0, -1e-9])
def test_a_feature_without_a_positive_diagonal_is_dead(least):
    gram = torch.diag(torch.tensor([2.0, 1.0, least], dtype=torch.float64))
    gram[0, 2] = gram[2, 0] = 1e-9
    found = system(gram, 0.9)
    assert (found.name, found.deficit, found.dead) == ("cholesky", 1, 1)
    assert found.solve(torch.ones(3, 1, dtype=torch.float64))[:, 0].tolist() == pytest.approx([0.5, 1, 0])


def test_a_matrix_of_zeros_moves_nothing():
    found = system(torch.zeros(3, 3), 0.9)
    assert (found.deficit, found.dead) == (3, 3)
    assert not found.solve(torch.zeros(3, 2, dtype=torch.float64)).any()


def test_a_ridge_is_a_share_of_the_mean_diagonal():
    gram = positive(6, 1e14)
    assert system(gram, 1.0).name == "eigen"
    found = system(gram, 1.0, ridge=0.01)
    assert found.name == "cholesky"
    assert found.shift == pytest.approx(0.01 * float(gram.diagonal().mean()))
