"""Stored outputs of experts on labelled items, and rough distances to them.

A rough squared distance is a float32 with a known bound on how far off it is; what it leaves in doubt is
measured again (`neighbours.members`, `neighbours.closest`). It lacks the squared norm of the request, which
orders nothing.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy.sparse import csr_array

from fusion.routing.coded import WIDE, Coded, quick
from fusion.routing.neighbours import GRID, Floats, Ints, Singles

ROUNDING = 2.0**-24
FEW = 8
"""Up to so many requests, products with one vector at a time are faster than with a matrix."""
SAMPLE = 2000
"""Items by which an expert is found to repeat its outputs."""
SOME = 0.98
"""Share of them that differ, at most, if it does."""
Subset = tuple[int, ...]
"""Indices of experts, ascending."""


@dataclass(frozen=True)
class Stored:
    """Stored outputs of K experts on n labelled items: `blocks` K arrays (n, d_k), `values` (n, A) what each
    answer is worth on each item. Where `chooses`, answer a means: give the response of expert a; blocks
    behind those of the A experts are contexts, what is known of an item without asking anybody."""

    blocks: tuple[Floats, ...]
    values: Floats
    chooses: bool = False

    def __post_init__(self) -> None:
        if not self.blocks:
            raise ValueError("at least one expert is needed")
        if any(len(block) != len(self.values) for block in self.blocks):
            raise ValueError("every expert needs one output for each item")
        if self.chooses and self.values.shape[1] > len(self.blocks):
            raise ValueError("choosing an expert needs one quality per expert and item")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def experts(self) -> int:
        """K, contexts included."""
        return len(self.blocks)

    @cached_property
    def single(self) -> tuple[tuple[Singles, float], ...]:
        """Blocks times -2 above their squared norms (d_k + 1, n), and the greatest norm."""
        found = []
        for block in self.blocks:
            norms = np.einsum("ij,ij->i", block, block)
            columns = np.empty((block.shape[1] + 1, len(self)), np.float32)
            np.multiply(block.T, -2, out=columns[:-1], casting="same_kind")
            columns[-1] = norms
            found.append((columns, float(np.sqrt(norms.max(initial=0)))))
        return tuple(found)

    @cached_property
    def labels(self) -> Ints | None:
        """The right answers (n,), where one is worth 1 and all others nothing."""
        marks = (self.values != 0).sum(axis=1)
        if self.chooses or (marks != 1).any() or (self.values.max(axis=1) != 1).any():
            return None
        return np.asarray(self.values.argmax(axis=1))

    @cached_property
    def kinds(self) -> tuple[Ints | None, ...]:
        """Numbers (n,) that equal outputs of an expert share, for experts that repeat their outputs."""
        return tuple(
            np.unique(block, axis=0, return_inverse=True)[1].ravel() if _repeats(block[:SAMPLE]) else None
            for block in self.blocks
        )

    @cached_property
    def coded(self) -> tuple[Coded | None, ...]:
        """Codes of the outputs of each expert, where they pay."""
        return tuple(
            Coded.of(block, 2 * self.rounding(expert)) if block.shape[1] >= WIDE and quick() else None
            for expert, block in enumerate(self.blocks)
        )

    def bound(self, expert: int, outputs: Floats) -> tuple[Singles, Floats, Floats]:
        """Bounds (m, n) of squared distances of outputs (m, d_k), also after they were added to those of
        other experts; what they lack (m,), and how far below the distances (m,) they are as a guess."""
        coded = self.coded[expert]
        if coded is not None:
            bounds, lacking, doubt = coded.bound(outputs)
        else:
            bounds, slack = self.rough(expert, outputs)
            lacking, doubt = np.einsum("ij,ij->i", outputs, outputs) - slack, 2 * slack
        return bounds, lacking - 1 / GRID, doubt + 2 / GRID

    def rough(self, expert: int, outputs: Floats) -> tuple[Singles, Floats]:
        """Rough squared distances (m, n) of outputs (m, d_k), and how far off one of them may be (m,), also
        after it was added to those of other experts."""
        columns, farthest = self.single[expert]
        near = np.empty((len(outputs), len(self)), np.float32)
        q = np.ones((len(outputs), len(columns)), np.float32)
        q[:, :-1] = outputs
        if len(q) > FEW:
            np.matmul(q, columns, out=near)
        else:
            for one, place in zip(q, near, strict=True):
                np.matmul(one, columns, out=place)
        reach = (np.sqrt(np.einsum("ij,ij->i", outputs, outputs)) + farthest) ** 2
        return near, np.asarray(self.rounding(expert) * reach + 1 / GRID)

    def rounding(self, expert: int) -> float:
        """By how much of its size a sum may be off by the time that an expert was added to it."""
        return ROUNDING * 2 * (int(self.blocks[expert].shape[1]) + self.experts + 5)

    def sums(self, rows: Ints, items: Ints, m: int) -> Floats:
        """Sums (m, A) of the values of items by row, of which there are m; rows are in order."""
        answers = self.values.shape[1]
        if self.labels is not None:
            votes = np.bincount(rows * answers + self.labels[items], minlength=m * answers)
            return votes.reshape(m, answers).astype(np.float64)
        ends = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=m))])
        chosen = csr_array((np.ones(len(items)), items, ends), shape=(m, len(self)))
        return np.asarray(chosen @ self.values)


def _repeats(block: Floats) -> bool:
    return len(np.unique(block, axis=0)) <= SOME * len(block)


@lru_cache(1 << 14)
def widened(subset: Subset, experts: Subset) -> tuple[Subset, ...]:
    """A subset and one expert more, for each of `experts`."""
    return tuple(tuple(sorted({*subset, expert})) for expert in experts)
