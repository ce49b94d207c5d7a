"""Facts F2 to F4 and F10 to F12 of the method, and what a walk promises."""

from itertools import combinations, product

import numpy as np
import pytest

from fusion.routing.expectations import Expectations
from fusion.routing.losses import KnnLosses, losses
from fusion.routing.policy import FrugalPolicy, FrugalRouter
from fusion.routing.states import States
from fusion.routing.stored import Stored

WORKED = np.array([
    [0.10, 0.50, 0.20], [0.20, 0.50, 0.90], [0.50, 0.10, 0.33], [0.52, 0.90, 0.50],
    [0.55, 0.15, 0.72], [0.80, 0.50, 0.10], [0.90, 0.50, 0.80],
])  # fmt: skip
LABELS = np.array([0, 0, 0, 1, 0, 1, 1])
REQUEST = [[0.53, 0.88, 0.40]]


def stored(columns=WORKED, labels=LABELS):
    return Stored(tuple(columns.T[:, :, None]), np.eye(labels.max() + 1)[labels])


def worked(rate):
    policy = FrugalPolicy(
        rate=rate, n_neighbors=1, m_neighbors=2, loss="zero_one", ties="lowest", start="mean_loss"
    )
    return policy.fit(WORKED, LABELS)


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        ((0,), "0011100"), ((1,), "0001011"), ((2,), "1101111"), ((0, 1), "0000000"),
        ((0, 2), "0011111"), ((1, 2), "1101111"), ((0, 1, 2), "0000011"),
    ],
)  # fmt: skip
def test_fact_f2_losses_of_all_subsets(subset, expected):
    tables = KnnLosses(stored(), neighbours=1, loss="zero_one", ties="lowest")
    found = tables.at(subset, np.arange(7))[:, 0]
    assert "".join(str(int(loss)) for loss in found) == expected


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_fact_f2_a_second_expert_is_worth_its_price(rate):
    done = worked(rate).decide(REQUEST)
    assert done.order.tolist() == [[0, 1, -1]]
    assert (done.current[0, 0], done.best[0, 0]) == pytest.approx((1.0, rate))
    assert (done.current[0, 1], done.best[0, 1]) == pytest.approx((0.0, 0.5 + rate))
    assert (done.answers[0], done.reasons[0], done.spent[0]) == (1, "gain", 2)


def test_fact_f2_a_second_expert_is_too_dear():
    done = worked(1.01).decide(REQUEST)
    assert (done.order.tolist(), done.answers.tolist()) == ([[0, -1, -1]], [1])


def test_fact_f3_a_coarse_loss_makes_small_rates_the_same(digits4):
    policy = FrugalPolicy(
        blocks=digits4.blocks, loss="zero_one", m_neighbors=10, start="mean_loss", ties="lowest"
    )
    policy.fit(digits4.columns, digits4.labels)
    walks = policy.sweep(digits4.requests[:200], [0.001, 0.01, 0.05, 0.099])
    assert all((walk.order == walks[0].order).all() for walk in walks)
    right = (policy.classes_[walks[0].answers] == digits4.truth[:200]).mean()
    assert (right, walks[0].asked.mean()) == pytest.approx((0.905, 2.08), abs=0.006)


PARITY = np.array([bits for bits in product([0, 1], repeat=3) for _ in range(5)], float)
ODD = PARITY.sum(axis=1).astype(int) % 2


def test_fact_f4_losses_under_parity():
    for kind, expected in (("zero_one", [1.0, 1.0, 0.0]), ("soft", [10 / 19, 5 / 9, 0.0])):
        tables = KnnLosses(stored(PARITY, ODD), neighbours=3, loss=kind)
        for size, loss in zip((1, 2, 3), expected, strict=True):
            for subset in combinations(range(3), size):
                found = tables.at(subset, np.arange(40))[:, 0]
                assert found == pytest.approx(np.full(40, loss))


