"""What losses promise whatever is remembered and whoever shares outputs."""

from itertools import combinations

import numpy as np
import pytest

from fusion.routing.losses import KnnLosses, losses
from fusion.routing.neighbours import block_distances
from fusion.routing.policy import FrugalPolicy, FrugalRouter
from fusion.routing.stored import Stored

SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(range(4), size)]


def quantised(n=300):
    rng = np.random.default_rng(0)
    blocks = tuple(np.round(rng.dirichlet(np.full(3, 0.3), n), 1) for _ in range(3))
    return Stored((*blocks, rng.random((n, 2))), np.eye(3)[rng.integers(0, 3, n)])


def test_forgotten_tables_are_computed_again():
    stored, rng = quantised(), np.random.default_rng(1)
    whole, small = KnnLosses(stored), KnnLosses(stored, memory=3 * 4 * 300)
    eager = [(0,), (1,)]
    for subset, table in zip(eager, whole.build(eager, np.arange(300)), strict=True):
        small.add(subset, table)
    for _ in range(60):
        subset = SUBSETS[rng.integers(len(SUBSETS))]
        items = rng.integers(0, 300, 40)
        others = [expert for expert in range(4) if expert not in subset]
        assert (small.at(subset, items) == whole.at(subset, items)).all()
        plan = (subset, *(tuple(sorted((*subset, other))) for other in others))
        at = np.zeros(40, int)
        assert (small.among([plan], at, items) == whole.among([plan], at, items)).all()
        assert len(small._tables._kept) <= 3
        assert len(small._tables.data) <= 16


@pytest.mark.parametrize("kind", ["soft", "zero_one"])
@pytest.mark.parametrize("leave_one_out", [True, False])
def test_items_with_equal_outputs_share_a_neighbourhood(kind, leave_one_out):
    stored = quantised()
    assert [kinds is not None for kinds in stored.kinds] == [True, True, True, False]
    tables = KnnLosses(stored, loss=kind, leave_one_out=leave_one_out)
    for subset in SUBSETS:
        distances = sum(block_distances(stored.blocks[e], stored.blocks[e]) for e in subset)
        if leave_one_out:
            np.fill_diagonal(distances, np.inf)
        near = distances <= np.sort(distances, axis=1)[:, [8]]
        expected = losses(near @ stored.values, stored.values, kind).astype(np.float32)
        assert (tables.at(subset, np.arange(300))[:, 0] == expected).all()


def test_requests_with_equal_outputs_are_decided_as_if_alone():
    stored, rng = quantised(), np.random.default_rng(2)
    x = np.concatenate(stored.blocks, axis=1)
    policy = FrugalPolicy(blocks=[3, 3, 3, 2], rate=0.01, start="mean_loss", m_neighbors=20)
    policy.fit(x, stored.values.argmax(axis=1))
    new = x[rng.integers(0, 300, 80)]
    together, alone = policy.sweep(new, [0.0, 0.01]), [policy.sweep(one[None], [0.0, 0.01]) for one in new]
    for rate in range(2):
        for field in ("order", "answers", "scores", "current", "best", "distance"):
            one_by_one = np.concatenate([getattr(walks[rate], field) for walks in alone])
            assert np.array_equal(getattr(together[rate], field), one_by_one, equal_nan=True)


@pytest.mark.parametrize("lookahead", [1, 2])
@pytest.mark.parametrize("ties", ["inclusive", "lowest"])
@pytest.mark.parametrize("chooses", [False, True])
def test_one_request_alone_is_decided_as_among_others(lookahead, ties, chooses):
    stored, rng = quantised(), np.random.default_rng(3)
    x = np.concatenate(stored.blocks, axis=1)
    options = {"blocks": [3, 3, 3, 2], "start": "mean_loss", "lookahead": lookahead, "ties": ties}
    if chooses:  # the last block is a context
        policy = FrugalRouter(**options, rate=0.003).fit(x, rng.random((300, 3)))
    else:
        policy = FrugalPolicy(**options, rate=0.003).fit(x, stored.values.argmax(axis=1))
    new = x[rng.integers(0, 300, 40)] + rng.choice([0, 1e-3], (40, 1))
    together = policy.decide(new)
    assert 1 < together.asked.mean() < 4
    alone = [policy.decide(one[None]) for one in new]
    for field in ("order", "answers", "scores", "current", "best", "distance", "reasons", "spent"):
        one_by_one = np.concatenate([getattr(walks, field) for walks in alone])
        assert np.array_equal(getattr(together, field), one_by_one, equal_nan=field in ("current", "best"))
