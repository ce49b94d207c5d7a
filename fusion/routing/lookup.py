"""The stored items nearest to a chunk of requests, in the outputs of whichever experts they have asked.

Distances to all stored items are computed in float32 by one matrix product per expert, and added up. What
rounding errors may have kept from being among the nearest is measured again in float64, from differences, in
whole billionths: the neighbours are those of an exact search, at half its cost.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fusion.routing.losses import Stored, Subset
from fusion.routing.neighbours import GRID, Floats, Ints, Ties, candidates, select

ROUNDING = 2.0**-24


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
        self._distances: dict[int, NDArray[np.float32]] = {}
        self._slack: dict[int, Floats] = {}

    def observe(self, expert: int, rows: Ints) -> None:
        """Ask an expert about those of the requests that it was not asked about before."""
        if expert not in self._outputs:
            self._outputs[expert] = np.full((self.size, self.stored.blocks[expert].shape[1]), np.nan)
            self._distances[expert] = np.empty((self.size, len(self.stored)), np.float32)
            self._slack[expert] = np.zeros(self.size)
        new = rows[np.isnan(self._outputs[expert][rows, 0])]
        if len(new):
            outputs = self.ask(expert, new)
            near, slack = self._rough(expert, outputs)
            if self.exclude is not None:
                near[np.arange(len(new)), self.exclude[new]] = np.inf
            self._outputs[expert][new] = outputs
            self._distances[expert][new], self._slack[expert][new] = near, slack

    def _rough(self, expert: int, outputs: Floats) -> tuple[NDArray[np.float32], Floats]:
        """Squared distances (m, n) in float32, and how far off one may be (m,)."""
        columns, norms = self.stored.single[expert]
        q = outputs.astype(np.float32)
        own = np.einsum("ij,ij->i", q, q)
        near = q @ columns
        near *= -2
        near += norms
        near += own[:, None]
        reach = (np.sqrt(own.astype(np.float64)) + np.sqrt(float(norms.max()))) ** 2
        return near, 2 * (q.shape[1] + len(self.stored.blocks) + 4) * ROUNDING * reach

    def outputs(self, subset: Subset, rows: Ints) -> Floats:
        """Outputs (len(rows), d_S) side by side."""
        return np.concatenate([self._outputs[expert][rows] for expert in subset], axis=1)

    def near(self, subset: Subset, rows: Ints, count: int, ties: Ties) -> csr_array:
        """Squared distances, in whole billionths, at the `count` nearest items of requests."""
        whole = len(rows) == self.size
        parts = [self._distances[e] if whole else self._distances[e][rows] for e in subset]
        rough = sum(parts[1:], start=parts[0])
        slack = 2 * np.sum([self._slack[expert][rows] for expert in subset], axis=0)
        at, items = candidates(rough, count, slack)
        exact = np.zeros(len(at))
        for expert in subset:
            gap = self._outputs[expert][rows[at]] - self.stored.blocks[expert][items]
            exact += np.rint(np.einsum("ij,ij->i", gap, gap) * GRID)
        return select(at, items, exact, count, ties, (len(rows), len(self.stored)))
