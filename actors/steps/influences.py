"""Influence of candidate samples on the validation loss, by the method that the configuration names."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusion.generation import influence

if TYPE_CHECKING:
    from actors.steps.selection import Pool

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
GRADIENT: dict[str, Callable[..., Floats]] = {
    "gradient_dot": influence.gradient_dot,
    "lissa": influence.lissa,
    "tracin": influence.tracin,
}


def scores_of(method: str, model: Any, pool: "Pool", candidates: Indices, validation: Indices) -> Floats:  # noqa: ANN401
    """Influence of each candidate; negative lowers the validation loss (fusegen.md 2.6).

    `model` is the trained small task model of the union.
    """
    chosen = np.concatenate([candidates, validation])
    encoded = model.encode([pool.texts[i] for i in chosen])
    labels = pool.labels[chosen]
    first, second = np.arange(len(candidates)), np.arange(len(candidates), len(chosen))
    if method in GRADIENT:
        module, logits = model.probe(encoded)
        probe = influence.Probe(module, logits, labels)
        return GRADIENT[method](probe, first, second)
    features, proba = model.features(encoded), model.predict_proba(encoded)
    closed = influence.last_layer if method == "last_layer" else partial(influence.last_layer_hessian)
    return np.asarray(
        closed(features[first], proba[first], labels[first], features[second], proba[second], labels[second])
    )
