"""Influence of candidate samples on the validation loss, by the method that the configuration names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusion.generation import influence

if TYPE_CHECKING:
    from actors.steps.selection import Pool

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
CLOSED = ("last_layer", "last_layer_hessian")
GRADIENT: dict[str, influence.GradientInfluence] = {
    "gradient_dot": influence.gradient_dot,
    "lissa": influence.lissa,
}


@dataclass(frozen=True)
class Judge:
    """A trained small task model, and the weights it had after each epoch where they were kept."""

    model: Any
    checkpoints: Sequence[Mapping[str, Any]] = ()


def scores_of(method: str, judge: Judge, pool: "Pool", candidates: Indices, validation: Indices) -> Floats:
    """Influence of each candidate; negative lowers the validation loss."""
    model = judge.model
    chosen = np.concatenate([candidates, validation])
    encoded = model.encode([pool.texts[i] for i in chosen])
    targets = pool.targets[chosen]
    first, second = np.arange(len(candidates)), np.arange(len(candidates), len(chosen))
    if method in CLOSED:
        return pool.kind.last_layer(method, model, encoded, targets, first, second)
    module, logits = model.probe(encoded)
    probe = influence.Probe(module, logits, pool.kind.probed(model, encoded, targets))
    if method == "tracin":
        return influence.tracin(probe, first.tolist(), second.tolist(), checkpoints=judge.checkpoints)
    return GRADIENT[method](probe, first.tolist(), second.tolist())