@pytest.mark.parametrize(
    ("lookahead", "rate", "asked"), [(1, 0.01, 1), (1, 0.5, 1), (2, 0.5, 3), (2, 0.51, 1)]
)
def test_fact_f4_parity_needs_a_look_further_ahead(lookahead, rate, asked):
    policy = FrugalPolicy(
        n_neighbors=3, m_neighbors=10, loss="zero_one", start="mean_loss", rate=rate, lookahead=lookahead
    )
    assert (policy.fit(PARITY, ODD).decide(PARITY[::5]).asked == asked).all()


def test_fact_f10_under_equal_prices_a_smaller_rate_asks_on_where_a_larger_one_stops(digits4):
    policy = FrugalPolicy(blocks=digits4.blocks, start="mean_loss").fit(digits4.columns, digits4.labels)
    walks = policy.sweep(digits4.requests[:100], [0, 0.05, 0.15, 0.25, 5])
    for more, fewer in combinations(walks, 2):
        shorter = fewer.order >= 0
        assert (more.order[shorter] == fewer.order[shorter]).all()
        assert (more.asked >= fewer.asked).all()


def test_the_order_follows_prices(digits4):
    policy = FrugalPolicy(blocks=digits4.blocks, rate=0.02, start="mean_loss").fit(
        digits4.columns, digits4.labels
    )
    cheap = np.where(np.arange(10) == 7, 0.0, 1.0)
    without, with_prices = (policy.decide(digits4.requests, prices=p) for p in (np.ones(10), cheap))
    assert (with_prices.order == 7).any(axis=1).mean() > (without.order == 7).any(axis=1).mean()


def brute_force_loss(data, subset, item, neighbours):
    """Soft leave-one-out loss from scratch, over concatenated outputs."""
    columns = np.concatenate([data.stored[expert] for expert in subset], axis=1)
    distances = ((columns - columns[item]) ** 2).sum(axis=1)
    distances[item] = np.inf
    last = np.sort(distances)[neighbours - 1]
    near = distances <= last + 1e-9
    return 1 - (data.labels[near] == data.labels[item]).mean()


def test_fact_f11_tables_lookups_and_brute_force_agree(digits4):
    rng = np.random.default_rng(0)
    memory = Stored(tuple(digits4.stored), np.eye(10)[digits4.labels])
    lazy, eager = KnnLosses(memory), KnnLosses(memory)
    subsets = sorted({tuple(sorted(rng.permutation(10)[: rng.integers(1, 6)].tolist())) for _ in range(30)})
    built = eager.build(subsets, np.arange(len(memory)))[:, :, 0]
    for subset, table in zip(subsets, built, strict=True):
        items = np.sort(rng.permutation(len(memory))[:10])
        once = lazy.at(subset, items)[:, 0]
        child = lazy.among([(subset[:-1] or subset, subset)], np.zeros(10, int), items)[:, 1, 0]
        expected = [brute_force_loss(digits4, subset, item, 9) for item in items]
        assert once == pytest.approx(expected, abs=1e-6)
        assert (table[items] == once.astype(np.float32)).all()
        assert (child == once).all()


def test_fact_f11_a_fuser_does_not_know_in_which_order_experts_were_asked(digits4):
    policy = FrugalPolicy(blocks=digits4.blocks, rate=0.02).fit(digits4.columns, digits4.labels)
    rows, found = np.arange(40), []
    for order in ([2, 5, 7], [7, 2, 5]):
        states, of = States(policy.stored_, 40), np.zeros(40, int)
        seen = Expectations(states, policy.losses_, policy.prices_, neighbours=30, ties="inclusive")
        for expert in order:
            states.tell(expert, rows, digits4.new[expert][:40])
            of = states.enter(of, np.full(40, expert), rows)
        seen.update()
        scores, distance = seen.scores(np.unique(of))
        found.append((scores[of], distance[of], seen.expect(of, np.zeros(40), 1)))
    for one, other in zip(*found, strict=True):
        assert (one == other).all()


