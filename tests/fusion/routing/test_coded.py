import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.routing import stored
from fusion.routing.coded import Coded
from fusion.routing.neighbours import GRID, pair_distances
from fusion.routing.states import States
from fusion.routing.stored import Stored


@pytest.fixture(autouse=True, params=[True, False], ids=["bytes", "floats"])
def quick(request, monkeypatch):
    """Whether outputs are coded, whatever this processor is."""
    monkeypatch.setattr(stored, "quick", lambda: request.param)


def outputs(rng, size, width, kind):
    """Outputs (size, width) of an expert, some of which are the same."""
    x = {
        "even": lambda: rng.dirichlet(np.ones(width), size),
        "spiky": lambda: rng.dirichlet(np.full(width, 0.05), size),
        "far": lambda: rng.normal(100, 1, (size, width)) * rng.choice([1e-3, 1, 30], (size, 1)),
        "same": lambda: np.zeros((size, width)),
        "rounded": lambda: np.round(rng.random((size, width)) * 0.6),
    }[kind]()
    copies = rng.random(size) < 0.3
    x[copies] = x[rng.integers(0, size, copies.sum())]
    return x


def brute(blocks, new, count, ties, itself):
    """The nearest items of a request, and how far away they are in whole billionths."""
    n = len(blocks[0])
    distances = sum(
        pair_distances(np.repeat(q[None], n, axis=0), x) for q, x in zip(new, blocks, strict=True)
    )
    if itself is not None:
        distances[itself] = np.inf
    order = np.argsort(distances, kind="stable")[:count]
    order = order[np.isfinite(distances[order])]
    if ties == "inclusive" and len(order):
        order = np.flatnonzero(distances <= distances[order[-1]])
    return np.sort(order), distances


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 9, 40, 700]),
    st.lists(
        st.tuples(
            st.sampled_from([1, 3, 32, 45, 130]), st.sampled_from(["even", "spiky", "far", "same", "rounded"])
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 60),
    st.sampled_from(["inclusive", "lowest"]),
    st.booleans(),
)
def test_neighbours_are_those_of_an_exact_search(seed, n, kinds, count, ties, excluded):
    rng, size = np.random.default_rng(seed), 6
    blocks = [outputs(rng, n + size, width, kind) for width, kind in kinds]
    items = rng.integers(0, n, size)
    new = [block[items] if excluded else block[n:] for block in blocks]
    blocks = [block[:n] for block in blocks]
    states = States(Stored(tuple(blocks), np.ones((n, 1))), size, exclude=items if excluded else None)
    rows, of = np.arange(size), np.zeros(size, int)
    experts = rng.permutation(len(blocks))
    for step, expert in enumerate(experts):
        states.tell(expert, rows, new[expert])
        of = states.enter(of, np.full(size, expert), rows)
        at, found, exact = states.closest(count, ties)
        for row in rows:
            asked = sorted(experts[: step + 1])
            itself = items[row] if excluded else None
            near, distances = brute(
                [blocks[e] for e in asked], [new[e][row] for e in asked], count, ties, itself
            )
            mine = at == of[row]
            assert found[mine].tolist() == near.tolist()
            assert (exact[mine] == distances[near]).all()


@pytest.mark.parametrize("kind", ["even", "spiky", "far", "same", "rounded"])
@pytest.mark.parametrize("width", [2, 33, 300])
def test_bounds_are_below_the_distances_and_close_to_them(kind, width):
    rng = np.random.default_rng(0)
    block, new = outputs(rng, 400, width, kind), outputs(rng, 20, width, kind)
    bounds, lacking, doubt = Coded.of(block, 1e-5).bound(new)
    gap = ((new[:, None] - block) ** 2).sum(axis=2) - (bounds + lacking[:, None])
    assert gap.min() >= -1 / GRID
    assert np.median(gap / (doubt[:, None] + 1 / GRID)) < 2
