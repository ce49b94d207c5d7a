"""Cross-model variability: which samples the small models of different language models disagree on (FuseGen,
section 3.3; dataset cartography, Swayamdipta et al. 2020, with models in the place of epochs).

`p` is always (K, n): the probability that model k gives to the label asked for of sample i.
"""

from dataclasses import dataclass
from math import floor

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
EPSILON = 1e-9
AMBIGUOUS_FROM = 0.25
"""Least variability of a sample that counts as ambiguous: about half of what is possible."""


def variability(p: ArrayLike) -> Floats:
    """d (n,): the unbiased standard deviation (divisor K - 1) over the models; ValueError for K = 1."""
    values = _checked(p)
    if len(values) < 2:
        raise ValueError("variability needs the probabilities of at least two models")
    return np.asarray(values.std(axis=0, ddof=1))


def confidence(p: ArrayLike) -> Floats:
    """conf (n,): the mean over the models."""
    return np.asarray(_checked(p).mean(axis=0))


@dataclass(frozen=True)
class Shares:
    """Parts of a data set that sum up to one."""

    easy: float
    """Models agree on the label asked for."""
    ambiguous: float
    """Models disagree."""
    hard: float
    """Models agree that it is another label."""


def shares(
    d: ArrayLike, conf: ArrayLike, n_classes: int, *, ambiguous_from: float = AMBIGUOUS_FROM
) -> Shares:
    """The regions of the map: `ambiguous_from` is the least d of an ambiguous sample; below it, a sample with
    conf under 1 / C is hard. Zeros for an empty set."""
    high = np.asarray(d, float) >= ambiguous_from
    hard = ~high & (np.asarray(conf, float) < 1 / n_classes)
    n = max(len(high), 1)
    ambiguous, wrong = high.sum() / n, hard.sum() / n
    return Shares(float((~high & ~hard).sum() / n), float(ambiguous), float(wrong))


def candidates(
    d: ArrayLike,
    size: int,
    alpha: float,
    *,
    confidence: ArrayLike | None = None,
    n_classes: int | None = None,
    margin: float = 0.0,
    groups: ArrayLike | None = None,
) -> Indices:
    """Indices of the `size - floor(alpha size)` samples of lowest d, ascending, then of the others, of
    highest d, descending; ties go to the smaller index. A smaller pool is taken whole.

    With `confidence` (n,) and `n_classes`, low-d samples with confidence below 1 / C + margin are left out:
    all models agree that their label is wrong. With `groups` (n,), for instance label x language model, each
    end takes its share from all groups in turn; a group that runs out is made up for by the others.
    """
    values = _finite(d)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], is {alpha}")
    if confidence is not None and n_classes is None:
        raise ValueError("the confidence rule needs the number of classes")
    members = np.zeros(len(values), int) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_high = floor(alpha * size + EPSILON)
    high = _in_turn(np.argsort(-values, kind="stable"), members, n_high)
    allowed = np.ones(len(values), bool)
    allowed[high] = False
    if confidence is not None and n_classes is not None:
        allowed &= _finite(confidence) >= 1 / n_classes + margin - EPSILON
    ascending = np.argsort(values, kind="stable")
    return np.concatenate([_in_turn(ascending[allowed[ascending]], members, size - n_high), high])


def _in_turn(order: Indices, members: NDArray[np.int_], n: int) -> Indices:
    """The first n of `order`, the groups taking turns: first the best of each group, then the second best."""
    by_group = np.argsort(members[order], kind="stable")
    _, starts, counts = np.unique(members[order][by_group], return_index=True, return_counts=True)
    turns = np.empty(len(order), int)
    turns[by_group] = np.arange(len(order)) - np.repeat(starts, counts)
    return order[np.sort(np.argsort(turns, kind="stable")[:n])]


def _checked(p: ArrayLike) -> Floats:
    values = _finite(p)
    if values.ndim != 2:
        raise ValueError(f"probabilities must be (models, samples), are {values.shape}")
    return values


def _finite(values: ArrayLike) -> Floats:
    array = np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        raise ValueError("probabilities must be finite numbers")
    return array
