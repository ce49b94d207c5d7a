"""TIES (arXiv 2306.01708): of the task vectors keep the largest entries, elect a sign for each, and combine
only those that agree with it."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fusion.merging.task_arithmetic import factors, moved, task_vectors


def ties(
    tensors: Sequence[Tensor],
    base: Tensor,
    *,
    density: float = 0.2,
    scale: float = 1.0,
    combine: Literal["mean", "sum"] = "mean",
    coefficients: Sequence[float] | None = None,
    thresholds: Sequence[float] | None = None,
) -> Tensor:
    """base + scale (elected mean or sum of trimmed task vectors), in the type of the base.

    The `density` share of each task vector that is largest in magnitude is kept, within this tensor, or where
    `thresholds` gives one magnitude per model that was found over the whole model.
    """
    deltas = task_vectors(tensors, base)
    least = [threshold(d, density) for d in deltas] if thresholds is None else thresholds
    trimmed = [
        torch.where(d.abs() >= bound, d, 0) * factor
        for d, bound, factor in zip(deltas, least, factors(coefficients, len(tensors)), strict=True)
    ]
    return moved(base, elected(torch.stack(trimmed), combine), scale)


def threshold(values: Tensor, density: float) -> float:
    """The least magnitude among the `density` share of the values that is largest."""
    if not 0 < density <= 1:
        raise ValueError(f"the density lies above 0 and at most at 1, not at {density}")
    magnitudes = values.abs().flatten()
    kept = max(1, round(density * magnitudes.numel()))
    if kept >= magnitudes.numel():
        return 0.0
    return float(magnitudes.kthvalue(magnitudes.numel() - kept + 1).values)


def elected(deltas: Tensor, combine: Literal["mean", "sum"] = "mean") -> Tensor:
    """Of deltas (models, ...) the mean or sum (...) of those, not 0, that have the sign of their sum."""
    sign = deltas.sum(dim=0).sign()
    agreeing = (deltas.sign() == sign) & (deltas != 0)
    total = torch.where(agreeing, deltas, 0).sum(dim=0)
    return total / agreeing.sum(dim=0).clamp(min=1) if combine == "mean" else total
