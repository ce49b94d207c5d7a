"""What fusers on every subset of experts make of the stored items: what a policy looks up.

An answer is worth something on every item: 1 for the right label and 0 for another, or the quality of the
response of the expert that is chosen. A fuser on the outputs of a subset S scores the answers; for labels its
loss at stored item i is kept (`T_S[i]`), for experts the quality that it predicts of each, as the choice
depends on prices too. The expected loss of any S at a new request is then a mean over a few stored items
(FrugalFoE, eq. 4.4), so no expert is called to find out whether calling it would help.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fusion.routing.neighbours import Floats, Ints, Ties, block_distances, nearest, ones, row_chunks

Loss = Literal["zero_one", "soft"]
Subset = tuple[int, ...]
"""Indices of experts, ascending."""
Near = Callable[[int, Ties], csr_array]
"""So many nearest stored items of each of m requests, as a sparse matrix (m, n)."""


@dataclass(frozen=True)
class Stored:
    """Stored outputs of K experts on n labelled items: `blocks` K arrays (n, d_k), `values` (n, A) what each
    answer is worth on each item. Where `chooses`, answer a means: give the response of expert a; blocks
    behind those of the A experts are contexts, what is known of an item without asking anybody."""

    blocks: tuple[Floats, ...]
    values: Floats
    chooses: bool = False
    single: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...] = field(init=False, repr=False)
    """Blocks (d_k, n) and their squared norms (n,) in float32."""

    def __post_init__(self) -> None:
        if not self.blocks:
            raise ValueError("at least one expert is needed")
        if any(len(block) != len(self.values) for block in self.blocks):
            raise ValueError("every expert needs one output for each item")
        if self.chooses and self.values.shape[1] > len(self.blocks):
            raise ValueError("choosing an expert needs one quality per expert and item")

        columns = [np.ascontiguousarray(block.T, np.float32) for block in self.blocks]
        norms = [np.einsum("ij,ij->j", c, c) for c in columns]
        object.__setattr__(self, "single", tuple(zip(columns, norms, strict=True)))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def experts(self) -> int:
        """K, contexts included."""
        return len(self.blocks)


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

    def children(self, subset: Subset, experts: Sequence[int], rows: Ints) -> list[Floats]:
        """The same with one expert more, for each of `experts`."""

    def scores(self, subset: Subset, near: Near, outputs: Floats, items: Ints | None) -> Floats:
        """Scores (m, A) of the fuser on `subset` for requests with outputs (m, d_S), whose `count` nearest
        items `near(count, ties)` finds; `items` (m,) are the stored items that the requests are, if so."""


class KnnLosses:
    """Losses of nearest-neighbour fusers, kept once computed; needs no training, so any subset will do.

    `leave_one_out` keeps a stored item out of its own neighbourhood. Rows that were never asked for are not
    computed; `build` computes whole tables, and `add` takes over those that others built.
    """

    def __init__(
        self,
        stored: Stored,
        *,
        neighbours: int = 9,
        loss: Loss = "soft",
        leave_one_out: bool = True,
        ties: Ties = "inclusive",
    ) -> None:
        self.stored, self.neighbours, self.loss = stored, neighbours, loss
        self.leave_one_out, self.ties = leave_one_out, ties
        self._tables: dict[Subset, NDArray[np.float32]] = {}

    def at(self, subset: Subset, rows: Ints) -> Floats:
        """What is known of the fuser on `subset` at stored items `rows`."""
        missing = self._missing(subset, rows)
        for part in row_chunks(len(missing), len(self.stored)):
            self._fill(subset, missing[part], total(self.between(missing[part]), subset))
        return self._take(subset, rows)

    def children(self, subset: Subset, experts: Sequence[int], rows: Ints) -> list[Floats]:
        """The same of the fusers on `subset` and one more expert."""
        wider = [tuple(sorted((*subset, expert))) for expert in experts]
        missing = [self._missing(child, rows) for child in wider]
        needed = np.unique(np.concatenate([*missing, np.empty(0, np.intp)]).astype(np.intp))
        for part in row_chunks(len(needed), len(self.stored)):
            chunk = needed[part]
            distances = self.between(chunk)
            start = total(distances, subset) if subset else 0.0
            for child, expert, wanted in zip(wider, experts, missing, strict=True):
                if len(wanted):
                    here = np.isin(chunk, wanted, assume_unique=True)
                    self._fill(child, chunk[here], (start + distances(expert))[here])
        return [self._take(child, rows) for child in wider]

    def scores(self, subset: Subset, near: Near, outputs: Floats, items: Ints | None) -> Floats:  # noqa: ARG002
        """Mean worth (m, A) of each answer among the nearest stored items of requests."""
        found = ones(near(self.neighbours, self.ties))
        return np.asarray((found @ self.stored.values) / np.maximum(found.sum(axis=1), 1)[:, None])

    def build(self, subsets: Sequence[Subset], rows: Ints) -> NDArray[np.float32]:
        """Parts of tables (len(subsets), len(rows), 1 or K); sorted subsets are fastest, as each takes the
        sums of the one that it extends."""
        found = np.empty((len(subsets), len(rows), self._width), np.float32)
        for part in row_chunks(len(rows), len(self.stored)):
            distances = self.between(rows[part])
            sums: list[tuple[Subset, Floats]] = []
            for number, subset in enumerate(subsets):
                while sums and sums[-1][0] != subset[: len(sums[-1][0])]:
                    sums.pop()
                for expert in subset[len(sums) :]:
                    known, summed = sums[-1] if sums else ((), 0.0)
                    sums.append(((*known, expert), summed + distances(expert)))
                found[number, part] = self._judge(rows[part], sums[-1][1])
        return found

    def add(self, subset: Subset, table: NDArray[np.float32]) -> None:
        """Take over a whole table (n, 1 or K)."""
        self._tables[subset] = table

    def complete(self) -> dict[Subset, NDArray[np.float32]]:
        """Tables (n, 1 or K) that lack no row."""
        return {s: table for s, table in sorted(self._tables.items()) if not np.isnan(table).any()}

    def between(self, rows: Ints) -> Callable[[int], Floats]:
        """Distances of stored items `rows` to all, by expert, each computed when first asked for."""
        blocks, known = self.stored.blocks, dict[int, Floats]()

        def distances(expert: int) -> Floats:
            if expert not in known:
                known[expert] = block_distances(blocks[expert][rows], blocks[expert])
            return known[expert]

        return distances

    @property
    def _width(self) -> int:
        return self.stored.experts if self.stored.chooses else 1

    def _missing(self, subset: Subset, rows: Ints) -> Ints:
        if subset not in self._tables:
            self._tables[subset] = np.full((len(self.stored), self._width), np.nan, np.float32)
        return np.unique(rows[np.isnan(self._tables[subset][rows, 0])])

    def _take(self, subset: Subset, rows: Ints) -> Floats:
        return self._tables[subset][rows].astype(np.float64)

    def _fill(self, subset: Subset, rows: Ints, distances: Floats) -> None:
        self._tables[subset][rows] = self._judge(rows, distances)

    def _judge(self, rows: Ints, distances: Floats) -> Floats:
        if self.leave_one_out:
            distances[np.arange(len(rows)), rows] = np.inf
        near = ones(nearest(distances, self.neighbours, self.ties))
        scores = np.asarray(near @ self.stored.values)
        if self.stored.chooses:
            return np.asarray(scores / np.maximum(near.sum(axis=1), 1)[:, None])
        return losses(scores, self.stored.values[rows], self.loss)[:, None]


def total(distances: Callable[[int], Floats], subset: Subset) -> Floats:
    """Distances over the outputs of a subset that is not empty."""
    summed = distances(subset[0]).copy()
    for expert in subset[1:]:
        summed += distances(expert)
    return summed
