"""Sample weights for the final small model: FuseGen's self-boosting adjustment (SWA, section 3.4) and
SunGen's bi-level optimisation (arXiv 2205.12679), the baseline.

SWA trains from the initial checkpoint, lets the model judge its own training samples and multiplies the
weight of a wrong one by beta^(1 - p_y), beta < 1; right ones gain because the total stays the same. Weights
may fall by many orders of magnitude, so they live as logarithms. The judge is trained on what it judges and
can confirm its own mistakes: every iteration reports the share that it gets right, and `patience` stops
when that share does not rise any more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log, sqrt
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logsumexp

from fusion.generation.influence import SUNGEN_SLOPE, Features, last_layer

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Tensor = TypeVar("Tensor", NDArray[np.float64], "torch.Tensor")
TrainAndJudge = Callable[[Floats, int], tuple[Floats, Bools]]
"""Weights (n,) and number of the iteration to errors (n,) on the same samples, from scratch, and whether the
model is right about each (n,)."""
TrainAndFeature = Callable[[Floats, int], tuple[Features, Floats]]
"""The same to the features (n, d) of the last layer, and the probabilities (n, C)."""
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def beta(n: int, iterations: int, rule: Literal["paper", "authors"]) -> float:
    """The base of the weight factor for n samples: 1 / (1 + sqrt(2 ln(n) / E1)), the constant of
    TrAdaBoost, or 1 / (1 + sqrt(max(1, 2 ln(n / E1)))) of the authors' code."""
    if rule == "paper":
        return 1 / (1 + sqrt(2 * log(n) / iterations))
    return 1 / (1 + sqrt(max(1.0, 2 * log(n / iterations))))


def judged(proba: ArrayLike, labels: ArrayLike) -> tuple[Floats, Bools]:
    """Of probabilities (n, C) for the labels asked for (n,): the errors 1 - p_y, and whether the label is the
    argmax."""
    p, y = np.asarray(proba, np.float64), np.asarray(labels, np.int64)
    return 1 - p[np.arange(len(y)), y], p.argmax(axis=1) == y


def swa_step(log_weights: Floats, error: Floats, right: Bools, beta: float) -> Floats:
    """One update of log weights (n,): samples that a model is not right about fall by beta^error; the sum of
    the weights stays. Errors and rights are those of `judged`, or of spans (1 - p_start) + (1 - p_end)."""
    if not np.isfinite(error).all():
        raise ValueError("probabilities must be finite numbers")
    lowered = log_weights + log(beta) * error * ~right
    return np.asarray(lowered + logsumexp(log_weights) - logsumexp(lowered)) if len(error) else lowered


@dataclass(frozen=True)
class Weighting:
    """Weights (n,) and one entry per iteration: `share_ok` under the weights trained with, then of the
    updated weights `min_weight`, `survivors` (the share at or above half the initial weight) and
    `quantiles` (0, 1/4, 1/2, 3/4, 1)."""

    weights: Floats
    history: list[Mapping[str, Any]]


def self_boost(
    train_and_judge: TrainAndJudge,
    n: int,
    *,
    iterations: int,
    beta_rule: Literal["paper", "authors"] = "paper",
    initial: float = 0.5,
    patience: int | None = None,
) -> Weighting:
    """SWA: `iterations` times train, judge, update. With `patience`, stop after so many iterations in a row
    in which the share right did not exceed its best; the weights updated last are returned."""
    log_weights = np.full(n, log(initial))
    factor = beta(max(n, 1), iterations, beta_rule)
    history: list[Mapping[str, Any]] = []
    for iteration in range(iterations):
        error, right = train_and_judge(np.exp(log_weights), iteration)
        log_weights = swa_step(log_weights, error, right, factor)
        history.append(_entry(right, np.exp(log_weights), initial))
        if patience is not None and _stalled([entry["share_ok"] for entry in history], patience):
            break
    return Weighting(np.exp(log_weights), history)


def sungen(
    train: TrainAndFeature,
    labels: ArrayLike,
    *,
    iterations: int = 30,
    outer_samples: int = 10,
    batch_size: int = 16,
    inner_rate: float = 2e-5,
    outer_rate: float = 0.25,
    clip: float = 3.0,
    keep: float = 0.9,
    seed: int,
) -> Weighting:
    """SunGen with gradients of the last layer only.

    Inner: `train` on the weights. Outer: the mean reverse cross-entropy (label logit 10) of a random
    subset, without samples whose weight is in the lowest 1 - keep of all. The gradient of weight i is taken
    through one plain gradient step on its batch, -rate grad L . grad l_i / (batch sum of weights); Adam
    with `outer_rate` moves the logits of the weights, gradients clipped to norm `clip`. Weights start at
    sigmoid(0).
    """
    import torch  # takes more than a second, and SWA needs it not

    y = np.asarray(labels, np.int64)
    rng = np.random.default_rng(seed)
    logits = torch.zeros(len(y), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=outer_rate)
    history: list[Mapping[str, Any]] = []
    for iteration in range(iterations):
        weights = expit(logits.detach().numpy())
        features, proba = train(weights, iteration)
        outer = np.sort(rng.permutation(len(y))[:outer_samples])
        outer = outer[weights[outer] >= np.quantile(weights, 1 - keep)]
        if len(outer):
            scores = last_layer(features, proba, y, features[outer], proba[outer], y[outer])
            slope = inner_rate * SUNGEN_SLOPE * scores / (batch_size * weights.mean())
            logits.grad = torch.from_numpy(slope * weights * (1 - weights))
            torch.nn.utils.clip_grad_norm_([logits], clip)
            optimizer.step()
        history.append(_entry(judged(proba, y)[1], expit(logits.detach().numpy()), 0.5))
    return Weighting(expit(logits.detach().numpy()), history)


def weighted_loss(losses: Tensor, weights: Tensor, *, normalised: bool = False) -> Tensor:
    """The sum of w l over a batch (B,), divided by B, as FuseGen trains, or by the sum of w."""
    total: Tensor = (weights * losses).sum()
    return total / (weights.sum() if normalised else len(losses))


def _entry(right: Bools, weights: Floats, initial: float) -> Mapping[str, Any]:
    if not len(right):
        return {"share_ok": 0.0, "min_weight": 0.0, "survivors": 0.0, "quantiles": []}
    return {
        "share_ok": float(right.mean()),
        "min_weight": float(weights.min()),
        "survivors": float((weights >= initial / 2).mean()),
        "quantiles": np.quantile(weights, QUANTILES).tolist(),
    }


def _stalled(shares_ok: list[float], patience: int) -> bool:
    return len(shares_ok) - 1 - int(np.argmax(shares_ok)) >= patience