def test_fact_f12_an_expert_that_may_not_be_asked_is_as_good_as_gone(digits4):
    gone = 3
    rest = [e for e in range(10) if e != gone]
    options = {"rate": 0.02, "start": "mean_loss"}
    whole = FrugalPolicy(blocks=digits4.blocks, **options).fit(digits4.columns, digits4.labels)
    less = FrugalPolicy(blocks=[10] * 9, **options).fit(
        np.concatenate(digits4.stored[rest], axis=1), digits4.labels
    )
    may = np.arange(10) != gone
    a = whole.decide(digits4.requests, allowed=may)
    b = less.decide(np.concatenate(digits4.new[rest], axis=1))
    assert (a.answers == b.answers).all()
    named = np.where(b.order >= 0, np.array(rest)[b.order], -1)
    assert (a.order[:, :9] == named).all()
    assert set(a.reasons) <= {"gain"}


@pytest.mark.parametrize("budget", [1.0, 2.5, 4.0])
def test_fact_f12_a_budget_is_never_passed(digits4, budget):
    prices = np.linspace(0.5, 1.5, 10)
    policy = FrugalPolicy(blocks=digits4.blocks, prices=prices, start="mean_loss").fit(
        digits4.columns, digits4.labels
    )
    done = policy.decide(digits4.requests, budget=budget)
    assert done.spent.max() <= budget + 1e-9
    assert done.spent == pytest.approx([prices[order[order >= 0]].sum() for order in done.order])
    assert "budget" in done.reasons


def test_fact_f12_an_endless_rate_asks_one_expert(digits4):
    policy = FrugalPolicy(blocks=digits4.blocks, start="mean_loss").fit(digits4.columns, digits4.labels)
    done = policy.sweep(digits4.requests, [1e9])[0]
    assert (done.asked == 1).all()
    assert (done.order[:, 0] == policy.starts(1e9)[0]).all()


def test_nobody_who_may_be_asked_is_an_error(digits4):
    policy = FrugalPolicy(blocks=digits4.blocks, start="mean_loss").fit(digits4.columns, digits4.labels)
    with pytest.raises(ValueError, match="no expert that may be asked"):
        policy.decide(digits4.requests[:3], budget=0.5)


def test_walks_are_taken_step_by_step(digits4):
    policy = FrugalPolicy(blocks=digits4.blocks, rate=0.02, start="mean_loss").fit(
        digits4.columns, digits4.labels
    )
    at_once, walk = policy.decide(digits4.requests[:50]), policy.begin(50)
    while not walk.done:
        for expert, rows in walk.wanted().items():
            walk.tell(expert, rows, digits4.new[expert][rows])
        assert not walk.wanted()
        walk.step()
    (found,) = walk.result()
    assert (found.order == at_once.order).all()
    assert (found.scores == at_once.scores).all()


def test_an_expert_that_does_not_answer_is_as_good_as_gone_but_for_its_price(digits4):
    policy = FrugalPolicy(blocks=digits4.blocks, rate=0.02, start="mean_loss").fit(
        digits4.columns, digits4.labels
    )
    dead, lost = policy.starts(0.02)[0], np.zeros(300, bool)
    walk = policy.begin(300)
    while not walk.done:
        while wanted := walk.wanted():
            for expert, rows in wanted.items():
                if expert == dead:
                    lost[rows] = True
                    walk.lost(expert, rows)
                else:
                    walk.tell(expert, rows, digits4.new[expert][:300][rows])
        walk.step()
    (found,) = walk.result()
    without = policy.decide(digits4.requests[:300], allowed=np.arange(10) != dead)
    assert lost.all()
    assert (found.order == without.order).all()
    assert (found.answers == without.answers).all()
    assert found.spent == pytest.approx(without.spent + 1)


def test_a_walk_that_loses_everyone_or_is_stopped_ends_where_it_is(digits4):
    policy = FrugalPolicy(blocks=digits4.blocks, start="mean_loss").fit(digits4.columns, digits4.labels)
    walk = policy.begin(2, allowed=[True, True, *[False] * 8])
    for _ in range(2):
        ((expert, rows),) = walk.wanted().items()
        walk.lost(expert, rows)
    assert walk.done and walk.result()[0].answers.tolist() == [-1, -1]
    assert walk.result()[0].reasons.tolist() == ["unavailable"] * 2
    walk = policy.begin(2)
    ((expert, rows),) = walk.wanted().items()
    walk.tell(expert, rows, digits4.new[expert][rows])
    walk.step()
    walk.stop("deadline")
    (found,) = walk.result()
    assert walk.done and found.reasons.tolist() == ["deadline"] * 2
    assert found.asked.tolist() == [1, 1] and (found.answers >= 0).all()


