"""A classifier alone, and several whose answers are averaged, asked through the interface of a policy."""

import numpy as np
import pytest

from fusion.routing.averaging import Averaging

SAID = np.array([[0.2, 0.8], [0.9, 0.1], [0.5, 0.5]])
OTHER = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])


def test_what_one_says_is_answered():
    walk = Averaging(2, [3.0]).begin(3)
    (found,) = walk.run(lambda expert, rows: SAID[rows])
    assert walk.done and not walk.wanted()
    assert found.answers.tolist() == [1, 0, 0]
    assert found.scores.tolist() == SAID.tolist()
    assert found.current[:, 0] == pytest.approx([0.2, 0.1, 0.5])
    assert (found.spent.tolist(), found.reasons.tolist()) == ([3.0] * 3, ["all"] * 3)


def test_who_does_not_answer_costs_and_gives_nothing():
    walk = Averaging(2, [3.0]).begin(3)
    walk.tell(0, np.array([0]), SAID[:1])
    walk.lost(0, np.array([1]))
    assert {expert: rows.tolist() for expert, rows in walk.wanted().items()} == {0: [2]}
    walk.stop("deadline")
    (found,) = walk.result()
    assert found.answers.tolist() == [1, -1, -1]
    assert found.reasons.tolist() == ["all", "unavailable", "deadline"]
    assert found.spent.tolist() == [3.0, 3.0, 0.0]
    assert found.order.tolist() == [[0], [-1], [-1]]


@pytest.mark.parametrize("rules", [{"allowed": [False]}, {"budget": 2.0}])
def test_who_may_not_be_asked_is_refused(rules):
    with pytest.raises(ValueError, match="may be asked"):
        Averaging(2, [3.0]).begin(1, **rules)


def test_what_several_say_is_averaged():
    walk = Averaging(2, [3.0, 1.0]).begin(3)
    assert {expert: rows.tolist() for expert, rows in walk.wanted().items()} == {0: [0, 1, 2], 1: [0, 1, 2]}
    (found,) = walk.run(lambda expert, rows: (SAID, OTHER)[expert][rows])
    assert found.scores == pytest.approx((SAID + OTHER) / 2)
    assert found.answers.tolist() == [0, 0, 1]
    assert found.order.tolist() == [[0, 1]] * 3 and found.spent.tolist() == [4.0] * 3
    assert found.current[0] == pytest.approx([0.2, 0.45])


def test_those_that_answer_are_enough():
    walk = Averaging(2, [3.0, 1.0]).begin(2)
    walk.tell(1, np.array([0, 1]), OTHER[:2])
    walk.lost(0, np.array([0]))
    walk.stop("deadline")
    (found,) = walk.result()
    assert found.answers.tolist() == [0, 0] and found.order.tolist() == [[1, -1]] * 2
    assert found.reasons.tolist() == ["unavailable", "deadline"]
    assert found.spent.tolist() == [4.0, 1.0]


@pytest.mark.parametrize(
    ("rules", "asked"),
    [({"budget": 3.5}, [0]), ({"allowed": [False, True]}, [1]), ({"max_experts": 1}, [0]), ({}, [0, 1])],
)
def test_experts_are_taken_as_far_as_rules_allow(rules, asked):
    assert list(Averaging(2, [3.0, 1.0]).begin(1, **rules).wanted()) == asked
