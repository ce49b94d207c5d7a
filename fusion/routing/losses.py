"""What fusers on every subset of experts make of the stored items: what a policy looks up.

An answer is worth something on every item: 1 for the right label and 0 for another, or the quality of the
response of the expert that is chosen. A fuser on the outputs of a subset S scores the answers; for labels its
loss at stored item i is kept (`T_S[i]`), for experts the quality that it predicts of each, as the choice
depends on prices too. The expected loss of any S at a new request is then a mean over a few stored items
(FrugalFoE, eq. 4.4), so no expert is called to find out whether calling it would help.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from fusion.routing.neighbours import Floats, Ints, Singles, Ties, members, pair_distances, row_chunks
from fusion.routing.stored import Stored, Subset
from fusion.routing.tables import Tables

Loss = Literal["zero_one", "soft"]
Near = Callable[[int, Ties], tuple[Ints, Ints]]
"""Rows, in order, and columns of so many nearest stored items of each of m requests."""
Groups = dict[Subset, Ints]
"""Requests that have asked the same experts."""
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

    def children(self, subset: Subset, experts: Sequence[int], rows: Ints) -> Floats:
        """The same (len(experts), len(rows), 1 or K) with one expert more, for each of `experts`; one that is
        in the subset adds nothing."""

    def scores(
        self, groups: Groups, near: Near, outputs: Callable[[Subset, Ints], Floats], exclude: Ints | None
    ) -> Floats:
        """Scores (m, A), group after group, of the fusers on the experts that requests have asked. The
        `count` nearest items of all are `near(count, ties)`, the outputs of some (len(rows), d_S)
        `outputs(subset, rows)`; `exclude` are the stored items that the requests are, if so."""


class KnnLosses:
    """Losses of nearest-neighbour fusers, kept once computed; needs no training, so any subset will do.

    `leave_one_out` keeps a stored item out of its own neighbourhood. Rows that were never asked for are not
    computed; `build` computes whole tables, and `add` takes over those that others built. Of other tables
    those used last are kept, `memory` bytes at most.
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
        """What is known of the fuser on `subset` at stored items `rows`."""
        return np.asarray(self._look(subset, [subset], subset[-1:], rows)[0])

    def children(self, subset: Subset, experts: Sequence[int], rows: Ints) -> Floats:
        """The same of the fusers on `subset` and one more expert."""
        return self._look(subset, widened(subset, tuple(experts)), experts, rows)

    def scores(
        self,
        groups: Groups,
        near: Near,
        outputs: Callable[[Subset, Ints], Floats],  # noqa: ARG002
        exclude: Ints | None,  # noqa: ARG002
    ) -> Floats:
        """Mean worth (m, A) of each answer among the nearest stored items of requests."""
        m = sum(map(len, groups.values()))
        rows, items = near(self.neighbours, self.ties)
        count = np.bincount(rows, minlength=m)
        return np.asarray(self.stored.sums(rows, items, m) / np.maximum(count, 1)[:, None])

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
                    known = sums[-1] if sums else ((), None)
                    sums.append(((*known[0], expert), _sum(known[1], between(expert))))
                found[number, part] = self._judge(subset, rows[part], sums[-1][1])
        return found

    def add(self, subset: Subset, table: Singles) -> None:
        """Take over a whole table (n, 1 or K)."""
        self._tables.add(subset, table)

    def complete(self) -> dict[Subset, Singles]:
        """Tables (n, 1 or K) that were added whole."""
        return self._tables.added()

    def _look(self, subset: Subset, wider: Sequence[Subset], experts: Sequence[int], rows: Ints) -> Floats:
        """What is known (len(wider), len(rows), 1 or K) of `wider`, each `subset` and one of `experts`."""
        places = self._tables.places(wider)[:, None]
        found = self._tables.data[places, rows]
        unknown = np.isnan(found[:, :, 0])
        if unknown.any():
            self._fill(subset, wider, experts, places[:, 0], [np.unique(rows[new]) for new in unknown])
            found = self._tables.data[places, rows]
        self._tables.forget()
        return found.astype(np.float64)

    def _fill(
        self,
        subset: Subset,
        wider: Sequence[Subset],
        experts: Sequence[int],
        places: Ints,
        missing: Sequence[Ints],
    ) -> None:
        """Compute tables at `places` of `wider` where they are `missing`."""
        firsts = [self._alike(child)[rows] for child, rows in zip(wider, missing, strict=True)]
        needed = np.unique(np.concatenate(firsts))
        for part in row_chunks(len(needed), len(self.stored)):
            chunk = needed[part]
            between = self._between(chunk)
            base = None
            for known in subset:
                base = _sum(base, between(known))
            for number, expert in enumerate(experts):
                here = np.flatnonzero((firsts[number] >= chunk[0]) & (firsts[number] <= chunk[-1]))
                if len(here):
                    rows, place = np.unique(firsts[number][here], return_inverse=True)
                    near, slack = base if base and expert in subset else _sum(base, between(expert))
                    own = np.searchsorted(chunk, rows)
                    if len(own) < len(chunk):
                        near, slack = near[own], slack[own]
                    lost = self._judge(wider[number], rows, (near, slack), missing[number][here], place)
                    self._tables.data[places[number], missing[number][here]] = lost

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
        if subset not in self._first:
            kinds = [kind for expert in subset if (kind := self.stored.kinds[expert]) is not None]
            if self.ties == "lowest" or len(kinds) < len(subset):
                return self._itself
            _, first, place = np.unique(np.stack(kinds), axis=1, return_index=True, return_inverse=True)
            self._first[subset] = first[place.ravel()]
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


def _sum(base: Rough | None, more: Rough) -> Rough:
    return more if base is None else (base[0] + more[0], base[1] + more[1])


@lru_cache(1 << 14)
def widened(subset: Subset, experts: Subset) -> tuple[Subset, ...]:
    """A subset and one expert more, for each of `experts`."""
    return tuple(tuple(sorted({*subset, expert})) for expert in experts)
