"""RegMean (arXiv 2212.09849): the linear map whose outputs fit those of every model on that model's inputs.

    W = argmin sum_i l_i tr[(W - W_i)^T G_i (W - W_i)] = (sum_i l_i G_i)^-1 sum_i l_i G_i W_i     (eq. 2)

W (m, n) maps inputs of m features to n outputs, G_i is the mean of x x^T over inputs of model i, and
G~ = alpha G + (1 - alpha) diag G shrinks what features have in common. Everything is additive over models:
`Sums` holds what is needed and takes models in and out; `solve` is then free to try any alpha. Models enter
as D_i = W_i - W_ref, and what is solved for is the step from the average,

    W = mean W + G~^+ (sum_i l_i G~_i D_i - G~ mean D),

so that equal models give exactly themselves, and where no input ever pointed the average stays.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusion.merging.average import normalised
from fusion.merging.gram import Gram
from fusion.merging.sums import Sums
from fusion.merging.systems import Solver, Still, System, system

COLUMNS = 512
"""Outputs that are solved for at once."""
STABLE = 0.05
"""Least alpha at which the objective follows from the solution without another product."""
Overrides = Sequence[tuple[str, float]]
"""Regular expressions of module names, anchored at the start, and their alpha; the first that fits counts."""


@dataclass(frozen=True)
class Diagnostics:
    """How a solution came about, without any data."""

    alpha: float
    solver: Solver
    """`eigen` where Cholesky failed or could not be trusted, `average` where nothing was solved."""
    condition: float
    """Estimate of the condition number of the scaled matrix; infinite where `eigen` had to cut."""
    deficit: int
    """Directions that no input has (`dead` ones included), in which the average stays."""
    dead: int
    """Input features that are always zero."""
    objective: float
    """sum l tr[(W - W_i)^T G_i (W - W_i)] / sum l, at alpha = 1 whatever alpha solved."""
    of_average: float
    """The same for the average."""

    @property
    def ratio(self) -> float:
        """Objective by that of the average; 1 where both are none."""
        return self.objective / self.of_average if self.of_average > 0 else 1.0


@dataclass(frozen=True)
class Solution:
    """The merged weight (m, n) and how it came about."""

    weight: Tensor
    diagnostics: Diagnostics


def solve(
    sums: Sums, alpha: float, *, ridge: float = 0.0, least_rows: int = 0, dtype: torch.dtype | None = None
) -> Solution:
    """The merged weight (m, n) in `dtype` (default: the reference's), solved for in float64.

    `ridge` adds that share of the mean diagonal and pulls towards the average. Where a Gram matrix rests on
    fewer than `least_rows`, the average is taken. Raises ValueError for alpha outside [0, 1].
    """
    check_alpha(alpha)
    average = sums.average()
    poor = sums.fewest is not None and sums.fewest < least_rows
    if sums.fewest == 0 and not poor:
        raise ValueError("no rows were counted in the Gram matrix of one of the models")
    precision = max(sums.precision, torch.finfo(sums.gram.dtype).eps)
    solver = Still() if poor else system(sums.gram, alpha, ridge=ridge, precision=precision)
    out = torch.empty_like(average, dtype=dtype or sums.reference.dtype)
    risen = gained = 0.0
    for start in range(0, out.shape[1], COLUMNS):
        part = slice(start, start + COLUMNS)
        step, rise, gain = _step(sums, solver, part, alpha)
        out[:, part] = average[:, part] + step
        risen, gained = risen + rise, gained + gain
    of_average = max(sums.energy + risen, 0.0) / sums.weight
    objective = max(of_average + gained / sums.weight, 0.0)
    how = solver.name, solver.condition, solver.deficit, solver.dead
    return Solution(out, Diagnostics(alpha, *how, objective, of_average))


def regmean(
    weights: Sequence[Tensor],
    grams: Sequence[Gram],
    *,
    alpha: float,
    coefficients: Sequence[float] | None = None,
    ridge: float = 0.0,
    least_rows: int = 0,
) -> Solution:
    """Merge the weights (m, n) of one linear map of several models in one go."""
    scales = normalised(coefficients, len(weights))
    dtype = torch.promote_types(grams[0].total.dtype, torch.float32)
    sums = Sums(weights[0], dtype=dtype)
    for weight, gram, scale in zip(weights, grams, scales, strict=True):
        sums.add(gram, weight, scale)
    return solve(sums, alpha, ridge=ridge, least_rows=least_rows)


def check_alpha(alpha: float) -> None:
    """Raises ValueError for alpha outside [0, 1]."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha lies between 0 and 1, not at {alpha}")


def alpha_of(module: str, default: float, overrides: Overrides = ()) -> float:
    """The alpha of a module by its name."""
    alpha = next((value for pattern, value in overrides if re.match(pattern, module)), default)
    check_alpha(alpha)
    return alpha


def _step(sums: Sums, solver: System, part: slice, alpha: float) -> tuple[Tensor, float, float]:
    """The step (m, columns) from the average; how much the average's objective exceeds the energy, and the
    solution's that of the average."""
    mean = sums.plain[:, part] / sums.weight
    own = sums.gram.diagonal()[:, None]
    pull = torch.mm(mean.mT, sums.gram).mT  # the matrix is symmetric, and all is laid out by columns
    residual = sums.full[:, part] - pull
    rise = float((mean * torch.sub(pull, sums.full[:, part], alpha=2)).sum(dtype=torch.float64))
    of_diagonal = torch.addcmul(sums.diagonal[:, part], own, mean, value=-1)
    target = of_diagonal.lerp_(residual, alpha).double()
    step = solver.solve(target)
    if alpha > STABLE:
        # The step solves alpha S step = target - (1 - alpha) diag(S) step - shift step.
        spent = torch.linalg.vecdot(step, step, dim=1) @ ((1 - alpha) * own[:, 0].double() + solver.shift)
        curvature = (_dot(step, target) - float(spent)) / alpha
    else:
        curvature = _dot(step, torch.mm(step.to(sums.gram).mT, sums.gram).mT.double())
    return step, rise, curvature - 2 * _dot(step, residual.double())


def _dot(one: Tensor, other: Tensor) -> float:
    """The sum of the products of all entries, of matrices laid out by columns."""
    return float(torch.dot(one.mT.reshape(-1), other.mT.reshape(-1)))
