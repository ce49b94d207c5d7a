"""What a fuser has to beat: rules without training, one expert for all, and the bounds that no rule can pass.

Experts give probability vectors; `outputs` is (K, n, C), `correct` (K, n) says who is right.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from fusion.routing.neighbours import Floats, Ints

Bools = NDArray[np.bool_]


def ensemble(outputs: Floats) -> Ints:
    """Labels (n,) with the highest mean probability."""
    return np.asarray(outputs.mean(axis=0).argmax(axis=1))


def max_softmax(outputs: Floats) -> Ints:
    """Labels (n,) of the expert that is surest of its own."""
    surest = outputs.max(axis=2).argmax(axis=0)
    return np.asarray(outputs[surest, np.arange(outputs.shape[1])].argmax(axis=1))


def majority(outputs: Floats) -> Ints:
    """Labels (n,) that most experts give; equal numbers go to the lowest class."""
    return np.asarray(_votes(outputs, weighted=False).argmax(axis=1))


def weighted_vote(outputs: Floats) -> Ints:
    """Labels (n,) with the largest sum of confidences of the experts that give them."""
    return np.asarray(_votes(outputs, weighted=True).argmax(axis=1))


def _votes(outputs: Floats, *, weighted: bool) -> Floats:
    k, n, c = outputs.shape
    votes = np.zeros((n, c))
    for expert in range(k):
        label = outputs[expert].argmax(axis=1)
        votes[np.arange(n), label] += outputs[expert].max(axis=1) if weighted else 1
    return votes


def single_best(quality: Floats) -> int:
    """The expert with the highest mean quality (K, n); the first of equals."""
    return int(quality.mean(axis=1).argmax())


def any_correct(correct: Bools) -> float:
    """The share of items that at least one expert gets right."""
    return float(correct.any(axis=0).mean())


def domain_oracle(correct: Bools, competent: Bools) -> float:
    """Mean accuracy (correct (K, n)) over the experts whose training covers an item (competent (K, n)); items
    that nobody covers count as wrong."""
    covered = competent.sum(axis=0)
    share = (correct & competent).sum(axis=0) / np.maximum(covered, 1)
    return float(share.mean())


def selection_accuracy(chosen: Ints, competent: Bools) -> float:
    """How often the chosen expert (n,) is one whose training covers the item."""
    return float(competent[chosen, np.arange(len(chosen))].mean())


def random_subsets(experts: int, size: int, draws: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Different subsets of a size, all of them when there are no more than `draws`."""
    if comb(experts, size) <= draws:
        yield from combinations(range(experts), size)
        return
    rng = np.random.default_rng(seed)
    seen: set[tuple[int, ...]] = set()
    while len(seen) < draws:
        subset = tuple(sorted(int(e) for e in rng.permutation(experts)[:size]))
        if subset not in seen:
            seen.add(subset)
            yield subset


def shortlist(quality: Floats, prices: Floats, rates: Sequence[float], size: int) -> list[int]:
    """The experts (at most `size`, ascending) that together would serve an oracle best: greedily the one that
    adds most to the best quality (K, n) less rate x price (K,), summed over the rates."""
    worth = np.stack([quality - rate * prices[:, None] for rate in rates])
    best = np.full(worth.shape[::2], -np.inf)
    chosen: list[int] = []
    while len(chosen) < min(size, len(prices)):
        gains = np.maximum(worth, best[:, None]).sum(axis=(0, 2))
        gains[chosen] = -np.inf
        chosen.append(int(gains.argmax()))
        best = np.maximum(best, worth[:, chosen[-1]])
    return sorted(chosen)


def forward_selection(experts: int, loss: Callable[[tuple[int, ...]], float]) -> Iterator[tuple[int, float]]:
    """The best fixed order: each next expert with the loss of the subset that it completes, lowest first."""
    asked: tuple[int, ...] = ()
    while len(asked) < experts:
        found = [(loss(tuple(sorted((*asked, e)))), e) for e in range(experts) if e not in asked]
        best, expert = min(found)
        asked = tuple(sorted((*asked, expert)))
        yield expert, best
