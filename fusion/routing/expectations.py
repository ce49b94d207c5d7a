"""What the stored items around a request say about asking further.

For a request of which the outputs of the experts S are known, the M stored items nearest in those outputs
stand for it: the expected loss of any wider S' is the mean of its stored losses there (FrugalFoE, eq. 4.4).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fusion.routing.losses import Plan, SubsetLosses
from fusion.routing.neighbours import GRID, Floats, Ints, Singles, Ties, smallest
from fusion.routing.states import States
from fusion.routing.stored import Subset

READ = 1 << 22
"""Stored losses that are looked at together."""


class Expectations:
    """What the stored items say about the present states of requests; `update` when those have changed.

    Where experts are chosen, a call of expert k is worth a loss of rate x `prices[k]`, which an answer adds
    that was not asked for before.
    """

    def __init__(
        self, states: States, losses: SubsetLosses, prices: Floats, *, neighbours: int, ties: Ties
    ) -> None:
        self.states, self.losses, self.stored = states, losses, states.stored
        self.prices, self.neighbours, self.ties = prices, neighbours, ties

    def update(self) -> None:
        """Find the items nearest to the present states."""
        self._at, self._items, self._exact = self.states.closest(self.neighbours, self.ties)
        self._sizes = np.bincount(self._at, minlength=len(self.states))

    def expect(self, of: Ints, rates: Floats, depth: int) -> Floats:
        """Expected losses (w, 1 + number of additions) for walks in states `of` (w,) at `rates` (w,): of the
        fusers on whom they have asked, and on those and each addition of up to `depth` experts; infinite
        where one would be asked twice."""
        plans = [additions_to(subset, self.stored.experts, depth) for subset in self.states.subsets]
        means = self._regrets(plans, of, rates) if self.stored.chooses else self._losses(plans)[of]
        found = np.full((len(of), plans[0].width), np.inf)
        places = np.array([plan.at for plan in plans])[self.states.of[of]]
        found[np.arange(len(of))[:, None], places] = means
        return found

    def scores(self, chosen: Ints) -> tuple[Floats, Floats]:
        """Scores (len(chosen), A) of the fusers in some states, in order, and mean squared distances
        (len(chosen),) to the nearest stored items."""
        m = len(chosen)
        place = np.full(len(self.states), -1)
        place[chosen] = np.arange(m)
        mine = place[self._at] >= 0
        at, items, exact = place[self._at[mine]], self._items[mine], self._exact[mine]

        def near(count: int, ties: Ties) -> tuple[Ints, Ints]:
            if count > self.neighbours or ties not in ("lowest", self.ties):
                return self.states.near(count, ties, chosen)
            kept = smallest(at, items, exact, count, ties, m)
            return at[kept], items[kept]

        distance = np.bincount(at, exact, minlength=m) / np.maximum(self._sizes[chosen], 1) / GRID
        return self.losses.scores(self.states, chosen, near), distance

    def _losses(self, plans: Sequence["Additions"]) -> Floats:
        """Mean losses (s, w) of all states, for the subsets of their plans."""
        return np.concatenate([self._mean(read[:, :, 0], part) for part, _, read in self._read(plans)])

    def _regrets(self, plans: Sequence["Additions"], of: Ints, rates: Floats) -> Floats:
        """Mean losses (w, w') of choices by predicted quality less price, for walks in states `of`."""
        levels, level = np.unique(rates, return_inverse=True)
        walked = np.zeros((len(levels), len(self.states)), bool)
        walked[level, of] = True
        answers = self.stored.values.shape[1]
        unpaid = np.array([[np.isin(range(answers), s, invert=True) for s in plan.wider] for plan in plans])
        found = np.empty((*walked.shape, len(plans[0].wider)))
        for part, near, read in self._read(plans):
            values = self.stored.values[self._items[near]]
            for number in np.flatnonzero(walked[:, part].any(axis=1)).tolist():
                charges = (unpaid * (levels[number] * self.prices[:answers]))[self.states.of[self._at[near]]]
                found[number, part] = self._mean(missed(values, read, charges), part)
        return found[level, of]

    def _read(self, plans: Sequence["Additions"]) -> Iterator[tuple[slice, slice, Singles]]:
        """Some of the states, where their neighbours are, and what is known (p, w, 1 or K) at those."""
        wider: list[Plan] = [plan.wider for plan in plans]
        answers = self.stored.values.shape[1] if self.stored.chooses else 1
        ends = np.concatenate([[0], np.cumsum(self._sizes)])
        start = 0
        while start < len(self._sizes):
            room = ends[start] + READ // (len(wider[0]) * answers)
            stop = max(start + 1, int(np.searchsorted(ends, room, side="right")) - 1)
            near = slice(int(ends[start]), int(ends[stop]))
            which = self.states.of[self._at[near]]
            yield slice(start, stop), near, self.losses.among(wider, which, self._items[near])
            start = stop

    def _mean(self, values: NDArray[np.floating], part: slice) -> Floats:
        """Means (s', w) of values (p, w) over the neighbours of some states; 0 where there are none."""
        sizes = self._sizes[part]
        found = np.zeros((len(sizes), values.shape[1]))
        starts = (np.cumsum(sizes) - sizes)[sizes > 0]
        if len(starts):
            sums = np.add.reduceat(values, starts, axis=0, dtype=np.float64)
            found[sizes > 0] = sums / sizes[sizes > 0, None]
        return found


def missed(values: Floats, predicted: NDArray[np.floating], charges: Floats) -> Floats:
    """What choices by `predicted` quality (p, w, K) less charges (p, w, K) lose at items of which `values`
    (p, K) are the qualities: what a better one would be worth, and the charge."""
    chosen = (predicted - charges).argmax(axis=2)
    extra = np.take_along_axis(charges, chosen[:, :, None], axis=2)[:, :, 0]
    return np.asarray(values.max(axis=1)[:, None] - np.take_along_axis(values, chosen, axis=1) + extra)


@dataclass(frozen=True)
class Additions:
    """What may be asked after a subset: `wider` that subset and all that are looked at, and `at` their places
    among `width`."""

    wider: Plan
    at: Ints
    width: int


@lru_cache(1 << 14)
def additions_to(asked: Subset, experts: int, depth: int) -> Additions:
    """All additions of up to `depth` experts to those asked."""
    added = [tuple(one) for some in additions(experts, depth) for one in some.tolist()]
    new = [(place, one) for place, one in enumerate(added, 1) if not set(one) & set(asked)]
    wider = (asked, *(tuple(sorted((*asked, *one))) for _, one in new))
    return Additions(wider, np.array([0, *(place for place, _ in new)]), 1 + len(added))


@lru_cache(64)
def additions(experts: int, depth: int) -> tuple[Ints, ...]:
    """Sets (number, size) of 1, 2, ... `depth` experts."""
    return tuple(np.array(list(combinations(range(experts), size))) for size in range(1, depth + 1))


@lru_cache(64)
def members(experts: int, depth: int) -> NDArray[np.bool_]:
    """Who is in which addition (number, K)."""
    added = [one for some in additions(experts, depth) for one in some.tolist()]
    return np.array([[expert in one for expert in range(experts)] for one in added])
