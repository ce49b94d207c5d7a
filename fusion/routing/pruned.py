"""Exact search that looks at a pool of stored items only.

Block distances are not negative, so an item is at least as far away over all blocks as over the first. If the
last of the nearest in a pool, the items nearest over the first block, is nearer than every item outside is by
the first block alone, nobody outside can be among the nearest.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusion.routing.neighbours import GRID, Floats, Ints, pair_distances

MARGIN = 2.0**-21
"""Share of a distance, for each number in an output, that float32 may get wrong."""


class Pruned:
    """Search over blocks K x (n, d_k), with an index over the first."""

    def __init__(self, blocks: Sequence[Floats]) -> None:
        import faiss

        self.blocks = tuple(blocks)
        self.index: Any = faiss.IndexFlatL2(blocks[0].shape[1])
        self.index.add(np.ascontiguousarray(blocks[0], np.float32))
        self._norm = float(np.einsum("ij,ij->i", blocks[0], blocks[0]).max())

    def within(self, outputs: Sequence[Floats], count: int, pool: int) -> tuple[list[Ints], np.ndarray]:
        """Items as near as the `count`-th nearest of each of m requests with outputs K x (m, d_k), as far as
        the `pool` nearest by the first block tell, and whether these are certain (m,)."""
        m, n = len(outputs[0]), len(self.blocks[0])
        pool = min(pool, n)
        rough, items = self.index.search(np.ascontiguousarray(outputs[0], np.float32), pool)
        exact = np.zeros((m, pool))
        for block, own in zip(self.blocks, outputs, strict=True):
            exact += pair_distances(np.repeat(own, pool, axis=0), block[items.ravel()]).reshape(m, pool)
        last = np.partition(exact, min(count, pool) - 1, axis=1)[:, min(count, pool) - 1]
        reach = self._norm + np.einsum("ij,ij->i", outputs[0], outputs[0])
        outside = (rough[:, -1] - MARGIN * (outputs[0].shape[1] + 4) * reach) * GRID - 1
        found = [np.sort(some[near]) for some, near in zip(items, exact <= last[:, None], strict=True)]
        return found, (last < outside) | (pool == n)

    def nearest(self, outputs: Sequence[Floats], count: int, pool: int) -> list[Ints]:
        """Items as near as the `count`-th nearest of each request, in order; the pool grows fourfold for
        requests of which it is not certain, until it is everyone."""
        found, certain = self.within(outputs, count, pool)
        left = np.flatnonzero(~certain)
        if len(left):
            more = self.nearest([own[left] for own in outputs], count, 4 * pool)
            for place, items in zip(left.tolist(), more, strict=True):
                found[place] = items
        return found
