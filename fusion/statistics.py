"""Accuracy with what chance leaves of it, and paired comparisons of two classifiers on the same samples."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

RESAMPLES = 10_000
EPSILON = 1e-9


def macro_f1(labels: ArrayLike, predicted: ArrayLike, n_classes: int) -> float:
    """The mean over classes of F1; a class that occurs in neither counts zero."""
    truth, guess = np.asarray(labels), np.asarray(predicted)
    hits = np.bincount(truth[truth == guess], minlength=n_classes)
    total = np.bincount(truth, minlength=n_classes) + np.bincount(guess, minlength=n_classes)
    return float((2 * hits / np.maximum(total, 1)).mean())


def bootstrap_interval(
    values: ArrayLike, *, resamples: int = RESAMPLES, level: float = 0.95, seed: int
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` (n,): right or wrong for an accuracy, the difference of two
    such vectors for a paired comparison.

    Resampling draws how often each distinct value occurs (a multinomial), so cost does not grow with n where
    values are few.
    """
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    if not counts.size or not np.isfinite(distinct).all():
        raise ValueError("a bootstrap interval needs at least one value, all of them finite")
    n = counts.sum()
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    low, high = np.quantile(draws @ distinct / n, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar(right: ArrayLike, other: ArrayLike) -> float:
    """Two-sided exact p value that two classifiers are equally accurate, from where (n,) each was right."""
    first, second = _booleans(right), _booleans(other)
    if first.shape != second.shape:
        raise ValueError(f"paired results differ in length: {first.shape} and {second.shape}")
    wins, losses = int((first & ~second).sum()), int((second & ~first).sum())
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def sign_flips(difference: ArrayLike, *, resamples: int = RESAMPLES, seed: int) -> float:
    """Two-sided p value that paired differences (n,) have mean zero: how often their mean is as far from zero
    when each keeps its sign by chance (approximate randomisation, Noreen 1989)."""
    values = np.asarray(difference, np.float64)
    values = values[values != 0]
    rng = np.random.default_rng(seed)
    means = np.array([values @ rng.choice((-1.0, 1.0), len(values)) for _ in range(resamples)])
    return float((1 + (np.abs(means) >= abs(values.sum()) - EPSILON).sum()) / (1 + resamples))


def _booleans(right: ArrayLike) -> NDArray[np.bool_]:
    return np.asarray(right, np.bool_)
