"""DARE (arXiv 2311.03099): drop entries of the task vectors at random, and rescale those that stay."""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fusion.merging.task_arithmetic import moved, task_vectors
from fusion.merging.ties import elected

Combine = Callable[[Tensor], Tensor]
"""Task vectors (models, ...) to one direction (...)."""


def added(deltas: Tensor) -> Tensor:
    """The sum (...) of task vectors (models, ...)."""
    return deltas.sum(dim=0)


def averaged(deltas: Tensor) -> Tensor:
    """The mean (...) of task vectors (models, ...)."""
    return deltas.mean(dim=0)


COMBINE: dict[str, Combine] = {"sum": added, "mean": averaged, "ties": elected}
"""What may be done with the thinned task vectors."""


def dare(
    tensors: Sequence[Tensor],
    base: Tensor,
    *,
    name: str,
    seed: int,
    drop: float = 0.5,
    scale: float = 1.0,
    rescale: bool = True,
    combine: Combine = averaged,
) -> Tensor:
    """base + scale combine(thinned task vectors), in the type of the base. What is dropped follows from
    `seed`, the tensor's `name` and the model's position, whatever else is merged before or after."""
    deltas = task_vectors(tensors, base)
    thinned = [thin(d, drop, seed_of(seed, name, str(i)), rescale) for i, d in enumerate(deltas)]
    return moved(base, combine(torch.stack(thinned)), scale)


def thin(delta: Tensor, drop: float, seed: int, rescale: bool = True) -> Tensor:
    """The delta with entries set to 0 with probability `drop`, the others divided by 1 - drop."""
    if not 0 <= drop < 1:
        raise ValueError(f"the share to drop is at least 0 and below 1, not {drop}")
    # Drawn on the CPU, so that a GPU merges the same.
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(delta.shape, generator=generator).to(delta.device) >= drop
    return torch.where(kept, delta / (1 - drop) if rescale else delta, 0)


def seed_of(seed: int, *names: str) -> int:
    """A seed (63 bits) of its own for every name."""
    digest = hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
