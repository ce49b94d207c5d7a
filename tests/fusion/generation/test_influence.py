from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy

from fusion.generation.influence import (
    Probe,
    gradient_dot,
    inverse_hvp,
    last_layer,
    last_layer_hessian,
    last_layer_of_spans,
    lissa,
    per_sample_lissa,
    rce,
    tracin,
)


def softmax(x):
    exp = np.exp(x - x.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def onehot(y, n_classes):
    return np.eye(n_classes)[y]


def numeric_rce(p, y, n_classes):
    q = softmax(onehot(y, n_classes))
    return -(p * np.log(q)).sum(-1)


def test_fact_9_reverse_cross_entropy():
    assert_allclose([rce(1.0, c) for c in (2, 3, 4, 5)], [0.313262, 0.551445, 0.743668, 0.904832], atol=1e-6)
    assert rce(0.9, 2) == pytest.approx(0.413262, abs=1e-6)
    assert rce(1.0, 2, 10) == pytest.approx(4.54e-5, abs=1e-7)
    assert rce(0.0, 2, 10) - rce(1.0, 2, 10) == pytest.approx(10)


def test_fact_9_the_identity_holds_for_any_distribution():
    p = softmax(np.random.default_rng(0).normal(size=(20, 4)))
    y = np.arange(20) % 4
    assert_allclose(rce(p[np.arange(20), y], 4), numeric_rce(p, y, 4))


def logistic_model():
    """sigma(0.2 x) as a softmax layer over x without bias: features x, classes 0 and 1."""
    x = np.array([1.0, -1.0, 1.0, -1.0])
    y = np.array([1, 0, 0, 1])
    x_v, y_v = np.array([1.0, -1.0, 2.0]), np.array([1, 0, 1])
    return x, y, x_v, y_v, lambda x: 1 / (1 + np.exp(-0.2 * x))


def test_fact_10_influence_sign():
    x, y, x_v, y_v, sigma = logistic_model()
    gradient = -np.mean((2 * y_v - 1) * sigma(x_v) * (1 - sigma(x_v)) * x_v)
    hessian = np.mean(sigma(x_v) * (1 - sigma(x_v)) * x_v**2)
    scores = -gradient / hessian * (sigma(x) - y) * x
    assert_allclose(scores, [-0.3016, -0.3016, 0.3684, 0.3684], atol=5e-5)

    # A two-class softmax over the halves +-0.1 x is the same model; its dot products are twice as large.
    def proba(x):
        return np.stack([1 - sigma(x), sigma(x)], axis=1)

    closed = last_layer(x[:, None], proba(x), y, x_v[:, None], proba(x_v), y_v, bias=False)
    assert_allclose(closed / (2 * hessian), scores)


def span_model(n=6, tokens=5, width=3):
    """A layer that scores tokens as starts and ends: states of tokens, places asked for, and a probe."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(width, 2, bias=False, dtype=torch.float64)
    states = torch.randn(n, tokens, width, dtype=torch.float64)
    places = np.random.default_rng(0).integers(0, tokens, (n, 2))
    return layer, states, places, Probe(layer, lambda rows: layer(states[rows]).transpose(1, 2), places)


def test_the_closed_form_of_spans_is_the_dot_product_of_gradients():
    layer, states, places, probe = span_model()
    p = layer(states).transpose(1, 2).softmax(-1).detach().numpy()
    h = states.numpy()
    rows = np.arange(len(h))[:, None]
    gradients = p @ h - h[rows, places]
    right = p[rows, np.arange(2), places]
    first, second = np.arange(4), np.arange(4, 6)
    closed = last_layer_of_spans(gradients[first], gradients[second], right[second])
    assert_allclose(closed, gradient_dot(probe, first, second))
    with pytest.raises(ValueError, match="needs validation"):
        last_layer_of_spans(gradients, gradients[:0], right[:0])
    with pytest.raises(ValueError, match="finite"):
        last_layer_of_spans(gradients * np.nan, gradients, right)


def test_a_probe_of_spans_sums_both_cross_entropies():
    layer, states, places, probe = span_model()
    ce = sum(
        cross_entropy(layer(states)[:, :, end], torch.from_numpy(places[:, end]), reduction="none")
        for end in range(2)
    )
    (expected,) = torch.autograd.grad(ce[0], layer.weight)
    p = layer(states[4:]).transpose(1, 2).softmax(-1)
    right = sum(p[torch.arange(2), end, torch.from_numpy(places[4:, end])] for end in range(2))
    (of_loss,) = torch.autograd.grad(-right.mean(), layer.weight)
    score = -(expected * of_loss).sum().item()
    assert_allclose(gradient_dot(probe, [0], [4, 5]), [score])
    assert np.isfinite(lissa(probe, np.arange(4), [4, 5], scale=10)).all()


@pytest.mark.parametrize(
    ("steps", "hessian", "expected"),
    [(5, 0, 5.9255e-4), (5, 10, 5.9107e-4), (20, 0, 1.99825e-3), (20, 10, 1.97866e-3), (40, 0, 3.71543e-3)],
)
def test_fact_11_lissa_of_a_number(steps, hessian, expected):
    assert inverse_hvp(lambda h, t: hessian * h, 1.0, 5e-3, 1e4, steps) == pytest.approx(expected, rel=1e-5)


def test_fact_11_depth_alone_scales_the_score_and_the_fixed_point_is_the_damped_inverse():
    twenty, five = (inverse_hvp(lambda h, t: 0 * h, 1.0, 5e-3, 1e4, steps) for steps in (20, 5))
    assert twenty / five == pytest.approx(3.372, abs=5e-4)
    assert inverse_hvp(lambda h, t: 10 * h, 1.0, 5e-3, 1e4, 5000) == pytest.approx(1 / 60, rel=1e-6)


def test_fact_11_mean_of_chains_is_the_chain_of_the_mean():
    rng = np.random.default_rng(0)
    hessians = [a @ a.T for a in rng.normal(size=(7, 4, 4))]
    vectors = rng.normal(size=(5, 4))
    solve = partial(inverse_hvp, lambda h, t: hessians[t] @ h, damping=5e-3, scale=50.0, steps=7)
    assert_allclose(np.mean([solve(v) for v in vectors], axis=0), solve(vectors.mean(axis=0)), rtol=1e-12)


def layer(rng, n, n_classes=3, d=4):
    h = rng.normal(size=(n, d))
    return h, rng.integers(0, n_classes, n)


def autograd_scores(weight, bias, z, v):
    """The definition, by automatic differentiation of a softmax layer (a row of weights per class)."""
    w, b = torch.tensor(weight, requires_grad=True), torch.tensor(bias, requires_grad=True)

    def gradient(h, y, loss):
        logits = torch.tensor(h) @ w.T + b
        return torch.autograd.grad(loss(logits, torch.tensor(y)).mean(), (w, b))

    def mean_rce(logits, y):
        return (1 - torch.softmax(logits, -1).gather(1, y[:, None])[:, 0]).mean()

    g = gradient(*v, mean_rce)
    rows = [gradient(z[0][i : i + 1], z[1][i : i + 1], cross_entropy) for i in range(len(z[1]))]
    with_bias = [-sum(float((a * c).sum()) for a, c in zip(g, row, strict=True)) for row in rows]
    return np.array(with_bias), np.array([-float((g[0] * row[0]).sum()) for row in rows])


@pytest.mark.parametrize("sparse", [False, True])
def test_fact_12_closed_form_equals_the_gradient(sparse):
    rng = np.random.default_rng(3)
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    z, v = layer(rng, 6), layer(rng, 9)
    with_bias, without = autograd_scores(weight, bias, z, v)
    make = csr_matrix if sparse else np.asarray
    arguments = [part for h, y in (z, v) for part in (make(h), softmax(h @ weight.T + bias), y)]
    assert_allclose(last_layer(*arguments), with_bias, rtol=1e-10)
    assert_allclose(last_layer(*arguments, bias=False), without, rtol=1e-10)


def test_fact_12_one_pair_by_hand():
    rng = np.random.default_rng(5)
    h_z, h_v = rng.normal(size=(2, 1, 4))
    p_z, p_v = softmax(rng.normal(size=(2, 1, 3)))
    a, b = p_z[0] - onehot(0, 3), -p_v[0, 2] * (onehot(2, 3) - p_v[0])
    score = last_layer(h_z, p_z, [0], h_v, p_v, [2])
    assert score[0] == pytest.approx(-(a @ b) * (h_z[0] @ h_v[0] + 1))


@pytest.mark.parametrize("sparse", [False, True])
def test_hessian_form_solves_the_damped_system(sparse):
    rng = np.random.default_rng(1)
    n_classes, d, damping = 3, 4, 0.05
    weight, bias = rng.normal(size=(n_classes, d)), rng.normal(size=n_classes)
    z, v = layer(rng, 6), layer(rng, 9)
    everything = np.concatenate([z[0], v[0]])
    augmented = np.c_[everything, np.ones(15)]
    p = softmax(everything @ weight.T + bias)
    blocks = [np.kron(np.diag(q) - np.outer(q, q), np.outer(x, x)) for q, x in zip(p, augmented, strict=True)]
    hessian = np.mean(blocks, axis=0) + damping * np.eye(n_classes * (d + 1))
    a = p[:6] - onehot(z[1], n_classes)
    p_y = p[6:][np.arange(9), v[1]][:, None]
    b = -p_y * (onehot(v[1], n_classes) - p[6:])
    g_z = np.einsum("rc,rd->rcd", a, augmented[:6]).reshape(6, -1)
    g_v = np.einsum("rc,rd->rcd", b, augmented[6:]).reshape(9, -1).mean(axis=0)
    make = csr_matrix if sparse else np.asarray
    found = last_layer_hessian(make(z[0]), p[:6], z[1], make(v[0]), p[6:], v[1], damping=damping)
    assert_allclose(found, -g_z @ np.linalg.solve(hessian, g_v), rtol=1e-5)


def test_numbers_that_are_none_and_missing_validation_are_refused():
    h, p, y = np.ones((2, 3)), np.full((2, 2), 0.5), np.array([0, 1])
    with pytest.raises(ValueError, match="finite"):
        last_layer(h * np.nan, p, y, h, p, y)
    with pytest.raises(ValueError, match="validation"):
        last_layer(h, p, y, h[:0], p[:0], y[:0])
    assert last_layer(h[:0], p[:0], y[:0], h, p, y).shape == (0,)


def probe_of(n=40, seed=0, dropout=0.0, hidden=5):
    torch.manual_seed(seed)
    x = torch.randn(n, 3)
    labels = (x[:, 0] > 0).long().numpy()
    labels[:4] = 1 - labels[:4]
    layers = [
        torch.nn.Linear(3, hidden),
        torch.nn.Tanh(),
        torch.nn.Dropout(dropout),
        torch.nn.Linear(hidden, 2),
    ]
    module = torch.nn.Sequential(*layers)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(module(x[8:]), torch.tensor(labels[8:])).backward()
        optimizer.step()
    module.zero_grad()
    return Probe(module, lambda samples: module(x[torch.as_tensor(samples)]), labels, batch_size=7)


CANDIDATES, VALIDATION = range(12), range(20, 40)


def test_gradient_dot_is_the_definition():
    probe = probe_of()
    weights = list(probe.module.parameters())
    y = torch.tensor(probe.labels)

    def gradient(samples, loss):
        return torch.cat([g.ravel() for g in torch.autograd.grad(loss(samples), weights)])

    def reverse(samples):
        return (1 - probe.encode(samples).softmax(-1).gather(1, y[samples, None])).mean()

    g = gradient(list(VALIDATION), reverse)
    expected = [-float(gradient([i], lambda s: cross_entropy(probe.encode(s), y[s])) @ g) for i in CANDIDATES]
    assert_allclose(gradient_dot(probe, CANDIDATES, VALIDATION), expected, rtol=1e-4, atol=1e-8)


def test_mislabelled_candidates_are_harmful():
    probe = probe_of()
    for method in (gradient_dot, lissa, tracin, per_sample_lissa):
        scores = method(probe, CANDIDATES, VALIDATION)
        assert scores[:4].min() > scores[4:].max(), method.__name__
        assert scores[:4].min() > 0, method.__name__


def test_a_softmax_model_has_the_closed_form():
    torch.manual_seed(0)
    x = torch.randn(30, 4)
    module = torch.nn.Linear(4, 3)
    probe = Probe(module, lambda samples: module(x[torch.as_tensor(samples)]), np.arange(30) % 3)
    p = module(x).softmax(-1).detach().numpy()
    h, y = x.numpy(), probe.labels
    closed = last_layer(h[:10], p[:10], y[:10], h[10:], p[10:], y[10:])
    assert_allclose(gradient_dot(probe, range(10), range(10, 30)), closed, rtol=1e-3, atol=1e-7)


def test_lissa_tends_to_the_damped_solution():
    torch.manual_seed(0)
    x = torch.randn(30, 4)
    module = torch.nn.Linear(4, 3)
    labels = np.arange(30) % 3
    probe = Probe(module, lambda samples: module(x[torch.as_tensor(samples)]), labels, batch_size=30)
    p, h = module(x).softmax(-1).detach().numpy().astype(float), x.numpy().astype(float)
    exact = last_layer_hessian(h[:10], p[:10], labels[:10], h[10:], p[10:], labels[10:], damping=0.1)
    options = {"damping": 0.1 / 3, "scale": 3.0, "steps": 400, "samples": range(30)}
    assert_allclose(lissa(probe, range(10), range(10, 30), **options), exact, rtol=1e-3, atol=1e-6)


def test_dropout_is_off_and_the_mode_is_put_back():
    probe = probe_of(dropout=0.5)
    probe.module.train()
    first = lissa(probe, CANDIDATES, VALIDATION)
    assert_allclose(lissa(probe, CANDIDATES, VALIDATION), first)
    assert probe.module.training


def test_lissa_that_diverges_says_so():
    with pytest.raises(FloatingPointError, match="scale"):
        lissa(probe_of(), CANDIDATES, VALIDATION, scale=1e-9, steps=60)


def test_tracin_adds_checkpoints_and_puts_the_parameters_back():
    probe = probe_of()
    now = {name: value.clone() for name, value in probe.module.state_dict().items()}
    early = {name: value * 0.5 for name, value in now.items()}
    both = tracin(probe, CANDIDATES, VALIDATION, checkpoints=[early, now], rates=[2.0, 3.0])
    assert all(torch.equal(value, now[name]) for name, value in probe.module.state_dict().items())
    at_now = gradient_dot(probe, CANDIDATES, VALIDATION)
    probe.module.load_state_dict(early)
    assert_allclose(both, 3 * at_now + 2 * gradient_dot(probe, CANDIDATES, VALIDATION), rtol=1e-4)


def test_the_authors_constants_amount_to_a_gradient_dot_product():
    probe = probe_of()
    ratio = per_sample_lissa(probe, CANDIDATES, VALIDATION) / gradient_dot(probe, CANDIDATES, VALIDATION)
    assert ratio.std() / abs(ratio.mean()) < 0.01


def leave_one_out(seed):
    """Rank correlation of two scores with the change of the validation loss by training with a sample."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(90, 3))
    y = (x[:, 0] + 0.5 * rng.normal(size=90) > 0).astype(int)
    train, held = np.arange(40), np.arange(40, 90)

    def fit(kept):
        return LogisticRegression(tol=1e-10, max_iter=1000).fit(x[kept], y[kept])

    def loss(model):
        return 1 - model.predict_proba(x[held])[np.arange(50), y[held]].mean()

    model = fit(train)
    change = loss(model) - np.array([loss(fit(np.delete(train, i))) for i in train])
    p = model.predict_proba(x)
    arguments = x[train], p[train], y[train], x[held], p[held], y[held]
    # A penalty |w|^2 / 2 on two-class weights is |W|^2 on those of the softmax layer: 2 / n in the mean loss.
    scores = last_layer(*arguments), last_layer_hessian(*arguments, damping=2 / len(train))
    return [spearmanr(score, change).statistic for score in scores]


def test_scores_rank_samples_as_training_without_them_does():
    dot, hessian = np.mean([leave_one_out(seed) for seed in range(4)], axis=0)
    assert dot > 0.85
    assert hessian > 0.9
