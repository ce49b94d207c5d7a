import pytest
import torch

from fusion.merging.heads import align, merge_heads, same
from fusion.merging.regmean import regmean
from tests.fusion.merging.test_regmean import linear

MAPS = [{0: "joy", 1: "anger"}, {"0": "anger", "1": "fear", "2": "joy"}, {0: "anger"}]


def heads():
    """Weights (labels, m), biases (labels,) and Gram matrices for `MAPS`."""
    weights, _, grams = linear(n=3)
    cut = [w.T[: len(names)] for w, names in zip(weights, MAPS, strict=True)]
    return cut, [w[:, 0] for w in cut], grams


def test_labels_are_aligned_by_name():
    space = align(MAPS)
    assert space.labels == ("joy", "anger", "fear")
    assert space.rows == ((0, 2, None), (1, 0, 0), (None, 1, None))


@pytest.mark.parametrize("names", [{0: "LABEL_0", 1: "LABEL_1"}, {"0": "0", "1": "1"}, {0: "label3", 1: "7"}])
def test_mere_numbers_are_refused_unless_forced(names):
    with pytest.raises(ValueError, match="model 1 calls its labels"):
        align([{0: "joy"}, names])
    assert align([names, names], force=True).rows == ((0, 0), (1, 1))
    assert align([names]).rows == ((0,), (1,))


def test_bad_label_maps_are_named():
    with pytest.raises(ValueError, match="model 0: labels are numbered"):
        align([{0: "joy", 2: "fear"}])
    with pytest.raises(ValueError, match="model 1 has two labels of one name"):
        align([{0: "joy"}, {0: "fear", 1: "fear"}])
    with pytest.raises(ValueError, match="model 0"):
        align([{}])


def test_equal_label_sets_need_no_alignment():
    assert same([{0: "a", 1: "b"}, {"0": "a", "1": "b"}])
    assert not same([{0: "a", 1: "b"}, {0: "b", 1: "a"}])


def test_a_row_of_one_model_is_copied_and_shared_rows_are_solved_for_among_those():
    weights, biases, grams = heads()
    head = merge_heads(align(MAPS), weights, biases, grams=grams, alpha=0.9, coefficients=[1, 2, 3])
    assert torch.equal(head.weight[2], weights[1][1])
    assert head.bias[2] == biases[1][1]
    joy = regmean([weights[0][:1].T, weights[1][2:].T], grams[:2], alpha=0.9, coefficients=[1, 2])
    assert torch.allclose(head.weight[0], joy.weight[:, 0])
    anger = [weights[0][1:2].T, weights[1][:1].T, weights[2].T]
    assert torch.allclose(
        head.weight[1], regmean(anger, grams, alpha=0.9, coefficients=[1, 2, 3]).weight[:, 0]
    )
    assert head.bias[0] == pytest.approx(float((biases[0][0] + 2 * biases[1][2]) / 3))
    assert head.diagnostics.keys() == {(0, 1), (0, 1, 2)}


def test_without_matrices_shared_rows_are_averaged():
    weights, _, _ = heads()
    head = merge_heads(align(MAPS), weights)
    assert head.bias is None
    assert torch.allclose(head.weight[0], (weights[0][0] + weights[1][2]) / 2)
    assert torch.equal(head.weight[2], weights[1][1])
    assert not head.diagnostics
