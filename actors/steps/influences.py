"""Influence of candidate samples on the validation loss, by the method that the configuration names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusion.generation import influence

if TYPE_CHECKING:
    from actors.steps.selection import Pool

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
Closed = Callable[[Any, Floats, Indices, Any, Floats, Indices], Floats]
CLOSED: dict[str, Closed] = {
    "last_layer": influence.last_layer,
    "last_layer_hessian": influence.last_layer_hessian,
}
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
    labels = pool.labels[chosen]
    first, second = np.arange(len(candidates)), np.arange(len(candidates), len(chosen))
    if method in CLOSED:
        h, p = model.features(encoded), model.predict_proba(encoded)
        return CLOSED[method](h[first], p[first], labels[first], h[second], p[second], labels[second])
    module, logits = model.probe(encoded)
    probe = influence.Probe(module, logits, labels)
    if method == "tracin":
        return influence.tracin(probe, first.tolist(), second.tolist(), checkpoints=judge.checkpoints)
    return GRADIENT[method](probe, first.tolist(), second.tolist())
