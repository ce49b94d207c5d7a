import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.routing.neighbours import GRID, block_distances, nearest, ones, row_chunks


def test_fact_f1_distances_add_up_over_blocks():
    q, v = ([[0.9, 0.1]], [[0.4, 0.6]]), ([[0.6, 0.4]], [[0.5, 0.5]])
    first, second = (block_distances(np.array(a), np.array(b)) for a, b in zip(q, v, strict=True))
    whole = block_distances(np.concatenate(q, axis=1), np.concatenate(v, axis=1))
    assert (first / GRID, second / GRID, whole / GRID) == pytest.approx((0.18, 0.02, 0.20))
    assert first + second == whole


def test_sums_do_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    blocks = [block_distances(rng.random((5, 3)), rng.random((40, 3))) for _ in range(12)]
    assert (sum(blocks) == sum(reversed(blocks))).all()


def test_equal_outputs_are_equally_far_away():
    rng = np.random.default_rng(1)
    seen = rng.random((4, 50)).repeat(100, axis=0)
    distances = block_distances(rng.random((7, 50)), seen)
    assert (distances.reshape(7, 4, 100) == distances[:, ::100, None]).all()


@given(
    st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 400), st.sampled_from(["inclusive", "lowest"])
)
def test_neighbours_are_those_of_a_full_sort(seed, count, columns, ties):
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, 30, (6, columns)).astype(float)
    distances[rng.random((6, columns)) < 0.2] = np.inf
    found = ones(nearest(distances, count, ties)).toarray().astype(bool)
    for row, mine in zip(distances, found, strict=True):
        order = np.argsort(row, kind="stable")[:count]
        order = order[np.isfinite(row[order])]
        expected = np.isin(np.arange(columns), order)
        if ties == "inclusive" and len(order):
            expected = row <= row[order[-1]]
        assert (mine == expected).all()


def test_groups_find_the_same_as_a_full_sort():
    distances = np.random.default_rng(2).random((3, 5003))
    found = ones(nearest(distances, 9)).toarray().astype(bool)
    assert (found == (distances <= np.sort(distances, axis=1)[:, [8]])).all()


def test_chunks_cover_all_rows_once():
    covered = [i for part in row_chunks(1000, 10_000) for i in range(1000)[part]]
    assert covered == list(range(1000))
