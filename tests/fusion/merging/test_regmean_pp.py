import pytest
import torch

from fusion.merging.architecture import distinct, rules
from fusion.merging.collection import collect
from fusion.merging.models import Options, merge
from fusion.merging.regmean_pp import regmean_pp
from tests.fusion.merging.families import batches, make
from tests.fusion.merging.test_collection import described


@pytest.mark.parametrize("name", ["bert", "deberta apart", "gpt2", "llama", "mixtral", "t5"])
def test_inputs_come_from_the_merged_layers_before(name):
    trio = [make(name, seed, spread=0.05) for seed in range(3)]
    architecture, data = described(trio[0]), [batches(name, seed=seed) for seed in range(3)]
    states = [distinct(model.state_dict())[0] for model in trio]
    before = {item: tensor.clone() for item, tensor in states[0].items()}
    found = rules(architecture, states[0])
    model, items = regmean_pp(trio[0], architecture, states, data, found, Options(0.9), dtype=torch.float64)
    merged = {item.name: item.tensor for item in items}
    assert sorted(merged) == sorted(states[0])
    own = distinct(model.state_dict())[0]
    assert all(torch.equal(own[item], tensor) for item, tensor in merged.items())
    assert all(torch.equal(states[0][item], tensor) for item, tensor in before.items())

    # By definition: every block of a source on top of a model merged up to it.
    for stage in architecture.stages[:-1]:
        grams = []
        for source, of in zip(trio, data, strict=True):
            chimera = make(name)
            chimera.load_state_dict(merged, strict=False)
            own = source.get_submodule(stage.name).state_dict()
            chimera.get_submodule(stage.name).load_state_dict(own)
            inside = [g for g in stage.groups if g.name.startswith(stage.name)]
            grams.append(collect(chimera, inside, of, dtype=torch.float64))
        names = [w.tensor for g in inside for w in g.weights]
        again = merge(architecture, states, grams, {n: found[n] for n in names}, Options(0.9))
        for item in again:
            assert torch.allclose(item.tensor, merged[item.name], rtol=1e-9, atol=1e-12), item.name


def test_it_differs_from_regmean_in_what_is_solved_for():
    trio = [make("llama", seed, spread=0.05) for seed in range(3)]
    architecture, data = described(trio[0]), [batches("llama", seed=seed) for seed in range(3)]
    states = [model.state_dict() for model in trio]
    found = rules(architecture, states[0])
    _, items = regmean_pp(trio[0], architecture, states, data, found, Options(0.9))
    grams = [collect(model, architecture.groups, of) for model, of in zip(trio, data, strict=True)]
    plain = {item.name: item.tensor for item in merge(architecture, states, grams, found, Options(0.9))}
    merged = {item.name: item.tensor for item in items}
    for name, rule in found.items():
        assert torch.equal(merged[name], plain[name]) == (rule.kind == "average"), name
