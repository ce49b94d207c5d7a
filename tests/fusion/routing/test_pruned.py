import numpy as np
import pytest

from fusion.routing.neighbours import block_distances
from fusion.routing.pruned import Pruned


@pytest.fixture(scope="module")
def points():
    """2000 points and 200 requests in four blocks of five."""
    rng = np.random.default_rng(0)
    return [rng.random((2000, 5)) for _ in range(4)], [rng.random((200, 5)) for _ in range(4)]


def brute_force(blocks, requests, count):
    distances = sum(block_distances(*pair) for pair in zip(requests, blocks, strict=True))
    return [np.flatnonzero(row <= np.sort(row)[count - 1]).tolist() for row in distances]


def test_fact_f6_what_is_certain_is_right(points):
    blocks, requests = points
    found, certain = Pruned(blocks).within(requests, 10, 1500)
    exact = brute_force(blocks, requests, 10)
    assert 0 < certain.sum() < 200
    assert all(items.tolist() == exact[place] for place, items in enumerate(found) if certain[place])


@pytest.mark.parametrize("pool", [10, 200, 5000])
def test_the_pool_grows_until_all_is_certain(points, pool):
    blocks, requests = points
    found = Pruned(blocks).nearest(requests, 10, pool)
    assert [items.tolist() for items in found] == brute_force(blocks, requests, 10)


def test_equally_near_items_stay_together():
    rng = np.random.default_rng(1)
    blocks = [rng.integers(0, 3, (500, 2)).astype(float) for _ in range(3)]
    found = Pruned(blocks).nearest([block[:40] for block in blocks], 10, 60)
    assert [items.tolist() for items in found] == brute_force(blocks, [b[:40] for b in blocks], 10)
