"""What fusers on every subset of experts make of the stored items: what a policy looks up.

An answer is worth something on every item: 1 for the right label and 0 for another, or the quality of the
response of the expert that is chosen. A fuser on the outputs of a subset S scores the answers; for labels its
loss at stored item i is kept (`T_S[i]`), for experts the quality that it predicts of each, as the choice
depends on prices too. The expected loss of any S at a new request is then a mean over a few stored items
(FrugalFoE, eq. 4.4), so no expert is called to find out whether calling it would help.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Literal, Protocol

import numpy as np

from fusion.routing.neighbours import Floats, Ints, Singles, Ties, members, pair_distances, row_chunks
from fusion.routing.states import States
from fusion.routing.stored import Stored, Subset
from fusion.routing.tables import Tables

Loss = Literal["zero_one", "soft"]
Near = Callable[[int, Ties], tuple[Ints, Ints]]
"""Places, in order, and so many nearest stored items of each of some states."""
Plan = tuple[Subset, ...]
"""Subsets that are looked at together; the first is part of all others."""
MEMORY = 1 << 28
"""Bytes of tables that are kept besides those that were built ahead."""
Rough = tuple[Singles, Floats]
"""Rough distances (m, n), and how far off they may be (m,)."""


def losses(scores: Floats, values: Floats, kind: Loss) -> Floats:
    """Losses (m,) of labels scored (m, C) where right ones are marked by 1 in values (m, C).

    `zero_one`: whether the label with the highest score, the first of equals, is wrong. `soft`: the share of
    the scores that wrong labels have.
    """
    if kind == "zero_one":
        return np.asarray(1 - values[np.arange(len(values)), scores.argmax(axis=1)])
    total = scores.sum(axis=1)
    return np.asarray(1 - np.einsum("ij,ij->i", scores, values) / np.where(total > 0, total, 1))


class SubsetLosses(Protocol):
    """The fusers of all subsets of experts, through what a policy asks of them."""

    def at(self, subset: Subset, rows: Ints) -> Floats:
        """Losses (len(rows), 1) of the fuser on `subset` at stored items, or qualities (len(rows), K) that it
        predicts."""

    def among(self, plans: Sequence[Plan], which: Ints, items: Ints) -> Singles:
        """The same (p, w, 1 or K) at stored items (p,), each for all w subsets of one of the plans."""

    def scores(self, states: States, chosen: Ints, near: Near) -> Floats:
        """Scores (len(chosen), A) of the fusers on what `chosen` states have heard, whose `count` nearest
        items are `near(count, ties)`."""


class KnnLosses:
    """Losses of nearest-neighbour fusers, kept once computed; needs no training, so any subset will do.

    `leave_one_out` keeps a stored item out of its own neighbourhood. Rows that were never asked for are not
    computed; `build` computes whole tables, and `add` takes over those that others built. Of other tables
    those begun last are kept, `memory` bytes at most.
    """

    def __init__(
        self,
        stored: Stored,
        *,
        neighbours: int = 9,
        loss: Loss = "soft",
        leave_one_out: bool = True,
        ties: Ties = "inclusive",
        memory: int = MEMORY,
    ) -> None:
        self.stored, self.neighbours, self.loss = stored, neighbours, loss
        self.leave_one_out, self.ties = leave_one_out, ties
        self._tables = Tables(len(stored), stored.values.shape[1] if stored.chooses else 1, memory)
        self._first: dict[Subset, Ints] = {}
        self._itself = np.arange(len(stored))

    def at(self, subset: Subset, rows: Ints) -> Floats:
        """What is known (len(rows), 1 or K) of the fuser on `subset` at stored items `rows`."""
        return self.among([(subset,)], np.zeros(len(rows), np.intp), rows)[:, 0].astype(np.float64)

    def among(self, plans: Sequence[Plan], which: Ints, items: Ints) -> Singles:
        """The same (p, w, 1 or K) at stored items (p,), each for all w subsets of one of the plans."""
        found = self._tables.read(plans, which, items)
        unknown = np.isnan(found[:, :, 0])
        if unknown.any():
            for number in np.unique(which[unknown.any(axis=1)]).tolist():
                mine = which == number
                self._fill(plans[number], [np.unique(items[mine][new]) for new in unknown[mine].T])
            found = self._tables.read(plans, which, items)
        self._tables.forget()
        return found

    def scores(self, states: States, chosen: Ints, near: Near) -> Floats:  # noqa: ARG002
        """Mean worth (len(chosen), A) of each answer among the nearest stored items of states."""
        rows, items = near(self.neighbours, self.ties)
        count = np.bincount(rows, minlength=len(chosen))
        return np.asarray(self.stored.sums(rows, items, len(chosen)) / np.maximum(count, 1)[:, None])

    def build(self, subsets: Sequence[Subset], rows: Ints) -> Singles:
        """Parts of tables (len(subsets), len(rows), 1 or K); sorted subsets are fastest, as each takes the
        sums of the one that it extends."""
        found = np.empty((len(subsets), len(rows), self._tables.data.shape[2]), np.float32)
        for part in row_chunks(len(rows), len(self.stored)):
            between = self._between(rows[part])
            sums: list[tuple[Subset, Rough]] = []
            for number, subset in enumerate(subsets):
                while sums and sums[-1][0] != subset[: len(sums[-1][0])]:
                    sums.pop()
                for expert in subset[len(sums) :]:
                    more = between(expert)
                    sums.append((subset[: len(sums) + 1], _sum(sums[-1][1], more) if sums else more))
                found[number, part] = self._judge(subset, rows[part], sums[-1][1])
        return found

    def add(self, subset: Subset, table: Singles) -> None:
        """Take over a whole table (n, 1 or K)."""
        self._tables.add(subset, table)

    def complete(self) -> dict[Subset, Singles]:
        """Tables (n, 1 or K) that were added whole."""
        return self._tables.added()

    def _fill(self, plan: Plan, missing: Sequence[Ints]) -> None:
        """Compute the tables of a plan where they are `missing`."""
        subset, places = plan[0], self._tables.places(plan)
        firsts = [self._alike(child)[rows] for child, rows in zip(plan, missing, strict=True)]
        needed = np.unique(np.concatenate(firsts))
        for part in row_chunks(len(needed), len(self.stored)):
            chunk = needed[part]
            between = self._between(chunk)
            base = reduce(_sum, map(between, subset))
            for child, place, first, rows in zip(plan, places, firsts, missing, strict=True):
                here = np.flatnonzero((first >= chunk[0]) & (first <= chunk[-1]))
                if len(here):
                    own, at = np.unique(first[here], return_inverse=True)
                    near, slack = reduce(_sum, (between(e) for e in child if e not in subset), base)
                    if len(own) < len(chunk):
                        some = np.searchsorted(chunk, own)
                        near, slack = near[some], slack[some]
                    lost = self._judge(child, own, (near, slack), rows[here], at)
                    self._tables.data[place, rows[here]] = lost

    def _judge(
        self, subset: Subset, rows: Ints, rough: Rough, alike: Ints | None = None, place: Ints | None = None
    ) -> Floats:
        """What is kept (len(rows), 1 or K) of the fuser on `subset` at stored items, or at those `alike`, of
        which each has the outputs of the one at its `place` in `rows`."""

        def measure(at: Ints, items: Ints) -> Floats:
            blocks, own = self.stored.blocks, rows[at]
            pairs = [pair_distances(blocks[e][own], blocks[e][items]) for e in subset]
            return np.asarray(np.sum(pairs, axis=0))

        values, (near, slack) = self.stored.values, rough
        at, items = members(near, 2 * slack, self.neighbours, self.ties, measure)
        scores = self.stored.sums(at, items, len(rows))
        count = np.bincount(at, minlength=len(rows))
        if alike is None or place is None:
            alike = rows
        else:
            scores, count = scores[place], count[place]
            if self.leave_one_out:
                scores += values[rows[place]] - values[alike]
        if self.stored.chooses:
            return np.asarray(scores / np.maximum(count, 1)[:, None])
        return losses(scores, values[alike], self.loss)[:, None]

    def _alike(self, subset: Subset) -> Ints:
        """For each stored item the first (n,) that has the same outputs, if those are often the same."""
        if self.ties == "lowest" or any(self.stored.kinds[expert] is None for expert in subset):
            return self._itself
        if not subset:
            return np.zeros_like(self._itself)
        if subset not in self._first:
            fewer, kinds = self._alike(subset[:-1]), self.stored.kinds[subset[-1]]
            if kinds is not None and fewer is not self._itself:
                _, first, place = np.unique(
                    fewer * len(self.stored) + kinds, return_index=True, return_inverse=True
                )
                fewer = self._itself if len(first) == len(place) else first[place]
            self._first[subset] = fewer
        return self._first[subset]

    def _between(self, rows: Ints) -> Callable[[int], Rough]:
        """Rough distances of stored items `rows` to all, by expert, each computed when first asked for."""
        known = dict[int, Rough]()

        def between(expert: int) -> Rough:
            if expert not in known:
                near, slack = self.stored.rough(expert, self.stored.blocks[expert][rows])
                if self.leave_one_out:
                    near[np.arange(len(rows)), rows] = np.inf
                known[expert] = near, slack
            return known[expert]

        return between


def _sum(base: Rough, more: Rough) -> Rough:
    return base[0] + more[0], base[1] + more[1]
