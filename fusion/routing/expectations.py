"""What the stored items around a request say about asking further.

For a request of which the outputs of the experts S are known, the M stored items nearest in those outputs
stand for it: the expected loss of any wider S' is the mean of its stored losses there (FrugalFoE, eq. 4.4).
As stored losses do not depend on prices, one `Expectations` serves every rate, budget and choice of experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fusion.routing.lookup import Lookup
from fusion.routing.losses import Groups, SubsetLosses
from fusion.routing.neighbours import GRID, Floats, Ints, Ties, smallest
from fusion.routing.stored import Stored, Subset


class Expectations:
    """What the stored items say about a chunk of requests, each number computed once.

    Where experts are chosen, `charges` (K,) are the losses that their calls are worth, which an answer adds
    that was not asked for before.
    """

    def __init__(
        self,
        lookup: Lookup,
        losses: SubsetLosses,
        *,
        neighbours: int = 30,
        ties: Ties = "inclusive",
        charges: Floats,
    ) -> None:
        self.lookup, self.losses, self.stored = lookup, losses, lookup.stored
        self.neighbours, self.ties, self.charges = neighbours, ties, charges
        self._expected: dict[tuple[Subset, int], dict[int, Floats]] = {}
        self._scored: dict[Subset, dict[int, Floats]] = {}

    def expect(self, groups: Groups, depths: Sequence[int]) -> list[Floats]:
        """Expected losses (len(rows), 1 + number of additions) of the fusers on whom each group has asked,
        and on those and each addition of up to `depth` experts; infinite where one would be asked twice."""
        groups = {asked: self.lookup.same(asked, rows) for asked, rows in groups.items()}
        ahead = dict(zip(groups, depths, strict=True))
        known = {asked: self._expected.setdefault((asked, depth), {}) for asked, depth in ahead.items()}
        missing = _missing(known, groups)
        if missing:
            near = iter(self.lookup.items(missing, self.neighbours, self.ties))
            for asked, rows in missing.items():
                means = self._means(asked, ahead[asked], [next(near) for _ in rows])
                known[asked].update(zip(rows.tolist(), means, strict=True))
        return [np.array([known[asked][row] for row in rows.tolist()]) for asked, rows in groups.items()]

    def scores(self, groups: Groups) -> tuple[Floats, Floats]:
        """Scores (r, A) of the fusers on the experts that groups have asked, group after group, and mean
        squared distances (r,) to the nearest stored items."""
        groups = {asked: self.lookup.same(asked, rows) for asked, rows in groups.items()}
        known = {asked: self._scored.setdefault(asked, {}) for asked in groups}
        missing = _missing(known, groups)
        if missing:
            scored = iter(self._scores(missing))
            for asked, rows in missing.items():
                known[asked].update((row, next(scored)) for row in rows.tolist())
        found = np.array([known[asked][row] for asked, rows in groups.items() for row in rows.tolist()])
        return found[:, :-1], found[:, -1]

    def _means(self, asked: Subset, depth: int, lists: Sequence[Ints]) -> Floats:
        """Means of losses (len(lists), 1 + number of additions) over lists of stored items."""
        items, sizes = np.concatenate(lists), np.array([len(some) for some in lists])
        plan = additions_to(asked, self.stored.experts, depth)
        bins = len(lists) * np.arange(len(plan.wider))[:, None] + np.repeat(np.arange(len(lists)), sizes)
        tables = self._tables(asked, plan, items)
        sums = np.bincount(bins.ravel(), tables.ravel(), minlength=len(plan.wider) * len(lists))
        found = np.full((len(lists), plan.width), np.inf)
        found[:, plan.at] = (sums.reshape(-1, len(lists)) / np.maximum(sizes, 1)).T
        return found

    def _tables(self, asked: Subset, plan: "Additions", items: Ints) -> Floats:
        """Losses (number of subsets, len(items)) at stored items."""
        found = self.losses.children(asked, plan.single, items)
        deeper = plan.wider[len(plan.single) :]
        if deeper:
            found = np.concatenate([found, *(self.losses.at(subset, items)[None] for subset in deeper)])
        if not self.stored.chooses:
            return np.asarray(found[:, :, 0])
        each = zip(plan.wider, found, strict=True)
        return np.stack([missed(self.stored, subset, table, items, self.charges) for subset, table in each])

    def _scores(self, groups: Groups) -> Floats:
        """Scores and, in the last column, mean distances (r, A + 1)."""
        m = sum(map(len, groups.values()))
        at, items, exact = self.lookup.around(groups, self.neighbours, self.ties)

        def near(count: int, ties: Ties) -> tuple[Ints, Ints]:
            if count > self.neighbours or ties not in ("lowest", self.ties):
                return self.lookup.around(groups, count, ties)[:2]
            kept = smallest(at, items, exact, count, ties, m)
            return at[kept], items[kept]

        count = np.maximum(np.bincount(at, minlength=m), 1)
        distance = np.bincount(at, exact, minlength=m) / count / GRID
        left_out = self.lookup.exclude
        if left_out is not None:
            left_out = left_out[np.concatenate(list(groups.values()))]
        scores = self.losses.scores(groups, near, self.lookup.outputs, left_out)
        return np.column_stack([scores, distance])


def missed(stored: Stored, subset: Subset, table: Floats, items: Ints, charges: Floats) -> Floats:
    """Losses (len(items),) at stored items of the fuser on `subset`, of which (len(items), 1 or K) is known.

    Where experts are chosen: what the choice by predicted quality less charges misses, and its charge.
    """
    if not stored.chooses:
        return table[:, 0]
    extra = charges[: stored.values.shape[1]].copy()
    extra[[expert for expert in subset if expert < len(extra)]] = 0
    chosen = (table - extra).argmax(axis=1)
    values = stored.values[items]
    return np.asarray(values.max(axis=1) - values[np.arange(len(items)), chosen] + extra[chosen])


@dataclass(frozen=True)
class Additions:
    """What may be asked after a subset: `wider` that subset and all that are looked at, `at` their places
    among `width`, `single` the experts of those with one more at most."""

    wider: tuple[Subset, ...]
    single: Subset
    at: Ints
    width: int


@lru_cache(1 << 14)
def additions_to(asked: Subset, experts: int, depth: int) -> Additions:
    """All additions of up to `depth` experts to those asked."""
    added = [tuple(one) for some in additions(experts, depth) for one in some.tolist()]
    new = [(place, one) for place, one in enumerate(added, 1) if not set(one) & set(asked)]
    wider = (asked, *(tuple(sorted((*asked, *one))) for _, one in new))
    single = (asked[-1], *(one[0] for _, one in new if len(one) == 1))
    return Additions(wider, single, np.array([0, *(place for place, _ in new)]), 1 + len(added))


@lru_cache(64)
def additions(experts: int, depth: int) -> tuple[Ints, ...]:
    """Sets (number, size) of 1, 2, ... `depth` experts."""
    return tuple(np.array(list(combinations(range(experts), size))) for size in range(1, depth + 1))


@lru_cache(64)
def members(experts: int, depth: int) -> NDArray[np.bool_]:
    """Who is in which addition (number, K)."""
    added = [one for some in additions(experts, depth) for one in some.tolist()]
    return np.array([[expert in one for expert in range(experts)] for one in added])


def _missing(known: dict[Subset, dict[int, Floats]], groups: Groups) -> Groups:
    """Requests of which nothing is known, each once."""
    new = {
        asked: [r for r in dict.fromkeys(rows.tolist()) if r not in known[asked]]
        for asked, rows in groups.items()
    }
    return {asked: np.array(rows) for asked, rows in new.items() if rows}
