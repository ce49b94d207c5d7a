import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.generation.feedback import personalised, pick, progen_pick, random_pick

SCORES = [0.3, -0.5, 0.0, -0.1, 0.9, -0.7]


def test_helpful_shots_have_the_most_negative_scores():
    assert set(pick(SCORES, 2, sign="helpful", rng_seed=0)) == {1, 5}
    assert set(pick(SCORES, 2, sign="harmful", rng_seed=0)) == {0, 4}


def test_shots_are_shuffled_by_the_seed_alone():
    orders = {tuple(pick(range(8), 8, sign="helpful", rng_seed=seed)) for seed in range(10)}
    assert len(orders) > 5
    assert (
        pick(SCORES, 6, sign="helpful", rng_seed=3).tolist()
        == pick(SCORES, 6, sign="helpful", rng_seed=3).tolist()
    )


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        pick([0.1, np.nan], 1, sign="helpful", rng_seed=0)


@given(st.integers(0, 30), st.integers(0, 40), st.integers(0, 5))
def test_random_shots_are_distinct(n, size, seed):
    chosen = random_pick(n, size, rng_seed=seed)
    assert len(set(chosen.tolist())) == len(chosen) == min(n, size)


def test_progen_takes_helpful_samples_of_the_label_among_the_fifty_best():
    scores = np.linspace(-1, 0.2, 200)
    labels = np.arange(200) % 2
    draws = [progen_pick(scores, labels, 1, rng_seed=seed) for seed in range(40)]
    seen = set(np.concatenate(draws).tolist())
    assert all(len(set(draw.tolist())) == 8 for draw in draws)
    assert seen <= set(range(1, 100, 2))
    assert len(seen) > 40


def test_progen_shows_nothing_that_does_not_help():
    assert progen_pick([0.0, 0.1, -0.1], [0, 0, 1], 0, rng_seed=0).tolist() == []


def gaps(n=40):
    """Model 0 is wrong about the samples 10 to 19, all others are right; model 2 wrote the even ones."""
    p = np.full((3, n), 0.9)
    p[0, 10:20] = 0.1
    owner = np.where(np.arange(n) % 2 == 0, 2, 1)
    return p, np.arange(n) // 2 % 2, owner


def test_personalised_shots_are_what_only_this_model_gets_wrong():
    p, labels, owner = gaps()
    chosen = personalised(p, labels, owner, 0, 8, n_classes=2, pool=10, rng_seed=0)
    assert set(chosen) <= set(range(10, 20))
    assert np.bincount(labels[chosen]).tolist() == [4, 4]


def test_personalised_shots_never_come_from_the_model_itself():
    p, labels, owner = gaps()
    assert set(owner[personalised(p, labels, owner, 2, 8, n_classes=2, rng_seed=0)]) == {1}
    assert len(personalised(p, labels, np.full(40, 2), 2, 8, n_classes=2, rng_seed=0)) == 0


def test_personalised_shots_are_the_most_useful_of_the_pool():
    p, labels, owner = gaps()
    useful = np.zeros(40)
    useful[[10, 11, 12, 13, 30]] = 1
    assert set(personalised(p, labels, owner, 0, 4, n_classes=2, usefulness=useful, pool=10, rng_seed=1)) == {
        10,
        11,
        12,
        13,
    }


def test_samples_on_which_the_others_disagree_come_last():
    p = np.array([[0.4, 0.0], [0.6, 1.0], [0.6, 0.4]])
    assert personalised(p, [0, 0], [1, 1], 0, 1, n_classes=2, pool=1, rng_seed=0).tolist() == [0]


def test_personalised_feedback_with_one_model_is_refused_and_with_one_class_works():
    with pytest.raises(ValueError, match="two models"):
        personalised([[0.5]], [0], [0], 0, 1, n_classes=2, rng_seed=0)
    assert len(personalised(np.full((2, 9), 0.5), [1] * 9, [1] * 9, 0, 4, n_classes=2, rng_seed=0)) == 4


def test_groups_take_turns_in_a_pick():
    scores, labels = [-5.0, -4.0, -3.0, -2.0, -1.0], [0, 0, 0, 1, 1]
    assert set(pick(scores, 4, sign="helpful", rng_seed=1)) == {0, 1, 2, 3}
    assert set(pick(scores, 4, sign="helpful", groups=labels, rng_seed=1)) == {0, 1, 3, 4}
