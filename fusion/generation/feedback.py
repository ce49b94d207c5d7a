"""Choosing the samples that the next prompts show (FuseGen, section 3.3; ProGen, arXiv 2210.12329).

Influence scores follow the papers: a negative one means that the sample lowers the validation loss. Every
choice is shuffled once by its seed and then stays in this order for all prompts of a round.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.intp]
PROGEN_POOL = 50


def pick(
    scores: ArrayLike,
    size: int,
    *,
    sign: Literal["helpful", "harmful"],
    groups: ArrayLike | None = None,
    rng_seed: int,
) -> Indices:
    """Indices of the `size` most negative (helpful) or most positive (harmful, the authors' code) scores;
    with `groups` (n,), for instance the labels, the groups take turns."""
    values = np.asarray(scores, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("influence scores must be finite numbers")
    order = np.argsort(values if sign == "helpful" else -values, kind="stable")
    if groups is not None:
        order = _labels_in_turn(order, np.asarray(groups))
    return np.random.default_rng(rng_seed).permutation(order[:size])


def random_pick(n: int, size: int, *, rng_seed: int) -> Indices:
    """`size` distinct indices below n, all if there are fewer."""
    return np.random.default_rng(rng_seed).permutation(n)[:size]


def progen_pick(scores: ArrayLike, labels: ArrayLike, label: int, *, size: int = 8, rng_seed: int) -> Indices:
    """ProGen: a random `size` of the 50 most helpful samples of the label that is to be written next; only
    samples that help (score < 0) count, so fewer or none may come back."""
    values = np.asarray(scores, np.float64)
    mine = np.flatnonzero((np.asarray(labels) == label) & (values < 0))
    best = mine[np.argsort(values[mine], kind="stable")[:PROGEN_POOL]]
    return np.random.default_rng(rng_seed).permutation(best)[:size]


def personalised(
    p: ArrayLike,
    labels: ArrayLike,
    owner: ArrayLike,
    k: int,
    size: int,
    *,
    n_classes: int,
    usefulness: ArrayLike | None = None,
    pool: int = 40,
    rng_seed: int,
) -> Indices:
    """Shots for language model k alone: what it lacks and the others know.

    `p` (K, n) are the probabilities of the labels asked for, `owner` (n,) the model that wrote a sample,
    `usefulness` (n,) is higher for better samples (for instance minus influence; None: the gap itself).
    Samples of k are left out. The gap of a sample is the mean probability of the other K - 1 models minus
    that of m_k; samples whose label all others hold for likelier than chance, 1 / C, while m_k does not, come
    first. Of the `pool` first ones the `size` most useful are taken, the labels in turn.
    """
    values, asked = np.asarray(p, np.float64), np.asarray(labels)
    if len(values) < 2:
        raise ValueError("personalised feedback needs at least two models")
    others = np.delete(values, k, axis=0)
    gap = others.mean(axis=0) - values[k]
    lacking = (others.min(axis=0) > 1 / n_classes) & (values[k] <= 1 / n_classes)
    foreign = np.flatnonzero(np.asarray(owner) != k)
    first = foreign[np.lexsort((-gap[foreign], ~lacking[foreign]))]
    worth = gap if usefulness is None else np.asarray(usefulness, np.float64)
    chosen = _labels_in_turn(_labels_in_turn(first, asked)[:pool], asked, worth)[:size]
    return np.random.default_rng(rng_seed).permutation(chosen)


def _labels_in_turn(order: Indices, labels: NDArray[np.int_], worth: ArrayLike | None = None) -> Indices:
    """`order`, sorted by falling worth if given, with the labels taking turns."""
    if worth is not None:
        order = order[np.argsort(-np.asarray(worth)[order], kind="stable")]
    turns = np.zeros(len(order), int)
    for label in np.unique(labels[order]):
        mine = labels[order] == label
        turns[mine] = np.arange(mine.sum())
    return order[np.argsort(turns, kind="stable")]
