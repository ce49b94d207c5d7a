"""Fisher merging (arXiv 2111.09832): parameters averaged with the precision that data gives each of them.

The diagonal of the Fisher matrix is the expected square of the gradient of log p(y | x), per sample, over the
labels that the model itself expects. Squares of gradients of a batch mean, which are often used instead, are
smaller by an amount that depends on how much samples agree.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, Literal

import torch
from torch import Tensor

from fusion.merging.average import normalised, working

Labels = Literal["expected", "predicted", "given"]
"""Over all labels by their probability; the most probable only; the one that belongs to the sample."""
NEGLIGIBLE = 1e-9
"""Share of the expectation that may be left out."""
EPSILON = 1e-10
"""Added to every entry, so that parameters nobody knows anything of are averaged."""


@dataclass
class Fisher:
    """Sums of squared gradients by parameter name, and how many samples they are of."""

    totals: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0
    skipped: int = 0
    """Samples left out because a gradient was not finite."""

    def mean(self) -> dict[str, Tensor]:
        """The diagonal of the Fisher matrix by parameter name."""
        if not self.samples:
            raise ValueError("no sample was counted")
        return {name: total / self.samples for name, total in self.totals.items()}


def diagonal_fisher(
    log_probabilities: Callable[[Any], Tensor],
    parameters: Mapping[str, Tensor],
    samples: Iterable[Any],
    *,
    labels: Labels = "expected",
    given: Sequence[int] | None = None,
) -> Fisher:
    """Of a model that maps one sample to log probabilities (labels,), as a function of `parameters`, which
    require gradients. The model must be in evaluation mode."""
    if (given is None) == (labels == "given"):
        raise ValueError("labels are needed where, and only where, labels = 'given'")
    found = Fisher({name: torch.zeros_like(working(p.detach())) for name, p in parameters.items()})
    squares = _Squares(parameters)
    for number, sample in enumerate(samples):
        logs = log_probabilities(sample)
        target = given[number] if given is not None else None
        known = not bool(torch.isnan(logs).any())
        if known:
            squares.of(logs, directions(logs.detach(), labels, target))
        if known and squares.finite():
            squares.add_to(found.totals)
            found.samples += 1
        else:
            found.skipped += 1
    return found


def directions(logs: Tensor, labels: Labels, target: int | None = None) -> Tensor:
    """Rows v (k, labels) such that the sum of (d (v . log p))^2 over them is the expectation over labels.

    With P = diag(p) - p p^T the gradients g_y of log p_y, whose mean is 0, have the second moment
    sum_y p_y g_y g_y^T = sum_k (g v_k)(g v_k)^T for v_k = sqrt(w_k) u_k of the eigenvectors of P: one fewer
    than labels, and none for those that the model excludes.
    """
    if labels != "expected":
        chosen = int(logs.argmax()) if target is None else target
        return torch.eye(len(logs), dtype=logs.dtype, device=logs.device)[chosen][None]
    p = logs.double().exp()
    values, vectors = torch.linalg.eigh(torch.diag(p) - torch.outer(p, p))
    kept = values > NEGLIGIBLE * values.sum()
    return torch.as_tensor((vectors[:, kept] * values[kept].sqrt()).T.to(logs))


def fisher_average(
    tensors: Sequence[Tensor],
    fishers: Sequence[Tensor],
    *,
    coefficients: Sequence[float] | None = None,
    norms: Sequence[float] | None = None,
    epsilon: float = EPSILON,
) -> Tensor:
    """sum l_i c_i (F_i + e) t_i / sum l_i c_i (F_i + e), in the type of the first. c_i is 1 / `norms`[i], so
    that no model outweighs the others by the size of its gradients, or 1."""
    scales = normalised(coefficients, len(tensors))
    sizes = [1.0] * len(tensors) if norms is None else [norm + epsilon for norm in norms]
    first = working(tensors[0])
    above, below = torch.zeros_like(first), torch.zeros_like(first)
    for tensor, fisher, scale, size in zip(tensors, fishers, scales, sizes, strict=True):
        if (fisher < 0).any() or not torch.isfinite(fisher).all():
            raise ValueError("Fisher information is finite and not negative")
        precision = (fisher.to(first) + epsilon) * (scale / size)
        above += precision * (tensor.to(first) - first)
        below += precision
    return (first + above / below).to(tensors[0].dtype)


def norm(fishers: Iterable[Tensor]) -> float:
    """L2 norm of the Fisher information of one parameter, or of all of a model together."""
    return sqrt(sum(float(fisher.double().square().sum()) for fisher in fishers))


class _Squares:
    """Squared gradients of one sample, in memory that is used again for the next. Gradients of embeddings may
    be sparse: most rows of a vocabulary are not in a text."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = parameters
        self._dense: dict[str, Tensor] = {}
        self._sparse: dict[str, list[Tensor]] = {}

    def of(self, logs: Tensor, rows: Tensor) -> None:
        """Sum up the squares of d (v . logs) for rows v (k, labels)."""
        self._sparse = {}
        for dense in self._dense.values():
            dense.zero_()
        for number, row in enumerate(rows):
            last = number == len(rows) - 1
            gradients = torch.autograd.grad(
                logs, list(self._parameters.values()), row, retain_graph=not last, allow_unused=True
            )
            for name, gradient in zip(self._parameters, gradients, strict=True):
                if gradient is not None:
                    self._add(name, gradient)

    def _add(self, name: str, gradient: Tensor) -> None:
        if gradient.is_sparse:
            self._sparse.setdefault(name, []).append(gradient.coalesce())
            return
        if name not in self._dense:
            self._dense[name] = torch.zeros_like(working(gradient))
        self._dense[name].addcmul_(gradient, gradient)

    def finite(self) -> bool:
        """Whether all squares are numbers."""
        tensors = [*self._dense.values(), *(one.values() for of in self._sparse.values() for one in of)]
        return all(bool(torch.isfinite(tensor.sum())) for tensor in tensors)

    def add_to(self, totals: Mapping[str, Tensor]) -> None:
        """Add what was summed up."""
        for name, dense in self._dense.items():
            totals[name].add_(dense)
        for name, several in self._sparse.items():
            for one in several:
                totals[name].index_add_(0, one.indices()[0], one.values().square().to(totals[name]))
