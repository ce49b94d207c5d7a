"""Checks 1 to 10, 14 to 16 and 20 of the specification, on tiny trained models and on matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.merging.average import average
from fusion.merging.gram import Gram
from fusion.merging.regmean import Diagnostics, alpha_of, regmean, solve
from fusion.merging.sums import Sums
from fusion.merging.systems import shrunk

ALPHAS = [1.0, 0.9, 0.5, 0.1, 0.0]


def gram_of(x) -> Gram:
    gram = Gram(x.shape[1], dtype=torch.float64)
    gram.add(x)
    return gram


def linear(seed: int = 0, models: int = 3, m: int = 12, n: int = 5, rows: int = 60):
    """Weights (m, n), inputs (rows, m) and Gram matrices of random linear models."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(m, n, dtype=torch.float64, generator=generator)
    weights, inputs = [], []
    for _ in range(models):
        mix = torch.randn(m, m, dtype=torch.float64, generator=generator)
        inputs.append(torch.randn(rows, m, dtype=torch.float64, generator=generator) @ mix)
        weights.append(base + 0.3 * torch.randn(m, n, dtype=torch.float64, generator=generator))
    return weights, inputs, [gram_of(x) for x in inputs]


def relative(a, b) -> float:
    return float((a - b).norm() / b.norm())


def plain(weights, grams, alpha: float, dtype=torch.float64):
    """The formula as it stands in the paper: sum, invert, multiply."""
    known = [shrunk(gram.mean(), alpha).to(dtype) for gram in grams]
    above = sum(g @ w.to(dtype) for g, w in zip(known, weights, strict=True))
    return torch.linalg.inv(sum(known)) @ above


def objective(merged, weights, grams, alpha: float = 1.0) -> float:
    return sum(
        float(((merged - w).T @ shrunk(g.mean(), alpha) @ (merged - w)).trace())
        for w, g in zip(weights, grams, strict=True)
    ) / len(weights)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_check_1_equal_models_are_their_merge_exactly(models, alpha):
    for group in models.architecture.groups:
        weights, grams = models.layer(group)
        assert torch.equal(regmean([weights[0]] * 3, grams, alpha=alpha).weight, weights[0])
        coarse = [Gram.of(gram.symmetric().float(), gram.rows) for gram in grams]
        assert torch.equal(regmean([weights[0]] * 3, coarse, alpha=alpha).weight, weights[0])
        single = [weights[0].float()] * 3
        found = regmean(single, grams, alpha=alpha, coefficients=[0.2, 3, 1]).weight
        assert torch.equal(found, single[0])


def test_check_1_the_plain_formula_has_rounding(models):
    for group in models.architecture.groups:
        weights, grams = models.layer(group)
        assert 0 < relative(plain([weights[0]] * 3, grams, 0.9), weights[0]) < 1e-12


def test_check_2_alpha_0_is_the_average_weighted_by_the_diagonal(models):
    for group in models.architecture.groups:
        weights, grams = models.layer(group)
        diagonals = [gram.mean().diagonal()[:, None] for gram in grams]
        expected = sum(d * w for d, w in zip(diagonals, weights, strict=True)) / sum(diagonals)
        assert relative(regmean(weights, grams, alpha=0.0).weight, expected) < 1e-14


