import numpy as np
import pytest

from fusion.routing.neighbours import block_distances, nearest
from fusion.routing.states import Lone, States
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
    rows = np.arange(60)
    states, of = States(stored, 60), np.zeros(60, int)
    for expert in subset:
        states.tell(expert, rows, new[expert])
        of = states.enter(of, np.full(60, expert), rows)
    at, items = states.near(12, ties)
    exact = nearest(sum(block_distances(new[e], blocks[e]) for e in subset), 12, ties)
    for row in range(60):
        mine = at == of[row]
        assert (items[mine] == exact.indices[exact.indptr[row] : exact.indptr[row + 1]]).all()
        found = states.distances(at[mine], items[mine])
        assert np.abs(found - exact.data[exact.indptr[row] : exact.indptr[row + 1]]).max() <= 1  # a billionth


def test_requests_that_have_heard_the_same_share_a_state():
    block = np.round(RNG.random((3000, 1)), 1)
    stored = Stored((block, block[::-1], RNG.random((3000, 2))), np.eye(2)[RNG.integers(0, 2, 3000)])
    states, rows = States(stored, 4), np.arange(4)
    said = {0: [[0.1], [0.1], [0.2], [0.1]], 1: [[0.5], [0.5], [0.5], [0.6]]}
    for expert, outputs in said.items():
        states.tell(expert, rows, np.array(outputs))
    of = states.enter(np.zeros(4, int), np.array([0, 0, 0, 1]), rows)
    assert of.tolist() == [0, 0, 1, 2]
    of = states.enter(of, np.array([1, 1, 1, 0]), rows)
    assert [states.subsets[number] for number in states.of[of]] == [(0, 1)] * 4
    assert len(set(of.tolist())) == 3
    states.tell(2, rows, np.zeros((4, 2)))  # an expert that does not repeat itself
    assert len(set(states.enter(of, np.full(4, 2), rows).tolist())) == 4


def test_walks_of_a_request_that_meet_share_a_state():
    stored = Stored((RNG.random((50, 2)), RNG.random((50, 3))), np.eye(2)[RNG.integers(0, 2, 50)])
    states, rows = States(stored, 2), np.array([0, 1, 0, 1])
    for expert in (0, 1):
        states.tell(expert, np.arange(2), RNG.random((2, 2 + expert)))
    of = states.enter(np.zeros(4, int), np.array([0, 0, 1, 1]), rows)
    assert len(states) == 4
    of = states.enter(of, np.array([1, 1, 0, 0]), rows)
    assert len(states) == 2
    assert of[0] == of[2] != of[1] == of[3]
    assert states.outputs(of[:2]).shape == (2, 5)


def test_what_is_known_of_a_request_is_not_asked_again():
    stored = Stored((RNG.random((50, 2)),), np.eye(2)[RNG.integers(0, 2, 50)])
    states = States(stored, 6)
    states.tell(0, np.array([1, 4]), np.zeros((2, 2)))
    assert states.lacking(0, np.array([5, 4, 1, 0, 5])).tolist() == [0, 5]


def test_an_item_is_not_its_own_neighbour():
    block, items = RNG.random((40, 3)), np.array([3, 17, 39])
    stored = Stored((block,), np.eye(2)[RNG.integers(0, 2, 40)])
    states = States(stored, 3, exclude=items)
    states.tell(0, np.arange(3), block[items])
    of = states.enter(np.zeros(3, int), np.zeros(3, int), np.arange(3))
    at, found = states.near(40, "inclusive")
    assert np.bincount(at).tolist() == [39, 39, 39]
    assert not any(items[row] in found[at == of[row]] for row in range(3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ties", ["inclusive", "lowest"])
@pytest.mark.parametrize("size", [3000, 50, 7])
def test_a_request_alone_has_the_same_neighbours_to_the_last_bit(kind, ties, size):
    blocks = [block[:size] for block in KINDS[kind]]
    stored, here = Stored(tuple(blocks), np.eye(2)[RNG.integers(0, 2, size)]), np.zeros(1, int)
    for _ in range(8):
        both = States(stored, 1), Lone(stored)
        for expert in RNG.permutation(4).tolist():
            said = KINDS[kind][expert][RNG.integers(0, 3000, 1)]
            for states in both:
                assert states.lacking(expert, here).tolist() == [0]
                states.tell(expert, here, said)
                assert not len(states.lacking(expert, here))
                assert states.enter(here, np.array([expert]), here).tolist() == [0]
            assert both[0].subsets == both[1].subsets and len(both[1]) == 1
            assert np.array_equal(*(states.outputs(here) for states in both))
            for count in (1, 9, 30):
                ours, theirs = (states.closest(count, ties) for states in both)
                assert all(np.array_equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
