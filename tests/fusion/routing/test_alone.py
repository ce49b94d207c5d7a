"""A classifier alone, asked through the interface of a policy."""

import numpy as np
import pytest

from fusion.routing.alone import Alone

SAID = np.array([[0.2, 0.8], [0.9, 0.1], [0.5, 0.5]])


def test_what_it_says_is_answered():
    walk = Alone(2, price=3.0).begin(3)
    (found,) = walk.run(lambda expert, rows: SAID[rows])
    assert walk.done and not walk.wanted()
    assert found.answers.tolist() == [1, 0, 0]
    assert found.scores.tolist() == SAID.tolist()
    assert found.current[:, 0] == pytest.approx([0.2, 0.1, 0.5])
    assert (found.spent.tolist(), found.reasons.tolist()) == ([3.0] * 3, ["all"] * 3)


def test_who_does_not_answer_costs_and_gives_nothing():
    walk = Alone(2, price=3.0).begin(3)
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
        Alone(2, price=3.0).begin(1, **rules)
