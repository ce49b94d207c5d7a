"""What a chunk of requests has asked and heard, and the stored items nearest to that.

A state is a set of experts with what they said. Requests that have heard the same are in the same state:
experts that name a label and a rounded confidence often repeat themselves, and a request that is walked with
at several rates mostly takes the same way. All requests ask one expert more at a time; the states of a step
replace those of the step before.

Distances to all stored items are bounded from below, and bounds added up expert by expert, by one matrix
product each. What may be among the nearest by its bound is measured in float64, from differences, in whole
billionths: the neighbours are those of an exact search.
"""

from itertools import pairwise

import numpy as np

from fusion.routing.neighbours import (
    GRID,
    GROUP,
    Floats,
    Ints,
    Singles,
    Ties,
    closest,
    distinct,
    group_minima,
    group_size,
    pairs_between,
    row_chunks,
)
from fusion.routing.stored import Stored, Subset, widened

TOGETHER = 1 << 17
"""Bounds that are computed together: what stays next to a core."""

MEASURED = 1 << 23
"""Bounds of which the least are measured together."""
HERE = np.zeros(1, np.intp)
"""The place of one that is alone."""


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
        self._width = -(-len(stored) // GROUP) * GROUP
        self._bounds: Singles = np.empty((0, self._width), np.float32)
        self._used = self._spare = self._bounds
        self._minima: Singles = np.empty((0, self._width // GROUP), np.float32)
        self._lacking = self._doubt = np.zeros(1)
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
        return self.closest(count, ties, states)[:2]

    def closest(self, count: int, ties: Ties, states: Ints | None = None) -> tuple[Ints, Ints, Floats]:
        """The same, and their squared distances in whole billionths."""
        size = group_size(len(self.stored), count)
        found = []
        for part in row_chunks(len(self) if states is None else len(states), self._width, MEASURED):
            some = part if states is None else states[part]
            of = np.arange(len(self))[some]
            bounds = self._bounds[some]
            minima = self._minima[some] if size == GROUP else group_minima(bounds, size)

            def measure(at: Ints, items: Ints, of: Ints = of) -> Floats:
                return self.distances(of[at], items)

            rows, items, exact = closest(
                bounds, minima, self._lacking[some], self._doubt[some], count, ties, measure
            )
            found.append((rows + part.start, items, exact))
        rows, items, exact = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return rows, items, exact

    def distances(self, states: Ints, items: Ints) -> Floats:
        """Squared distances (p,) between states and items, in whole billionths."""
        exact, asked, rows = np.zeros(len(states)), self.asked[states], self.rows[states]
        for expert in np.nonzero(self.asked.any(axis=0))[0].tolist():
            mine = asked[:, expert]
            some = slice(None) if mine.all() else mine.nonzero()[0]
            outputs, block = self._outputs[expert], self.stored.blocks[expert]
            exact[some] += pairs_between(outputs, rows[some], block, items[some])
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
        """Bounds of states that extend others; those of an expert follow one another."""
        first, n = not self.subsets[0], len(self.stored)
        sums, minima = self._room(len(rows)), np.empty((len(rows), self._width // GROUP), np.float32)
        lacking, doubt = self._lacking[parents], self._doubt[parents]
        ends = [*((experts[1:] != experts[:-1]).nonzero()[0] + 1).tolist(), len(rows)]
        for start, end in pairwise([0, *ends]):
            expert = int(experts[start])
            for some in row_chunks(end - start, n, TOGETHER):
                part = slice(start + some.start, start + some.stop)
                bounds, less, unsure = self.stored.bound(expert, self._outputs[expert][rows[part]])
                lacking[part] += less
                doubt[part] += unsure
                if first:
                    sums[part, :n] = bounds
                else:
                    np.add(self._bounds[parents[part], :n], bounds, out=sums[part, :n])
                if first and self.exclude is not None:
                    sums[np.arange(part.start, part.stop), self.exclude[rows[part]]] = np.inf
                minima[part] = group_minima(sums[part], GROUP)
        self._bounds, self._minima, self._lacking, self._doubt = sums, minima, lacking, doubt

    def _room(self, size: int) -> Singles:
        """Room for bounds beside those that are in use; behind the last item they are infinite."""
        self._spare, self._used = self._used, self._spare
        if len(self._used) < size:
            self._used = np.empty((size, self._width), np.float32)
            self._used[:, len(self.stored) :] = np.inf
        return self._used[:size]


class Lone(States):
    """The states of one request that is no stored item and walked with once: one at a time, with nothing to
    be shared or looked up."""

    def __init__(self, stored: Stored) -> None:
        self.stored, self.size, self.exclude = stored, 1, None
        self.subsets = [()]
        self.of = self.rows = HERE
        self._said: dict[int, Floats] = {}
        self._bounds = np.full((1, -(-len(stored) // GROUP) * GROUP), np.inf, np.float32)
        self._lacking = self._doubt = np.zeros(1)

    def lacking(self, expert: int, rows: Ints) -> Ints:
        """The request, where it is not known what an expert says."""
        return rows[: expert not in self._said]

    def tell(self, expert: int, rows: Ints, outputs: Floats) -> None:  # noqa: ARG002
        """What an expert says (1, d_k)."""
        self._said[expert] = np.asarray(outputs, np.float64)

    def outputs(self, states: Ints) -> Floats:  # noqa: ARG002
        """What the experts say (1, d_S)."""
        return np.concatenate([self._said[expert] for expert in self.subsets[0]], axis=1)

    def enter(self, states: Ints, experts: Ints, rows: Ints) -> Ints:  # noqa: ARG002
        """Go on to the state that has heard one more."""
        expert = int(experts[0])
        bounds, lacking, doubt = self.stored.bound(expert, self._said[expert])
        known = self._bounds[:, : len(self.stored)]
        known[:] = known + bounds if self.subsets[0] else bounds
        self._minima = group_minima(self._bounds, GROUP)
        self._lacking, self._doubt = self._lacking + lacking, self._doubt + doubt
        self.subsets = [widened(self.subsets[0], (expert,))[0]]
        return HERE

    def closest(self, count: int, ties: Ties, states: Ints | None = None) -> tuple[Ints, Ints, Floats]:  # noqa: ARG002
        """The `count` nearest items, and their squared distances in whole billionths."""
        size = group_size(len(self.stored), count)
        minima = self._minima if size == GROUP else group_minima(self._bounds, size)
        return closest(self._bounds, minima, self._lacking, self._doubt, count, ties, self.distances)

    def distances(self, states: Ints, items: Ints) -> Floats:  # noqa: ARG002
        """Squared distances (p,) to items, in whole billionths."""
        exact = np.zeros(len(items))
        for expert in self.subsets[0]:
            gap = self.stored.blocks[expert][items]
            gap -= self._said[expert]
            exact += np.rint(np.einsum("ij,ij->i", gap, gap) * GRID)
        return exact
