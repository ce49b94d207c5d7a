import numpy as np
import pytest

from fusion.routing.lookup import Lookup
from fusion.routing.neighbours import block_distances, nearest
from fusion.routing.stored import Stored

RNG = np.random.default_rng(0)
KINDS = {
    "probabilities": [RNG.dirichlet(np.full(20, 0.2), 3000) for _ in range(4)],
    "quantised": [np.round(RNG.dirichlet(np.full(3, 0.3), 3000), 1) for _ in range(4)],
    "embeddings": [RNG.normal(3, 1, (3000, 32)) / 6 for _ in range(4)],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ties", ["inclusive", "lowest"])
@pytest.mark.parametrize("subset", [(1,), (0, 2), (0, 1, 2, 3)])
def test_neighbours_are_those_of_an_exact_search(kind, ties, subset):
    blocks = KINDS[kind]
    new = [block[RNG.permutation(3000)[:60]] + (0 if kind == "quantised" else 1e-3) for block in blocks]
    stored = Stored(tuple(blocks), np.eye(2)[RNG.integers(0, 2, 3000)])
    lookup = Lookup(stored, lambda expert, rows: new[expert][rows], 60)
    for expert in subset:
        lookup.observe(expert, np.arange(60))
    found = lookup.near(subset, np.arange(5, 40), 12, ties)
    exact = nearest(sum(block_distances(new[e][5:40], blocks[e]) for e in subset), 12, ties)
    assert (found.indptr == exact.indptr).all()
    assert (found.indices == exact.indices).all()
    assert np.abs(found.data - exact.data).max() <= 1  # a billionth


def test_each_expert_is_asked_once_about_a_request():
    asked = []
    stored = Stored((RNG.random((50, 2)), RNG.random((50, 3))), np.eye(2)[RNG.integers(0, 2, 50)])

    def ask(expert, rows):
        asked.extend((expert, int(row)) for row in rows)
        return np.zeros((len(rows), 2 + expert))

    lookup = Lookup(stored, ask, 6)
    lookup.observe(1, np.array([1, 4]))
    lookup.observe(1, np.array([0, 1, 4, 5]))
    lookup.observe(0, np.array([4]))
    assert sorted(asked) == [(0, 4), (1, 0), (1, 1), (1, 4), (1, 5)]
    assert lookup.outputs((0, 1), np.array([4])).shape == (1, 5)


def test_an_item_is_not_its_own_neighbour():
    block = RNG.random((40, 3))
    stored = Stored((block,), np.eye(2)[RNG.integers(0, 2, 40)])
    items = np.array([3, 17, 39])
    lookup = Lookup(stored, lambda expert, rows: block[items[rows]], 3, exclude=items)
    lookup.observe(0, np.arange(3))
    near = lookup.near((0,), np.arange(3), 40, "inclusive").toarray() > 0
    assert near.sum(axis=1).tolist() == [39, 39, 39]
    assert not near[np.arange(3), items].any()
