"""What a chunk of requests has asked and heard, and the stored items nearest to that.

A state is a set of experts with what they said. Requests that have heard the same are in the same state:
experts that name a label and a rounded confidence often repeat themselves, and a request that is walked with
at several rates mostly takes the same way. All requests ask one expert more at a time; the states of a step
replace those of the step before.

Distances to all stored items are computed in float32 and added up expert by expert, by one matrix product
each. What rounding errors may have kept from being among the nearest is measured again in float64, from
differences, in whole billionths: the neighbours are those of an exact search.
"""

from itertools import pairwise

import numpy as np

from fusion.routing.neighbours import (
    GRID,
    Floats,
    Ints,
    Singles,
    Ties,
    distinct,
    members,
    pair_distances,
    row_chunks,
)
from fusion.routing.stored import Stored, Subset, widened


class States:
    """States of m requests; at first there is one, in which nobody has been asked.

    `subsets` are the sets of experts that states have asked, `of` (s,) which of them each has, `rows` (s,) a
    request that is in it, `asked` (s, K) the same as marks. `exclude` (m,) names the stored item that a
    request is, if it is one.
    """

    def __init__(self, stored: Stored, size: int, exclude: Ints | None = None) -> None:
        self.stored, self.size, self.exclude = stored, size, exclude
        self.subsets: list[Subset] = [()]
        self.of = self.rows = np.zeros(1, np.intp)
        self.asked = np.zeros((1, stored.experts), bool)
        self._shared = np.ones(1, bool)
        self._sums: Singles = np.empty((0, len(stored)), np.float32)
        self._used = self._spare = self._sums
        self._slack = self._reach = np.zeros(1)
        self._outputs: list[Floats] = [np.empty((size, block.shape[1])) for block in stored.blocks]
        self._known = np.zeros((size, stored.experts), bool)
        self._kinds = np.full((size, stored.experts), -1)
        self._numbers: list[dict[bytes, int]] = [{} for _ in stored.blocks]

    def __len__(self) -> int:
        return len(self.rows)

    def lacking(self, expert: int, rows: Ints) -> Ints:
        """Those of some requests of which it is not known what an expert says, in order."""
        new = rows[~self._known[rows, expert]]
        return np.asarray(new[distinct(new)[0]])

    def tell(self, expert: int, rows: Ints, outputs: Floats) -> None:
        """What an expert says (len(rows), d_k) about requests."""
        outputs = np.asarray(outputs, np.float64)
        self._outputs[expert][rows] = outputs
        self._known[rows, expert] = True
        if self.exclude is None and self.stored.kinds[expert] is not None:
            numbers = self._numbers[expert]
            self._kinds[rows, expert] = [numbers.setdefault(o.tobytes(), len(numbers)) for o in outputs]

    def outputs(self, states: Ints) -> Floats:
        """What the experts of states say (len(states), d_S), which all have asked the same."""
        subset = self.subsets[self.of[states[0]]]
        return np.concatenate([self._outputs[expert][self.rows[states]] for expert in subset], axis=1)

    def enter(self, states: Ints, experts: Ints, rows: Ints) -> Ints:
        """Go on to the states (w,) of requests `rows` that were in `states` and have heard one of `experts`
        each; states that nobody is in any more are gone."""
        wider, of = self._wider(states, experts)
        kinds = self._kinds[rows, experts]
        shared = self._shared[states] & (kinds >= 0)
        known = len(self) * self.size
        keys = of * (known + self.size) + np.where(shared, states * self.size + kinds, known + rows)
        first, place = distinct(keys)
        order = np.argsort(experts[first], kind="stable")
        first = first[order]
        self._sum_up(states[first], experts[first], rows[first])
        self.asked = self.asked[states[first]]
        self.asked[np.arange(len(first)), experts[first]] = True
        self.subsets, self.of, self.rows, self._shared = wider, of[first], rows[first], shared[first]
        new = np.empty(len(order), np.intp)
        new[order] = np.arange(len(order))
        return np.asarray(new[place])

    def near(self, count: int, ties: Ties, states: Ints | None = None) -> tuple[Ints, Ints]:
        """Places of states (None: all), in order, and their `count` nearest items."""
        states = np.arange(len(self)) if states is None else states
        rows, items = [], []
        for part in row_chunks(len(states), len(self.stored)):
            some = states[part]

            def measure(at: Ints, items: Ints, some: Ints = some) -> Floats:
                return self.distances(some[at], items)

            found = members(self._sums[_slice(some)], 2 * self._slack[some], count, ties, measure)
            rows.append(found[0] + part.start)
            items.append(found[1])
        return np.concatenate(rows), np.concatenate(items)

    def distances(self, states: Ints, items: Ints) -> Floats:
        """Squared distances (p,) between states and items, in whole billionths."""
        exact, asked = np.zeros(len(states)), self.asked[states]
        for expert in np.flatnonzero(self.asked.any(axis=0)).tolist():
            some = np.flatnonzero(asked[:, expert])
            outputs, block = self._outputs[expert], self.stored.blocks[expert]
            exact[some] += pair_distances(outputs[self.rows[states[some]]], block[items[some]])
        return exact

    def _wider(self, states: Ints, experts: Ints) -> tuple[list[Subset], Ints]:
        """The sets of experts with one more each, and which of them (w,) it is."""
        first, place = distinct(self.of[states] * self.stored.experts + experts)
        pairs = zip(self.of[states[first]].tolist(), experts[first].tolist(), strict=True)
        numbers: dict[Subset, int] = {}
        wider = [
            numbers.setdefault(widened(self.subsets[old], (expert,))[0], len(numbers))
            for old, expert in pairs
        ]
        return list(numbers), np.array(wider)[place]

    def _sum_up(self, parents: Ints, experts: Ints, rows: Ints) -> None:
        """Rough distances of states that extend others; those of an expert follow one another."""
        first = not self.subsets[0]
        sums = self._room(len(rows))
        reach, slack = self._reach[parents], self._slack[parents]
        if not first:
            np.take(self._sums, parents, axis=0, out=sums, mode="clip")
        ends = [*(np.flatnonzero(np.diff(experts)) + 1).tolist(), len(rows)]
        for start, end in pairwise([0, *ends]):
            part, expert = slice(start, end), int(experts[start])
            outputs = self._outputs[expert][rows[part]]
            reach[part] += self.stored.add_rough(expert, outputs, sums[part], first=first)
            slack[part] += self.stored.rounding(expert) * reach[part] + 1 / GRID
        if first and self.exclude is not None:
            sums[np.arange(len(rows)), self.exclude[rows]] = np.inf
        self._sums, self._reach, self._slack = sums, reach, slack

    def _room(self, size: int) -> Singles:
        """Room for sums beside those that are in use."""
        self._spare, self._used = self._used, self._spare
        if len(self._used) < size:
            self._used = np.empty((size, len(self.stored)), np.float32)
        return self._used[:size]


def _slice(states: Ints) -> Ints | slice:
    """States that follow one another as a slice, which need not be copied."""
    follow = len(states) > 0 and bool((np.diff(states) == 1).all())
    return slice(int(states[0]), int(states[-1]) + 1) if follow else states
