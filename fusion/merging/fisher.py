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
    for number, sample in enumerate(samples):
        logs = log_probabilities(sample)
        target = given[number] if given is not None else None
        squares = _squares(logs, list(parameters.values()), labels, target)
        if not all(torch.isfinite(square).all() for square in squares):
            found.skipped += 1
            continue
        for total, square in zip(found.totals.values(), squares, strict=True):
            total.add_(square)
        found.samples += 1
    return found


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


def _squares(logs: Tensor, parameters: list[Tensor], labels: Labels, target: int | None) -> list[Tensor]:
    if labels == "expected":
        shares = [(label, float(share)) for label, share in enumerate(logs.detach().exp())]
    else:
        shares = [(int(logs.argmax()) if target is None else target, 1.0)]
    sums = [torch.zeros_like(working(p.detach())) for p in parameters]
    for number, (label, share) in enumerate(shares):
        last = number == len(shares) - 1
        gradients = torch.autograd.grad(logs[label], parameters, retain_graph=not last, allow_unused=True)
        for total, gradient in zip(sums, gradients, strict=True):
            if gradient is not None:
                total.add_(gradient.to(total).square(), alpha=share)
    return sums
