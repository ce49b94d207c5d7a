"""FrugalFoE's decisions and those of the naive evaluation, on one core, in time of that core.

10,000 stored items, 20 experts, 100 classes. The naive evaluation is what the formulas say: for every
candidate, concatenated distances from each of the neighbours to all stored items. Both must decide alike.
`--growth` prints how time grows with stored items and experts, and whether pruned search pays.
"""

import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations, product
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from fusion.routing.expectations import Expectations
from fusion.routing.frugal import Rules, Walk, Walks
from fusion.routing.losses import KnnLosses
from fusion.routing.neighbours import GRID
from fusion.routing.pruned import Pruned
from fusion.routing.states import States
from fusion.routing.stored import Stored, Subset

ITEMS, EXPERTS, CLASSES = 10_000, 20, 100
NEAR, VOTES = 10, 9
RATE = 0.02
BATCH, NAIVE = 256, 3
ROWS = 104
FIRST = 0
FEW, LARGEST = 8, 20_000_000
"""Requests, and stored outputs at most, of growth curves."""


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
    """Print the tables."""
    if "--growth" in arguments:
        _print_growth()
        return
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
        _print_depth(stored, losses, new)


def _print_depth(stored: Stored, losses: KnnLosses, new: tuple[np.ndarray, ...]) -> None:
    """A request that asks everyone; of the naive evaluation one neighbour of each step is timed."""
    row = np.array([0])
    cold, walks = _timed(lambda: _run(stored, losses, new, row, rate=0.0, least=EXPERTS))
    warm, _ = _timed(lambda: _run(stored, losses, new, row, rate=0.0, least=EXPERTS))
    naive, order = Naive(stored), [int(e) for e in walks.order[0]]

    def judge() -> None:
        for step in range(1, EXPERTS):
            for more in ([], *([e] for e in order[step:])):
                naive.loss(tuple(sorted(order[:step] + more)), 0)

    once, _ = _timed(judge)
    blocks = sum(step + (EXPERTS - step) * (step + 1) for step in range(1, EXPERTS)) * NEAR
    operations = (blocks + sum(range(1, EXPERTS))) * 3 * ITEMS * CLASSES
    ours = EXPERTS * ITEMS * (2 * (CLASSES + 1) + 1) + EXPERTS**2 // 2 * NEAR
    print(f"all {EXPERTS} experts, naive                  {once * NEAR * 1e3:10.0f} ms")
    print(f"  tables at hand                       {warm * 1e3:10.2f} ms, {once * NEAR / warm:.0f} times")
    print(f"  tables computed on the way           {cold * 1e3:10.2f} ms, {once * NEAR / cold:.0f} times")
    print(f"  operations of the naive evaluation   {operations / ours:10.0f} times as many")


def _print_tables(losses: KnnLosses) -> None:
    subsets = sorted((FIRST, *more) for size in range(4) for more in combinations(range(1, EXPERTS), size))
    seconds, _ = _timed(lambda: losses.build(subsets, np.arange(ROWS)))
    print(
        f"tables of {len(subsets)} subsets                 {seconds / ROWS * ITEMS / 60:10.2f} core-minutes"
    )
    few = subsets[:300]
    with ProcessPoolExecutor(2, initializer=_share, initargs=(losses.stored,)) as pool:
        list(pool.map(_shard, [few[:1]] * 2, [0, ROWS]))
        alone = next(pool.map(_shard, [few], [0]))
        both = max(pool.map(_shard, [few] * 2, [0, ROWS]))
    print(f"  efficiency of two processes          {100 * alone / both:10.0f} %")


SHARED: list[KnnLosses] = []


def _share(stored: Stored) -> None:
    SHARED.append(KnnLosses(stored, neighbours=VOTES))


def _shard(subsets: list[Subset], start: int) -> float:
    with threadpool_limits(1):
        return _timed(lambda: SHARED[0].build(subsets, np.arange(start, start + ROWS)))[0]


def _print_growth() -> None:
    """Ten classes; tables hold what the requests need. The last two find neighbours by two experts."""
    print("     items experts  alone ms  batch ms  pool: ms  all: ms")
    for items, experts in product((1000, 10_000, 100_000, 1_000_000), (5, 20, 100)):
        if items * experts <= LARGEST:
            with threadpool_limits(1):
                each = _growth(items, experts)
            print(f"{items:10} {experts:7}", *(f"{1e3 * seconds:9.2f}" for seconds in each), flush=True)


def _growth(items: int, experts: int) -> list[float]:
    rng, few = np.random.default_rng(0), np.arange(FEW)
    labels = rng.integers(0, 10, items + FEW)
    blocks = [rng.dirichlet(np.full(10, 0.3), len(labels)) for _ in range(experts)]
    for expert, block in enumerate(blocks):
        block[np.arange(len(labels)), labels] += 2.0 * (expert % 10 <= labels) * rng.random(len(labels))
    stored = Stored(tuple(block[:items] for block in blocks), np.eye(10)[labels[:items]])
    new, losses = tuple(block[items:] for block in blocks), KnnLosses(stored)
    _run(stored, losses, new, few, most=2)
    many, _ = _timed(lambda: _run(stored, losses, new, few, most=2))
    alone, _ = _timed(lambda: [_run(stored, losses, new, few[:1], most=2) for _ in few])
    two = Pruned(stored.blocks[:2])
    pool, _ = _timed(lambda: two.nearest(new[:2], NEAR, 200))
    states, of = States(stored, FEW), np.zeros(FEW, np.intp)
    for expert in (0, 1):
        states.tell(expert, few, new[expert])
        of = states.enter(of, np.full(FEW, expert), few)
    whole, _ = _timed(lambda: states.near(NEAR, "inclusive"))
    return [seconds / FEW for seconds in (alone, many, pool, whole)]


def _run(
    stored: Stored,
    losses: KnnLosses,
    new: tuple[np.ndarray, ...],
    rows: np.ndarray,
    rate: float = RATE,
    least: int = 1,
    most: int | None = None,
) -> Walks:
    states = States(stored, len(rows))
    prices = np.ones((len(rows), stored.experts))
    seen = Expectations(states, losses, prices[0], neighbours=NEAR, ties="inclusive")
    plan = Rules(rate=rate, min_experts=least, max_experts=most), range(stored.experts)
    return Walk(seen, [plan], prices, prices > 0).run(lambda expert, at: new[expert][rows[at]])[0]


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


if __name__ == "__main__":
    main(sys.argv[1:])
