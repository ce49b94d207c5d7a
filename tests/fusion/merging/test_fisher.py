import pytest
import torch

from fusion.merging.average import average
from fusion.merging.fisher import diagonal_fisher, directions, fisher_average, norm


def softmax_model(labels: int = 3, features: int = 2, seed: int = 0):
    """A linear softmax model, its parameters, and samples (20, features)."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(labels, features, dtype=torch.float64, generator=generator).requires_grad_()
    bias = torch.zeros(labels, dtype=torch.float64, requires_grad=True)
    samples = torch.randn(20, features, dtype=torch.float64, generator=generator)
    return (lambda x: (weight @ x + bias).log_softmax(0)), {"w": weight, "b": bias}, samples


def by_hand(parameters, samples, shares_of):
    """Mean of sum_y share_y (e_y - p)^2 x^2, the square of the gradient of log p_y."""
    total = 0
    for x in samples:
        p = (parameters["w"] @ x).softmax(0).detach()
        for label, share in enumerate(shares_of(p)):
            total = total + share * torch.outer(torch.eye(len(p))[label].double() - p, x).square()
    return total / len(samples)


def test_the_expectation_is_over_the_labels_of_the_model():
    log_p, parameters, samples = softmax_model()
    found = diagonal_fisher(log_p, parameters, samples)
    assert found.samples == 20
    assert torch.allclose(found.mean()["w"], by_hand(parameters, samples, lambda p: p))
    exact = torch.stack([p * (1 - p) for p in ((parameters["w"] @ x).softmax(0) for x in samples)]).mean(0)
    assert torch.allclose(found.mean()["b"], exact.detach())


@pytest.mark.parametrize(
    "probabilities", [[0.5, 0.5], [0.7, 0.2, 0.1], [1 - 2e-6, 1e-6, 1e-6, 0.0], [0.1] * 10]
)
def test_fewer_directions_than_labels_have_the_same_second_moment(probabilities):
    p = torch.tensor(probabilities, dtype=torch.float64)
    rows = directions(p.log(), "expected")
    gradients = torch.eye(len(p)) - p  # of log p with respect to the logits
    wanted = gradients.T @ torch.diag(p) @ gradients
    # v . log p has the gradient v - p sum(v); rows sum to 0.
    moved = rows - p * rows.sum(dim=1, keepdim=True)
    assert torch.allclose(moved.T @ moved, wanted.double(), atol=1e-9 * float(wanted.trace()))
    assert len(rows) == (p > 0).sum() - 1


def test_sparse_gradients_of_an_embedding_count_as_dense_ones():
    torch.manual_seed(0)
    head, tokens = torch.randn(3, 4, dtype=torch.float64), torch.tensor([[1, 5, 1], [2, 2, 7]])
    found = []
    for sparse in (False, True):
        torch.manual_seed(1)
        table = torch.nn.Embedding(9, 4, sparse=sparse, dtype=torch.float64)
        parameters = {"table": table.weight}
        log_p = lambda ids, table=table: (head @ table(ids).sum(0).tanh()).log_softmax(0)  # noqa: E731
        found.append(diagonal_fisher(log_p, parameters, tokens).mean()["table"])
    assert torch.allclose(*found) and float(found[0][5].sum()) > 0 and float(found[1][0].sum()) == 0


def test_other_labels_may_be_asked_for():
    log_p, parameters, samples = softmax_model()
    hard = diagonal_fisher(log_p, parameters, samples, labels="predicted").mean()["w"]
    assert torch.allclose(hard, by_hand(parameters, samples, lambda p: torch.eye(3)[p.argmax()]))
    given = [i % 3 for i in range(20)]
    found = diagonal_fisher(log_p, parameters, samples, labels="given", given=given).mean()["w"]
    order = iter(given)
    assert torch.allclose(found, by_hand(parameters, samples, lambda _: torch.eye(3)[next(order)]))
    with pytest.raises(ValueError, match="labels are needed"):
        diagonal_fisher(log_p, parameters, samples, labels="given")


def test_the_square_is_taken_per_sample():
    log_p, parameters, _ = softmax_model(features=1)
    opposite = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    parameters["w"].data.zero_()
    found = diagonal_fisher(log_p, parameters, opposite, labels="given", given=[0, 0]).mean()["w"]
    # The gradients cancel in the mean over the batch, their squares do not.
    assert float(found.min()) > 0.1


def test_a_sample_without_a_finite_gradient_is_left_out():
    log_p, parameters, samples = softmax_model()
    samples[3] = torch.nan
    found = diagonal_fisher(log_p, parameters, samples)
    assert (found.samples, found.skipped) == (19, 1)
    assert torch.isfinite(found.mean()["w"]).all()
    with pytest.raises(ValueError, match="no sample"):
        diagonal_fisher(log_p, parameters, []).mean()


def test_precise_parameters_count_more():
    a, b = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([3.0, 3.0, 3.0])
    fishers = [torch.tensor([3.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, 0.0])]
    assert fisher_average([a, b], fishers).tolist() == pytest.approx([1.5, 3, 2])
    assert fisher_average([a, b], fishers, coefficients=[1, 3]).tolist() == pytest.approx([2, 3, 2.5])


def test_normalising_takes_the_size_out():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])
    fishers = [torch.tensor([2.0, 1.0]), torch.tensor([1.0, 1.0])]
    louder = [fishers[0] * 100, fishers[1]]

    def normal(given):
        return fisher_average([a, b], given, norms=[norm([f]) for f in given])

    assert torch.allclose(normal(fishers), normal(louder), atol=1e-6)
    assert not torch.allclose(fisher_average([a, b], fishers), fisher_average([a, b], louder), atol=1e-2)
    assert norm([torch.tensor([3.0]), torch.tensor([4.0])]) == 5


def test_equal_models_stay_and_equal_information_is_the_average():
    a, b = torch.randn(4), torch.randn(4)
    assert torch.equal(fisher_average([a, a], [torch.rand(4), torch.rand(4)]), a)
    assert torch.allclose(fisher_average([a, b], [torch.ones(4)] * 2), average([a, b]))
    with pytest.raises(ValueError, match="not negative"):
        fisher_average([a, b], [-torch.ones(4), torch.ones(4)])
