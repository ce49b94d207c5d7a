"""FrugalFoE's decisions and those of the naive evaluation, on one core.

10,000 stored items, 20 experts, 100 classes. The naive evaluation is what the formulas say: for every
candidate, concatenated distances from each of the neighbours to all stored items. Both must decide alike.
"""

import time
from collections.abc import Callable
from itertools import combinations

import numpy as np
from threadpoolctl import threadpool_limits

from fusion.routing.expectations import Expectations
from fusion.routing.frugal import Rules, Walk
from fusion.routing.lookup import Lookup
from fusion.routing.losses import KnnLosses
from fusion.routing.neighbours import GRID
from fusion.routing.stored import Stored, Subset

ITEMS, EXPERTS, CLASSES = 10_000, 20, 100
NEAR, VOTES = 10, 9
RATE = 0.02
BATCH, NAIVE = 256, 3
ROWS = 104
FIRST = 0


def outputs(rng: np.random.Generator, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Probability vectors of experts that know thirty classes each, by logits with noise."""
    found = []
    for expert in range(EXPERTS):
        known = np.isin(labels, np.random.default_rng(expert).permutation(CLASSES)[:30])
        logits = rng.normal(0, 1, (len(labels), CLASSES))
        logits[np.arange(len(labels)), labels] += np.where(known, 6, 1)
        found.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    return tuple(found)


class Naive:
    """Eq. 4.4 word for word: distances over concatenated outputs, for every candidate and neighbour anew."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored

    def nearest(self, subset: Subset, outputs: np.ndarray, count: int, itself: int | None) -> np.ndarray:
        """Everyone as near as the `count`-th, in whole billionths."""
        distances = np.zeros(len(self.stored))
        for expert in subset:
            gap = self.stored.blocks[expert] - outputs[expert]
            distances += np.rint(np.einsum("ij,ij->i", gap, gap) * GRID)
        if itself is not None:
            distances[itself] = np.inf
        return np.flatnonzero(distances <= np.sort(distances)[count - 1])

    def loss(self, subset: Subset, item: int) -> float:
        """Soft leave-one-out loss of the fuser on `subset`."""
        own = np.stack([block[item] for block in self.stored.blocks])
        near = self.nearest(subset, own, VOTES, item)
        return float(1 - (self.stored.values[near] @ self.stored.values[item]).mean())

    def walk(self, request: np.ndarray, steps: int) -> list[int]:
        """Experts in the order asked, at most `steps`."""
        asked = [FIRST]
        while len(asked) < steps:
            subset = tuple(sorted(asked))
            near = self.nearest(subset, request, NEAR, None)
            current = np.mean([np.float32(self.loss(subset, i)) for i in near])
            rest = [e for e in range(EXPERTS) if e not in asked]
            wider = [tuple(sorted((*asked, e))) for e in rest]
            expected = [np.mean([np.float32(self.loss(s, i)) for i in near]) + RATE for s in wider]
            if current - min(expected) < -1e-6:
                break
            asked.append(rest[int(np.argmin(expected))])
        return asked


def main(arguments: list[str]) -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, CLASSES, ITEMS), rng.integers(0, CLASSES, 2 * BATCH)
    stored = Stored(outputs(rng, labels), np.eye(CLASSES)[labels])
    new = outputs(rng, truth)
    losses = KnnLosses(stored, neighbours=VOTES)
    with threadpool_limits(1):
        _print_tables(losses)
        _run(stored, losses, new, np.arange(BATCH))  # fills the tables that these requests need
        many, walks = _timed(lambda: _run(stored, losses, new, np.arange(BATCH)))
        one, _ = _timed(lambda: [_run(stored, losses, new, np.array([i])) for i in range(64)])
        naive = Naive(stored)
        slow, orders = _timed(
            lambda: [naive.walk(np.stack([b[i] for b in new]), EXPERTS) for i in range(NAIVE)]
        )
    asked = (walks.order >= 0).sum(axis=1)
    print(f"experts asked on average               {asked.mean():10.2f}")
    print(f"one request, alone                     {one / 64 * 1e3:10.3f} ms")
    print(f"one request, in a batch of {BATCH}          {many / BATCH * 1e3:10.3f} ms")
    print(f"one request, naive                     {slow / NAIVE * 1e3:10.3f} ms")
    print(f"  times as long as alone               {slow / NAIVE / one * 64:10.0f}")
    same = all(o == [int(e) for e in w if e >= 0] for o, w in zip(orders, walks.order, strict=False))
    print(f"decisions of {NAIVE} requests are {'the same' if same else 'DIFFERENT'}")


def _print_tables(losses: KnnLosses) -> None:
    subsets = sorted((FIRST, *more) for size in range(4) for more in combinations(range(1, EXPERTS), size))
    seconds, _ = _timed(lambda: losses.build(subsets, np.arange(ROWS)))
    print(
        f"tables of {len(subsets)} subsets                 {seconds / ROWS * ITEMS / 60:10.2f} core-minutes"
    )


def _run(stored: Stored, losses: KnnLosses, new: tuple[np.ndarray, ...], rows: np.ndarray) -> object:
    lookup = Lookup(stored, lambda expert, at: new[expert][rows[at]], len(rows))
    seen = Expectations(lookup, losses, neighbours=NEAR, charges=np.zeros(EXPERTS))
    prices, may = np.ones((len(rows), EXPERTS)), np.ones((len(rows), EXPERTS), bool)
    return Walk(seen, Rules(rate=RATE), prices, range(EXPERTS), may).run()


def _timed(work: Callable[[], object]) -> tuple[float, object]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main([])