def test_limits_on_how_many_are_asked(digits4):
    policy = FrugalPolicy(blocks=digits4.blocks, start="mean_loss", min_experts=2, max_experts=3, rate=0.02)
    done = policy.fit(digits4.columns, digits4.labels).decide(digits4.requests)
    assert (done.asked.min(), done.asked.max()) == (2, 3)
    assert (done.reasons[done.asked == 3] == "limit").all()


@pytest.fixture(scope="module")
def two_topics():
    """Features of two experts' responses to 300 prompts, and who is good: the first tells the topic."""
    rng = np.random.default_rng(0)
    topic = rng.integers(0, 2, 300)
    features = np.stack([topic + rng.normal(0, 0.05, 300), rng.random(300)], axis=1)
    return features, np.stack([topic, 1 - topic], axis=1).astype(float)


def router(**options):
    return FrugalRouter(prices=[1.0, 5.0], start="mean_loss", **options)


def test_a_chosen_expert_is_paid_for_unless_it_was_asked(two_topics):
    features, quality = two_topics
    done = router(rate=0.01).fit(features[:200], quality[:200]).decide(features[200:])
    assert (done.order[:, 0] == 0).all()
    assert (quality[200:][np.arange(100), done.answers] == 1).all()
    assert done.spent == pytest.approx(np.where(done.answers == 0, 1.0, 6.0))


def test_only_responses_that_can_be_paid_are_chosen(two_topics):
    features, quality = two_topics
    done = router(rate=0.01).fit(features[:200], quality[:200]).decide(features[200:], budget=3.0)
    assert (done.answers == 0).all() and (done.spent == 1).all()


def test_dear_responses_are_not_looked_for(two_topics):
    features, quality = two_topics
    policy = router().fit(features[:200], quality[:200])
    cheap, dear = policy.sweep(features[200:], [0.0, 10.0])
    assert (quality[200:][np.arange(100), cheap.answers] == 1).all()
    assert (dear.answers == 0).all() and (dear.spent == 1).all()


def test_soft_losses_are_shares_of_votes():
    scores, values = np.array([[3.0, 1.0], [2.0, 2.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    assert losses(scores, values, "soft") == pytest.approx([0.75, 0.5])
    assert losses(scores, values, "zero_one") == pytest.approx([1.0, 0.0])


def test_experts_that_are_asked_at_once_are_chosen_greedily():
    policy = FrugalPolicy(n_neighbors=1, loss="zero_one", ties="lowest", prices=[1, 1, 5]).fit(WORKED, LABELS)
    tables = policy.losses_
    lost = {
        subset: tables.at(subset, np.arange(7)).mean()
        for size in (1, 2)
        for subset in combinations(range(3), size)
    }
    first = min(range(3), key=lambda e: lost[e,])
    second = min({0, 1, 2} - {first}, key=lambda e: lost[tuple(sorted((first, e)))])
    assert policy.forward(2, 0.0) == [first, second]
    assert policy.forward(3, 0.0, allowed=[True, False, True], budget=1.5) == [0]
    assert policy.forward(9, 1.0) == [*policy.forward(2, 1.0), 2]  # the dear one last


def test_what_is_paid_already_costs_nothing_more():
    policy = worked(0.0)
    free = policy.begin(1, 0.0, paid=[0, 1])
    done = free.run(lambda expert, rows: np.array(REQUEST)[rows][:, [expert]])[0]
    assert done.spent.tolist() == [0.0] and done.order[0, :2].tolist() == [0, 1]
    with pytest.raises(ValueError, match="budget"):
        policy.begin(1, 0.0, paid=[0, 1], allowed=[False, False, True], budget=2.5)
