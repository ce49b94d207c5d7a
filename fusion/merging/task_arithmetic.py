"""Task arithmetic (arXiv 2212.04089): what fine-tuning added to the base model, summed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fusion.merging.average import working


def task_arithmetic(
    tensors: Sequence[Tensor],
    base: Tensor,
    *,
    scale: float = 0.3,
    coefficients: Sequence[float] | None = None,
) -> Tensor:
    """base + scale sum c_i (t_i - base), in the type of the base; every c_i is 1 unless given."""
    total = torch.zeros_like(working(base))
    for delta, factor in zip(task_vectors(tensors, base), factors(coefficients, len(tensors)), strict=True):
        total.add_(delta, alpha=factor)
    return moved(base, total, scale)


def task_vectors(tensors: Sequence[Tensor], base: Tensor) -> list[Tensor]:
    """t_i - base, in float32 at least. Raises ValueError where shapes differ."""
    origin = working(base)
    if any(tensor.shape != base.shape for tensor in tensors):
        raise ValueError(f"shapes differ: base {tuple(base.shape)}, {[tuple(t.shape) for t in tensors]}")
    return [tensor.to(origin) - origin for tensor in tensors]


def moved(base: Tensor, direction: Tensor, scale: float) -> Tensor:
    """base + scale direction, in the type of the base."""
    return (working(base) + scale * direction).to(base.dtype)


def factors(coefficients: Sequence[float] | None, models: int) -> list[float]:
    """One factor per model, 1 unless given; unlike weights of an average they may have any sum and sign."""
    given = [1.0] * models if coefficients is None else [float(value) for value in coefficients]
    if len(given) != models:
        raise ValueError(f"{len(given)} coefficients for {models} models")
    return given
