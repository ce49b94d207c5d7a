"""Checks 17 and 19, and whole models of every family."""

import weakref

import pytest
import torch

from fusion.merging.architecture import Rule, distinct, matrix, rules
from fusion.merging.average import average
from fusion.merging.collection import collect
from fusion.merging.gram import Gram
from fusion.merging.models import Options, merge, merge_stage, sums_of
from fusion.merging.regmean import regmean, solve
from tests.fusion.merging.conftest import MODELS as SOURCES
from tests.fusion.merging.conftest import make_bert, make_llama
from tests.fusion.merging.families import MODELS, batches, make
from tests.fusion.merging.test_collection import described


def merged(trio, alpha: float):
    found = rules(trio.architecture, trio.states[0])
    items = merge(trio.architecture, trio.states, trio.grams, found, Options(alpha))
    return {item.name: item.tensor for item in items}


def distance(trio, state) -> float:
    """Relative squared error of logits to those of each source on its own data, on average."""
    make_one = make_bert if trio.architecture.family == "bert" else make_llama
    model = make_one().double().eval()
    model.load_state_dict(state)
    errors = []
    for source, data in zip(trio.models, trio.batches, strict=True):
        above = below = 0.0
        for batch in data:
            mask = batch["attention_mask"].bool()
            with torch.no_grad():
                found, own = model(**batch).logits, source(**batch).logits
            if own.ndim == 3:
                found, own = found[mask], own[mask]
            above += float((found - own).square().sum())
            below += float(own.square().sum())
        errors.append(above / below)
    return sum(errors) / len(errors)


def test_check_19_the_merged_model_is_nearer_to_its_sources(models):
    mean = {name: average([state[name] for state in models.states]) for name in models.states[0]}
    plain = distance(models, mean)
    by_alpha = {alpha: distance(models, merged(models, alpha)) for alpha in (0.9, 0.1)}
    assert max(by_alpha.values()) < plain


@pytest.mark.parametrize("name", MODELS)
def test_whole_models_of_every_family_merge(name):
    trio = [make(name, seed, spread=0.02) for seed in range(3)]
    architecture = described(trio[0])
    states = [distinct(model.state_dict())[0] for model in trio]
    grams = [
        collect(model, architecture.groups, batches(name, seed=seed), dtype=torch.float64)
        for seed, model in enumerate(trio)
    ]
    found = rules(architecture, states[0])
    items = list(merge(architecture, states, grams, found, Options(0.9)))
    assert sorted(item.name for item in items) == sorted(states[0])
    for item in items:
        mean = average([state[item.name] for state in states])
        assert item.tensor.shape == mean.shape
        assert item.tensor.is_contiguous()
        if item.rule.kind == "average":
            assert torch.equal(item.tensor, mean)
        else:
            assert all(d.ratio < 1 or d.solver == "average" for d in item.diagnostics), item.name
            assert not torch.allclose(item.tensor, mean)
    result = make(name)
    result.load_state_dict({item.name: item.tensor for item in items}, strict=False)
    with torch.no_grad():
        assert torch.isfinite(result(**batches(name, n=1)[0])[0]).all()


@pytest.mark.parametrize("name", ["gpt2"])
def test_check_17_the_wrong_orientation_is_worse_than_the_average(name):
    trio = [make(name, seed, spread=0.05) for seed in range(3)]
    architecture = described(trio[0])
    grams = [
        collect(model, architecture.groups, batches(name, seed=seed, n=12), dtype=torch.float64)
        for seed, model in enumerate(trio)
    ]
    for group in (g for g in architecture.groups if g.name.endswith("attn.c_proj")):
        weights = [matrix(group, model.state_dict()) for model in trio]
        known = [gram[group.name] for gram in grams]

        def loss(w, weights=weights, known=known):
            pairs = zip(weights, known, strict=True)
            return sum(float(((w - v).T @ gram.mean() @ (w - v)).trace()) for v, gram in pairs)

        right = regmean(weights, known, alpha=1.0).weight
        wrong = regmean([w.T for w in weights], known, alpha=1.0).weight.T
        plain = loss(average(weights))
        assert loss(right) < 0.5 * plain < plain < loss(wrong)


