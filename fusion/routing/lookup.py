"""The stored items nearest to a chunk of requests, in the outputs of whichever experts they have asked.

Distances to all stored items are computed in float32 by one matrix product per expert, and added up for each
request as it asks. What rounding errors may have kept from being among the nearest is measured again in
float64, from differences, in whole billionths: the neighbours are those of an exact search.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fusion.routing.neighbours import Floats, Ints, Ties, members, pair_distances, row_chunks
from fusion.routing.stored import Stored, Subset


class Lookup:
    """Outputs of m requests as they come in, and their neighbours among the stored items.

    `ask(expert, rows)` gives outputs (len(rows), d_k) of an expert for requests; it is called once for each
    request and expert. `exclude` (m,) names the stored item that a request is, if it is one.
    """

    def __init__(
        self, stored: Stored, ask: Callable[[int, Ints], Floats], size: int, exclude: Ints | None = None
    ) -> None:
        self.stored, self.ask, self.size, self.exclude = stored, ask, size, exclude
        self._outputs: dict[int, Floats] = {}
        self._known = np.zeros((size, stored.experts), bool)
        self._kinds = np.full((size, stored.experts), -1)
        self._numbers: list[dict[bytes, int]] = [{} for _ in stored.blocks]
        self._first: dict[tuple[Subset, Subset], int] = {}
        self._sums = np.zeros((size, len(stored)), np.float32)
        self._slack = np.zeros(size)
        self._added = np.zeros((size, stored.experts), bool)
        self._near: dict[tuple[Subset, int, Ties], dict[int, Ints]] = {}

    def observe(self, expert: int, rows: Ints) -> None:
        """Ask an expert about those of the requests that it was not asked about before."""
        if expert not in self._outputs:
            self._outputs[expert] = np.empty((self.size, self.stored.blocks[expert].shape[1]))
        new = rows[~self._known[rows, expert]]
        if len(new):
            outputs = np.asarray(self.ask(expert, new), np.float64)
            self._outputs[expert][new] = outputs
            self._known[new, expert] = True
            if self.exclude is None and self.stored.kinds[expert] is not None:
                numbers = self._numbers[expert]
                self._kinds[new, expert] = [numbers.setdefault(o.tobytes(), len(numbers)) for o in outputs]

    def outputs(self, subset: Subset, rows: Ints) -> Floats:
        """Outputs (len(rows), d_S) side by side."""
        return np.concatenate([self._outputs[expert][rows] for expert in subset], axis=1)

    def same(self, subset: Subset, rows: Ints) -> Ints:
        """For each of the requests the first that was looked for with the same outputs of `subset`, if its
        experts often repeat them, or else itself."""
        if self.exclude is not None or any(self.stored.kinds[expert] is None for expert in subset):
            return rows
        kinds = map(tuple, self._kinds[rows[:, None], subset].tolist())
        pairs = zip(kinds, rows.tolist(), strict=True)
        return np.array([self._first.setdefault((subset, kind), row) for kind, row in pairs], np.intp)

    def near(self, subset: Subset, rows: Ints, count: int, ties: Ties) -> csr_array:
        """Squared distances, in whole billionths, at the `count` nearest items of requests."""
        at, items, exact = self.around({subset: rows}, count, ties)
        ends = np.concatenate([[0], np.cumsum(np.bincount(at, minlength=len(rows)))])
        return csr_array((exact, items, ends), shape=(len(rows), len(self.stored)))

    def around(self, groups: dict[Subset, Ints], count: int, ties: Ties) -> tuple[Ints, Ints, Floats]:
        """Places of requests, group after group, in order, their `count` nearest items, and the squared
        distances of those in whole billionths."""
        lists = self.items(groups, count, ties)
        at = np.repeat(np.arange(len(lists)), list(map(len, lists)))
        items = np.concatenate(lists)
        rows, asked = self._flat(groups)
        return at, items, self._measure(rows, asked, at, items)

    def items(self, groups: dict[Subset, Ints], count: int, ties: Ties) -> list[Ints]:
        """The `count` nearest items, in order, of requests, group after group."""
        known = [self._near.setdefault((subset, count, ties), {}) for subset in groups]
        missing = {
            subset: np.array([row for row in dict.fromkeys(rows.tolist()) if row not in found], np.intp)
            for found, (subset, rows) in zip(known, groups.items(), strict=True)
        }
        self._find(missing, count, ties)
        return [
            found[row] for found, rows in zip(known, groups.values(), strict=True) for row in rows.tolist()
        ]

    def _find(self, groups: dict[Subset, Ints], count: int, ties: Ties) -> None:
        rows, asked = self._flat(groups)
        if len(set(rows.tolist())) < len(rows):
            for subset, some in groups.items():
                self._find({subset: some}, count, ties)
            return
        self._sum_up(rows, asked)
        keep = [self._near[subset, count, ties] for subset, some in groups.items() for _ in some]
        for part in row_chunks(len(rows), len(self.stored)):
            some, marks = rows[part], asked[part]
            rough = self._sums[_slice(some)]

            def measure(at: Ints, items: Ints, some: Ints = some, marks: NDArray[np.bool_] = marks) -> Floats:
                return self._measure(some, marks, at, items)

            at, items = members(rough, 2 * self._slack[some], count, ties, measure)
            ends = np.searchsorted(at, np.arange(len(some) + 1)).tolist()
            for place, row in enumerate(some.tolist()):
                keep[part.start + place][row] = items[ends[place] : ends[place + 1]].copy()

    def _flat(self, groups: dict[Subset, Ints]) -> tuple[Ints, NDArray[np.bool_]]:
        """Requests (r,) of all groups, and whom they have asked (r, K)."""
        rows = np.concatenate(list(groups.values()))
        asked = np.zeros((len(rows), self.stored.experts), bool)
        start = 0
        for subset, some in groups.items():
            asked[start : start + len(some), list(subset)] = True
            start += len(some)
        return rows, asked

    def _sum_up(self, rows: Ints, asked: NDArray[np.bool_]) -> None:
        """See to it that the sums of requests are over those whom they have asked."""
        stale = rows[(self._added[rows] & ~asked).any(axis=1)]
        self._added[stale], self._sums[stale], self._slack[stale] = False, 0, 0
        missing = asked & ~self._added[rows]
        for expert in np.flatnonzero(missing.any(axis=0)).tolist():
            new = rows[missing[:, expert]]
            near, slack = self.stored.rough(expert, self._outputs[expert][new])
            if self.exclude is not None:
                near[np.arange(len(new)), self.exclude[new]] = np.inf
            self._sums[_slice(new)] += near
            self._slack[new] += slack
        self._added[rows] = asked

    def _measure(self, rows: Ints, asked: NDArray[np.bool_], at: Ints, items: Ints) -> Floats:
        """Exact distances between requests at places of `rows` and items."""
        exact = np.zeros(len(at))
        for expert in np.flatnonzero(asked.any(axis=0)).tolist():
            some = np.flatnonzero(asked[at, expert])
            outputs, block = self._outputs[expert], self.stored.blocks[expert]
            exact[some] += pair_distances(outputs[rows[at[some]]], block[items[some]])
        return exact


def _slice(rows: Ints) -> Ints | slice:
    """Rows that follow one another as a slice, which need not be copied."""
    follow = len(rows) > 0 and bool((np.diff(rows) == 1).all())
    return slice(int(rows[0]), int(rows[-1]) + 1) if follow else rows