def test_check_3_the_objective_of_every_layer_is_below_that_of_the_average(models):
    ratios = sorted(solve(sums, 1.0).diagnostics.ratio for sums in models.sums.values())
    assert ratios[0] < 0.1
    assert ratios[len(ratios) // 2] < 0.5
    assert ratios[-1] < 0.8


def test_check_4_the_objective_rises_as_alpha_falls(models):
    found = [[solve(sums, alpha).diagnostics for sums in models.sums.values()] for alpha in ALPHAS]
    ratios = [sum(d.objective for d in row) / sum(d.of_average for d in row) for row in found]
    assert ratios == sorted(ratios)
    assert ratios[1] < 1.25 * ratios[0] < 0.5
    assert 0.8 < ratios[-1] < 1


def test_the_objective_without_data_is_that_with_the_matrices(models):
    for group in models.architecture.groups:
        weights, grams = models.layer(group)
        for alpha in (1.0, 0.9, 0.1, 0.01):
            solution = solve(models.sums[group.name], alpha, ridge=1e-3)
            found = solution.diagnostics
            assert found.of_average == pytest.approx(objective(average(weights), weights, grams), rel=1e-9)
            assert found.objective == pytest.approx(objective(solution.weight, weights, grams), rel=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_check_5_the_solution_is_stationary(models, alpha):
    for group in models.architecture.groups:
        weights, grams = models.layer(group)
        merged = regmean(weights, grams, alpha=alpha).weight
        known = [shrunk(gram.mean(), alpha) for gram in grams]
        pull = sum(g @ (merged - w) for g, w in zip(known, weights, strict=True))
        size = sum(float((g @ w).norm()) for g, w in zip(known, weights, strict=True))
        assert float(pull.norm()) <= 1e-12 * size


def test_check_6_only_ratios_of_gram_matrices_count(models):
    for group in models.architecture.groups:
        weights, grams = models.layer(group)
        merged = regmean(weights, grams, alpha=0.9).weight
        scaled = [Gram.of(gram.symmetric() * 1e6, gram.rows) for gram in grams]
        assert relative(regmean(weights, scaled, alpha=0.9).weight, merged) < 1e-12
        heavy = [Gram.of(grams[0].symmetric() * 10, grams[0].rows), *grams[1:]]
        tenfold = regmean(weights, heavy, alpha=0.9).weight
        distance = float((average(weights) - weights[0]).norm())
        assert float((tenfold - merged).norm()) > 0.05 * distance


def test_check_6_a_gram_matrix_tenfold_is_a_coefficient_of_10(models):
    """But for the average that fills directions without inputs: here there are none."""
    for group in models.architecture.groups:
        weights, grams = models.layer(group)
        heavy = [Gram.of(grams[0].symmetric() * 10, grams[0].rows), *grams[1:]]
        by_coefficient = regmean(weights, grams, alpha=0.9, coefficients=[10, 1, 1]).weight
        assert relative(regmean(weights, heavy, alpha=0.9).weight, by_coefficient) < 1e-12


def test_check_7_counts_matter(models):
    weights, inputs, _ = linear(models=2, rows=500)
    grams = [gram_of(inputs[0]), gram_of(inputs[1][:50])]
    means = regmean(weights, grams, alpha=1.0).weight
    sums = regmean(weights, [Gram.of(gram.symmetric()) for gram in grams], alpha=1.0).weight
    distance = float((average(weights) - weights[0]).norm())
    assert float((sums - means).norm()) > 0.2 * distance


def test_check_8_order_does_not_matter(models):
    for group in models.architecture.groups:
        weights, grams = models.layer(group)
        merged = regmean(weights, grams, alpha=0.9, coefficients=[1, 2, 3]).weight
        other = regmean(weights[::-1], grams[::-1], alpha=0.9, coefficients=[3, 2, 1]).weight
        assert relative(other, merged) < 1e-12


def test_check_8_models_come_and_go(models):
    for group in models.architecture.groups:
        weights, grams = models.layer(group)
        sums = Sums(weights[0])
        for weight, gram in zip(weights, grams, strict=True):
            sums.add(gram, weight, 2.0)
        sums.remove(grams[1], weights[1], 2.0)
        two = regmean([weights[0], weights[2]], [grams[0], grams[2]], alpha=0.9).weight
        assert relative(solve(sums, 0.9).weight, two) < 1e-12
        sums.add(grams[1], weights[1], 2.0)
        three = regmean(weights, grams, alpha=0.9).weight
        assert relative(solve(sums, 0.9).weight, three) < 1e-12


def test_check_8_a_merge_is_a_model(models):
    for group in models.architecture.groups:
        weights, grams = models.layer(group)
        pair = Sums(weights[0])
        for weight, gram in zip(weights[:2], grams[:2], strict=True):
            pair.add(gram, weight)
        merged = Gram.of(shrunk(pair.gram, 0.9))
        sums = Sums(weights[0])
        sums.add(merged, solve(pair, 0.9).weight)
        sums.add(Gram.of(shrunk(grams[2].mean(), 0.9)), weights[2])
        assert relative(solve(sums, 1.0).weight, regmean(weights, grams, alpha=0.9).weight) < 1e-12


def test_sums_of_parts_add_up_to_the_sums_of_all():
    weights, _, grams = linear(models=4)
    whole, left, right = Sums(weights[0]), Sums(weights[0]), Sums(weights[0])
    for i, (weight, gram) in enumerate(zip(weights, grams, strict=True)):
        whole.add(gram, weight, i + 1.0)
        (left if i % 2 else right).add(gram, weight, i + 1.0)
    left.absorb(right)
    assert relative(solve(left, 0.5).weight, solve(whole, 0.5).weight) < 1e-13
    assert solve(left, 0.5).diagnostics.ratio == pytest.approx(solve(whole, 0.5).diagnostics.ratio, rel=1e-10)
    with pytest.raises(ValueError, match="different references"):
        left.absorb(Sums(weights[1]))


def test_sums_go_on_from_their_state():
    weights, _, grams = linear()
    sums, whole = Sums(weights[0]), Sums(weights[0])
    for weight, gram in zip(weights[:2], grams[:2], strict=True):
        sums.add(gram, weight, 2.0)
    tensors, numbers = sums.state()
    again = Sums.restored({name: tensor.clone() for name, tensor in tensors.items()}, numbers)
    again.add(grams[2], weights[2], 2.0)
    for weight, gram in zip(weights, grams, strict=True):
        whole.add(gram, weight, 2.0)
    assert torch.equal(solve(again, 0.9).weight, solve(whole, 0.9).weight)
    assert solve(again, 0.9).diagnostics == solve(whole, 0.9).diagnostics
    with pytest.raises(ValueError, match="not the sums of one linear map"):
        Sums.restored({**tensors, "full": torch.ones(2, 2)}, numbers)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_check_9_sweeping_alpha_needs_the_sums_only(models, alpha):
    for group in models.architecture.groups:
        weights, grams = models.layer(group)
        direct = plain(weights, grams, alpha) if alpha < 1 else None
        found = solve(models.sums[group.name], alpha).weight
        assert relative(found, regmean(weights, grams, alpha=alpha).weight) < 1e-12
        if direct is not None:
            assert relative(found, direct) < 1e-11


@settings(max_examples=20)
@given(seed=st.integers(0, 2**16), models=st.integers(2, 4))
def test_check_10_linear_models_merge_to_least_squares_on_all_their_predictions(seed, models):
    weights, inputs, grams = linear(seed, models)
    union = torch.cat(inputs), torch.cat([x @ w for x, w in zip(inputs, weights, strict=True)])
    expected = torch.linalg.lstsq(*union).solution
    assert relative(regmean(weights, grams, alpha=1.0).weight, expected) < 1e-11


def singular(trio, dtype=torch.float64):
    """The widest group with the rows of 96 tokens only, and what is orthogonal to them all."""
    group = max(trio.architecture.groups, key=lambda g: trio.grams[0][g.name].width)
    weights, grams = trio.layer(group)
    few = []
    for gram in grams:
        values, vectors = torch.linalg.eigh(gram.mean())
        values[:-32] = 0
        low = (vectors * values) @ vectors.T
        few.append(Gram.of(((low + low.T) / 2).to(dtype)))
    total = sum(gram.symmetric().double() for gram in few)
    values, vectors = torch.linalg.eigh(total)
    return weights, few, vectors[:, values < 1e-12 * values[-1]]


def solve_on_rows(weights, grams) -> float:
    """The least objective, by pseudo-inverse."""
    total = sum(gram.mean() for gram in grams)
    pulled = sum(gram.mean() @ weight for gram, weight in zip(grams, weights, strict=True))
    return objective(torch.linalg.pinv(total, rcond=1e-11, hermitian=True) @ pulled, weights, grams)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_check_14_what_no_input_shows_stays_at_the_average(models, dtype):
    weights, grams, _ = singular(models, dtype)
    solution = regmean([w.to(dtype) for w in weights], grams, alpha=1.0)
    mean = average(weights)
    assert float(solution.weight.abs().max()) < 10 * float(mean.abs().max())
    assert solution.diagnostics.solver == "eigen"
    assert solution.diagnostics.deficit == len(mean) - 96
    assert solution.diagnostics.condition == float("inf")
    assert float(plain(weights, grams, 1.0, dtype).abs().max()) > 100 * float(mean.abs().max())


def test_check_14_the_null_space_keeps_the_average_exactly(models):
    weights, grams, null = singular(models)
    solution, mean = regmean(weights, grams, alpha=1.0), average(weights)
    merged = solution.weight
    assert null.shape[1] == len(mean) - 96
    assert float((null.T @ (merged - mean)).norm()) < 1e-12 * float(mean.norm())
    inside, own = objective(merged, weights, grams), solve_on_rows(weights, grams)
    assert inside == pytest.approx(own, rel=1e-9)
    assert solution.diagnostics.objective == pytest.approx(own, rel=1e-9)
    assert inside < 0.9 * objective(mean, weights, grams)


@pytest.mark.parametrize("alpha", [0.9, 1.0, 0.0])
def test_check_15_a_dead_input_feature_keeps_the_average(alpha):
    weights, inputs, _ = linear()
    for x in inputs:
        x[:, 4] = 0
    grams = [gram_of(x) for x in inputs]
    solution = regmean(weights, grams, alpha=alpha)
    assert torch.linalg.matrix_rank(shrunk(sum(g.mean() for g in grams), alpha)) == 11
    assert (solution.diagnostics.dead, solution.diagnostics.deficit) == (1, 1)
    assert relative(solution.weight[4], average(weights)[4]) < 1e-15
    alive = [i for i in range(12) if i != 4]
    rest = regmean([w[alive] for w in weights], [gram_of(x[:, alive]) for x in inputs], alpha=alpha)
    assert relative(solution.weight[alive], rest.weight) < 1e-12


def test_a_feature_that_only_a_removed_model_had_is_dead():
    weights, inputs, _ = linear()
    inputs[0][:, 4] = inputs[2][:, 4] = 0
    grams = [gram_of(x) for x in inputs]
    sums = Sums(weights[0])
    for weight, gram in zip(weights, grams, strict=True):
        sums.add(gram, weight)
    sums.remove(grams[1], weights[1])
    found = solve(sums, 0.9)
    assert found.diagnostics.dead == 1
    assert relative(found.weight[4], (weights[0][4] + weights[2][4]) / 2) < 1e-14


@pytest.mark.parametrize(
    ("model", "group"),
    [("bert", "bert.encoder.layer.1.attention.self.query"), ("llama", "model.layers.1.self_attn.o_proj")],
)
def test_check_16_shrinking_conditions(model, group, request):
    sums = request.getfixturevalue(model).sums[group]
    exact = [float(torch.linalg.cond(shrunk(sums.gram, alpha))) for alpha in (1.0, 0.9, 0.1)]
    assert exact[0] > 1e4
    assert 1e3 > exact[1] > 30 > exact[2]
    for alpha in (1.0, 0.9, 0.1):
        scale = shrunk(sums.gram, alpha).diagonal().rsqrt()
        scaled = float(torch.linalg.cond(shrunk(sums.gram, alpha) * scale * scale[:, None]))
        assert scaled / 2 < solve(sums, alpha).diagnostics.condition < 40 * scaled


def test_check_20_the_plain_formula_in_float32_is_near_while_alpha_helps(models):
    """Stands in for other packages, which invert the sum in float32."""
    worst = 0.0
    for alpha in (0.9, 0.5, 0.1):
        for group in models.architecture.groups:
            weights, grams = models.layer(group)
            distance = float((average(weights) - weights[0]).norm())
            single = [Gram.of(gram.symmetric().float(), gram.rows) for gram in grams]
            ours = regmean([w.float() for w in weights], single, alpha=alpha).weight
            theirs = plain(weights, single, alpha, torch.float32)
            exact = regmean(weights, grams, alpha=alpha).weight
            worst = max(worst, float((ours - theirs).norm()) / distance)
            assert float((ours - exact).norm()) < 1e-4 * distance
    assert 0 < worst < 1e-3


def test_check_20_at_alpha_1_float32_costs_next_to_nothing(models):
    for group in models.architecture.groups:
        weights, grams = models.layer(group)
        single = [Gram.of(gram.symmetric().float(), gram.rows) for gram in grams]
        coarse = regmean([w.float() for w in weights], single, alpha=1.0)
        exact = regmean(weights, grams, alpha=1.0).diagnostics
        found = objective(coarse.weight.double(), weights, grams) / exact.of_average
        assert exact.ratio * (1 - 1e-6) <= found < 1.2 * exact.ratio
        assert coarse.diagnostics.ratio == pytest.approx(found, rel=1e-3)


def test_a_ridge_pulls_to_the_average():
    weights, _, grams = linear()
    mean = average(weights)
    steps = [float((regmean(weights, grams, alpha=1.0, ridge=r).weight - mean).norm()) for r in (0, 1, 1e6)]
    assert steps[0] > steps[1] > 1e3 * steps[2]


def test_few_rows_leave_an_expert_at_the_average():
    weights, _, grams = linear()
    sums = Sums(weights[0])
    for weight, gram in zip(weights, grams, strict=True):
        sums.add(gram, weight)
    found = solve(sums, 0.9, least_rows=61)
    assert relative(found.weight, average(weights)) < 1e-15
    assert found.diagnostics == Diagnostics(
        0.9, "average", 1.0, 0, 0, found.diagnostics.objective, found.diagnostics.of_average
    )
    assert found.diagnostics.ratio == pytest.approx(1)
    assert solve(sums, 0.9, least_rows=60).diagnostics.solver == "cholesky"


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    alpha=st.floats(0, 1),
    scales=st.lists(st.floats(0.01, 100), min_size=3, max_size=3),
)
def test_no_other_weight_has_a_lower_objective(seed, alpha, scales):
    weights, _, grams = linear(seed)
    total = sum(scales)

    def loss(w):
        pairs = zip(scales, weights, grams, strict=True)
        return sum(s / total * objective(w, [v], [g], alpha) for s, v, g in pairs)

    merged = regmean(weights, grams, alpha=alpha, coefficients=scales).weight
    generator = torch.Generator().manual_seed(seed)
    for size in (1e-3, 1.0):
        other = merged + size * torch.randn(merged.shape, dtype=torch.float64, generator=generator)
        assert loss(merged) < loss(other)


def test_wrong_arguments_are_named():
    weights, _, grams = linear()
    with pytest.raises(ValueError, match=r"alpha lies between 0 and 1, not at 1\.5"):
        regmean(weights, grams, alpha=1.5)
    with pytest.raises(ValueError, match="2 coefficients for 3 models"):
        regmean(weights, grams, alpha=1.0, coefficients=[1, 2])
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="above 0"):
            regmean(weights, grams, alpha=1.0, coefficients=[1, 2, bad])
    with pytest.raises(ValueError, match=r"\(11, 5\).* does not fit"):
        regmean([*weights[:2], weights[2][:11]], grams, alpha=1.0)
    with pytest.raises(ValueError, match="no rows"):
        regmean(weights, [*grams[:2], Gram(12, dtype=torch.float64)], alpha=1.0)
    with pytest.raises(ValueError, match="not finite"):
        regmean(weights, [*grams[:2], Gram.of(torch.full((12, 12), torch.nan))], alpha=1.0)
    with pytest.raises(ValueError, match="no model"):
        solve(Sums(weights[0]), 1.0)


def test_alpha_by_name():
    overrides = [(r".*mlp", 0.5), (r".*down_proj", 0.1)]
    assert alpha_of("model.layers.0.mlp.down_proj", 0.9, overrides) == 0.5
    assert alpha_of("model.layers.0.self_attn.q_proj", 0.9, overrides) == 0.9
    assert alpha_of("down_proj", 0.9, overrides) == 0.1
    with pytest.raises(ValueError, match="between 0 and 1"):
        alpha_of("mlp", 0.9, [("mlp", 2.0)])
