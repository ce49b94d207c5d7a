"""The plain average of parameters, and the coefficients of models that every method shares."""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor


def average(tensors: Sequence[Tensor], *, coefficients: Sequence[float] | None = None) -> Tensor:
    """sum l_i t_i with sum l_i = 1 (default: all equal), in the type of the first; equal tensors stay exactly
    as they are."""
    scales = normalised(coefficients, len(tensors))
    first = working(tensors[0])
    total = torch.zeros_like(first)
    for tensor, scale in zip(tensors[1:], scales[1:], strict=True):
        total.add_(tensor.to(first) - first, alpha=scale)
    return total.add_(first).to(tensors[0].dtype)


def normalised(coefficients: Sequence[float] | None, models: int) -> list[float]:
    """Coefficients with sum 1 (default: equal). Raises ValueError unless there is one > 0 for each model."""
    given = [1.0] * models if coefficients is None else [coefficient(value) for value in coefficients]
    if len(given) != models or not models:
        raise ValueError(f"{len(given)} coefficients for {models} models")
    return [value / sum(given) for value in given]


def coefficient(value: float) -> float:
    """The coefficient of a model. Raises ValueError unless it is a finite number above 0."""
    if not (isfinite(value) and value > 0):
        raise ValueError(f"the coefficient of a model is a finite number above 0, not {value}")
    return float(value)


def working(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it has that already."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def cosine(first: Tensor, second: Tensor) -> float:
    """Of two weights as vectors: near 0 where models do not descend from the same one, and must not be
    merged by any method here."""
    a, b = first.double().flatten(), second.double().flatten()
    norm = float(a.norm() * b.norm())
    return float(a @ b) / norm if norm else 0.0
