"""Solving G~ D = T for a Gram matrix G~ that may be nearly or entirely singular, in float64.

Cholesky on the matrix scaled to ones on its diagonal, if an estimate of the condition allows it; otherwise
the eigenvectors that have an eigenvalue to speak of. What no input shows is 0 in D: features that are always
zero, and directions without an eigenvalue.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

RCOND = 1e-12
"""Reciprocal condition below which Cholesky is not trusted, unless sums are rounded more coarsely."""
CUTOFF = 1e-10
"""Eigenvalues up to this share of the largest are none, unless sums are rounded more coarsely."""
NOISE = 8
"""Units of rounding of the sums below which an eigenvalue is not told from noise."""
Solver = Literal["cholesky", "eigen", "average"]


class System(Protocol):
    """A matrix that can be solved with."""

    @property
    def name(self) -> Solver:
        """How it solves."""

    @property
    def shift(self) -> float:
        """What was added to the diagonal."""

    @property
    def condition(self) -> float:
        """Estimate of the condition number; infinite where directions were cut."""

    @property
    def deficit(self) -> int:
        """Directions that are 0 in every solution, `dead` ones included."""

    @property
    def dead(self) -> int:
        """Features that are always zero."""

    def solve(self, target: Tensor) -> Tensor:
        """D (m, columns) for T (m, columns) in float64."""


@dataclass(frozen=True)
class Cholesky:
    """Of the matrix scaled to ones on its diagonal."""

    factor: Tensor
    scale: Tensor
    shift: float
    condition: float
    dead: int
    name: Solver = "cholesky"

    @property
    def deficit(self) -> int:
        """Only features that are always zero."""
        return self.dead

    def solve(self, target: Tensor) -> Tensor:
        """Two triangular systems."""
        return _backed(self.factor, target * self.scale[:, None]).mul_(self.scale[:, None])


@dataclass(frozen=True)
class Eigen:
    """The pseudo-inverse from eigenvectors (m, kept) and their eigenvalues (kept,)."""

    vectors: Tensor
    values: Tensor
    shift: float
    deficit: int
    dead: int
    name: Solver = "eigen"

    @property
    def condition(self) -> float:
        """Of what was kept if that is all."""
        return float("inf") if self.deficit else float(self.values.max() / self.values.min())

    def solve(self, target: Tensor) -> Tensor:
        """Two products."""
        return self.vectors @ ((self.vectors.T @ target) / self.values[:, None])


@dataclass(frozen=True)
class Still:
    """No step at all: stay at the average."""

    shift: float = 0.0
    condition: float = 1.0
    deficit: int = 0
    dead: int = 0
    name: Solver = "average"

    def solve(self, target: Tensor) -> Tensor:
        """Nothing but zeros."""
        return torch.zeros_like(target)


def system(gram: Tensor, alpha: float, *, ridge: float = 0.0, precision: float = 0.0) -> System:
    """G~ + ridge mean diag G~ of a Gram matrix (m, m) whose sums are rounded to `precision`, made ready.

    Raises ValueError if numbers in it are not finite.
    """
    diagonal = gram.diagonal().double()
    if not torch.isfinite(diagonal).all():
        raise ValueError("a Gram matrix holds numbers that are not finite")
    shift = ridge * float(diagonal.mean())
    diagonal = diagonal + shift
    dead = diagonal <= 0
    scale = torch.where(dead, 0, diagonal.rsqrt())
    # A product of two types would make a copy of its own first.
    matrix = gram.to(torch.float64, copy=True).mul_(alpha * scale).mul_(scale[:, None])
    matrix.diagonal().fill_(1)
    size = float(torch.linalg.vector_norm(matrix, 1, dim=1).max())
    # In place: the transpose is laid out as LAPACK wants it, and the matrix is symmetric.
    factor, info = matrix.mT, torch.empty((), dtype=torch.int32, device=matrix.device)
    torch.linalg.cholesky_ex(factor, out=(factor, info))
    if not info:
        condition = size * inverse_norm(factor)
        if condition * max(RCOND, precision) < 1:
            return Cholesky(factor, scale, shift, condition, int(dead.sum()))
    del matrix, factor
    matrix = shrunk(gram, alpha)
    matrix.diagonal().add_(shift)
    return _eigen(matrix, shift, int(dead.sum()), precision)


def shrunk(gram: Tensor, alpha: float) -> Tensor:
    """alpha G + (1 - alpha) diag G (m, m), in float64."""
    matrix = gram.to(torch.float64, copy=True)
    diagonal = matrix.diagonal().clone()
    matrix.mul_(alpha).diagonal().copy_(diagonal)
    return matrix


def inverse_norm(factor: Tensor, rounds: int = 2) -> float:
    """The largest eigenvalue of an inverse from the Cholesky factor (m, m), from below, by inverse
    iteration."""
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(len(factor), 1, dtype=torch.float64, generator=generator).to(factor.device)
    norm = 0.0
    for _ in range(rounds):
        vector = _backed(factor, vector / torch.linalg.vector_norm(vector))
        norm = float(torch.linalg.vector_norm(vector))
    return norm


def _backed(factor: Tensor, target: Tensor) -> Tensor:
    # In place where it is laid out by columns. torch.cholesky_solve copies the factor on every call.
    torch.linalg.solve_triangular(factor, target, upper=False, out=target)
    torch.linalg.solve_triangular(factor.mT, target, upper=True, out=target)
    return target


def _eigen(matrix: Tensor, shift: float, dead: int, precision: float) -> Eigen:
    # Unscaled, so that a direction without inputs is left alone and not only almost.
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > max(CUTOFF, NOISE * precision) * values[-1].clamp(min=0)
    return Eigen(vectors[:, kept], values[kept], shift, int((~kept).sum()), dead)