def test_experts_nobody_was_routed_to_are_averaged():
    trio = [make("mixtral", seed, spread=0.02) for seed in range(2)]
    architecture = described(trio[0])
    states = [model.state_dict() for model in trio]
    grams = [
        collect(m, architecture.groups, batches("mixtral", seed=s), dtype=torch.float64)
        for s, m in enumerate(trio)
    ]
    path = "model.layers.1.mlp.experts"
    grams[1][f"{path}.2.down"] = Gram(64, dtype=torch.float64)
    items = merge(architecture, states, grams, rules(architecture, states[0]), Options(0.9))
    item = next(item for item in items if item.name == f"{path}.down_proj")
    assert [d.solver for d in item.diagnostics] == ["cholesky", "cholesky", "average", "cholesky"]
    assert torch.allclose(item.tensor[2], average([state[item.name][2] for state in states]))
    assert not torch.allclose(item.tensor[1], average([state[item.name][1] for state in states]))


def test_a_pattern_gives_weights_of_one_group_an_alpha_of_their_own(bert):
    found = rules(bert.architecture, bert.states[0])
    options = Options(0.9, overrides=[(r".*\.key", 0.1)])
    items = {item.name: item for item in merge(bert.architecture, bert.states, bert.grams, found, options)}
    path = "bert.encoder.layer.0.attention.self"
    assert items[f"{path}.key.weight"].diagnostics[0].alpha == 0.1
    assert items[f"{path}.query.weight"].diagnostics[0].alpha == 0.9
    group = bert.architecture.groups[0]
    known = [grams[group.name] for grams in bert.grams]
    whole = solve(sums_of(group, bert.states, known), 0.1).weight.T[64:128]
    assert torch.allclose(items[f"{path}.key.weight"].tensor, whole, rtol=1e-9, atol=1e-12)


def test_rules_decide_and_copies_come_from_the_first(bert):
    found = rules(bert.architecture, bert.states[0], averaged=[r".*value"], excluded=["classifier"])
    found["bert.pooler.dense.bias"] = Rule("copy", "test")
    items = {
        item.name: item.tensor
        for item in merge(bert.architecture, bert.states, bert.grams, found, Options(0.9))
    }
    assert found.keys() - items.keys() == {"classifier.weight", "classifier.bias"}
    name = "bert.encoder.layer.1.attention.self.value.weight"
    assert torch.equal(items[name], average([state[name] for state in bert.states]))
    assert torch.equal(items["bert.pooler.dense.bias"], bert.states[0]["bert.pooler.dense.bias"])


def test_coefficients_reach_solved_and_averaged_tensors(bert):
    found = rules(bert.architecture, bert.states[0])
    options = Options(0.9, coefficients=[1e9, 1.0, 1.0])
    for item in merge(bert.architecture, bert.states, bert.grams, found, options):
        nearest = bert.states[0][item.name]
        assert float((item.tensor - nearest).norm()) < 1e-3 * float(nearest.norm()) + 1e-6, item.name


def test_a_missing_matrix_is_named(bert):
    grams = [dict(of) for of in bert.grams]
    del grams[SOURCES - 1]["classifier"]
    found = rules(bert.architecture, bert.states[0])
    with pytest.raises(ValueError, match="the Gram matrix of classifier is missing"):
        list(merge(bert.architecture, bert.states, grams, found, Options(0.9)))


def test_the_matrices_of_one_model_are_gone_before_those_of_the_next_come(bert):
    found = rules(bert.architecture, bert.states[0])
    stage = bert.architecture.stages[0]
    gone: list[weakref.ref[Gram]] = []

    def one_by_one():
        for known in bert.grams:
            assert all(ref() is None for ref in gone)
            made = {g.name: Gram.of(known[g.name].mean(), known[g.name].rows) for g in stage.groups}
            gone.extend(weakref.ref(gram) for gram in made.values())
            yield made
            del made

    names = [one.name for one in merge_stage(stage, bert.states, one_by_one(), found, Options(0.9))]
    assert names
    assert len(gone) == len(bert.grams) * len(stage.groups)


def test_matrices_of_fewer_or_more_models_are_refused(bert):
    found = rules(bert.architecture, bert.states[0])
    stage = bert.architecture.stages[0]
    for grams, said in ((bert.grams[:-1], "is missing"), ([*bert.grams, bert.grams[0]], "more models than")):
        with pytest.raises(ValueError, match=said):
            list(merge_stage(stage, bert.states, iter(grams), found, Options(0.9)))
