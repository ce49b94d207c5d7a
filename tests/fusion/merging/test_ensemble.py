import pytest
import torch

from fusion.merging.ensemble import ensemble, vote
from fusion.merging.heads import align


def test_models_that_know_a_label_say_how_likely_it_is():
    space = align([{0: "joy", 1: "anger"}, {0: "anger", 1: "fear"}])
    found = ensemble([torch.tensor([[0.2, 0.8]]), torch.tensor([[0.4, 0.6]])], space)
    assert found[0].tolist() == pytest.approx([0.2 / 1.4, 0.6 / 1.4, 0.6 / 1.4])
    heavy = ensemble([torch.tensor([[0.2, 0.8]]), torch.tensor([[0.4, 0.6]])], space, coefficients=[3, 1])
    assert heavy[0].tolist() == pytest.approx([0.2 / 1.5, 0.7 / 1.5, 0.6 / 1.5])


def test_equal_label_sets_give_the_mean():
    space = align([{0: "a", 1: "b"}] * 2)
    p, q = torch.rand(5, 2).softmax(1), torch.rand(5, 2).softmax(1)
    assert torch.allclose(ensemble([p, q], space), (p + q) / 2)


def test_most_votes_win_and_the_first_among_equals():
    answers = torch.tensor([[3, 1, 2], [0, 1, 5], [0, 2, 4]])
    assert vote(answers).tolist() == [0, 1, 2]
