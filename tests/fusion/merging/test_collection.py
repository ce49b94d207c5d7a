"""Checks 11 and 12, and what the Gram matrices of every family are of."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fusion.merging.architecture import Group, Weight, describe, distinct
from fusion.merging.collection import Collector, collect, everything
from tests.fusion.merging.families import MODELS, batches, make


def described(model):
    return describe(model.config.to_dict(), distinct(model.state_dict())[0].keys())


def inputs_of(model, modules, data):
    """Every input that each module is given, with the mask of its batch."""
    seen = {module: [] for module in modules}

    def hook(name):
        def note(_, args, kwargs):
            value = args[0] if args else next(iter(kwargs.values()))
            seen[name].append((value.detach().clone(), batch))

        return note

    handles = [model.get_submodule(m).register_forward_pre_hook(hook(m), with_kwargs=True) for m in modules]
    for batch in data:
        with torch.no_grad():
            model(**batch)
    for handle in handles:
        handle.remove()
    return seen


def by_hand(group, calls):
    """S of one module by its definition."""
    total = 0
    for number, (x, batch) in enumerate(calls):
        key = "decoder_attention_mask" if group.rows == "decoder" else "attention_mask"
        mask = batch[key].bool()
        if group.rows == "positions" or (group.rows == "repeated" and number % 2):
            rows = x.flatten(0, -2)
        elif group.rows == "head" and x.ndim == 2:
            rows = x
        elif group.rows == "last":
            rows = torch.stack([of[at] for of, at in zip(x, mask.sum(dim=1) - 1, strict=True)])
        else:
            rows = x.reshape(-1, x.shape[-1])[mask.flatten()]
        total = total + rows.T @ rows
    return total


@pytest.mark.parametrize("name", MODELS)
def test_every_matrix_is_that_of_every_module_in_its_group(name):
    model, data = make(name), batches(name)
    groups = [group for group in described(model).groups if group.expert is None]
    found = collect(model, groups, data, dtype=torch.float64)
    seen = inputs_of(model, [m for group in groups for m in group.modules], data)
    assert found.keys() == {group.name for group in groups}
    for group in groups:
        for module in group.modules:
            expected = by_hand(group, seen[module])
            assert torch.allclose(found[group.name].symmetric(), expected, rtol=1e-9, atol=1e-12), module


@pytest.mark.parametrize("name", MODELS)
def test_every_linear_map_of_a_model_is_in_a_group(name):
    model = make(name)
    known = {w.tensor for group in described(model).groups for w in group.weights}
    kept = distinct(model.state_dict())[0]
    linear = {
        f"{path}.weight"
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ in ("Conv1D", "MixtralTopKRouter")
    }
    assert linear & kept.keys() == {tensor for tensor in known if "experts" not in tensor}


def test_check_11_modules_that_share_an_input_share_a_matrix(models):
    sizes = [len(group.modules) for group in models.architecture.groups]
    blocks, family = 2, models.architecture.family
    expected = {"bert": [3, 1, 1, 1] * blocks + [1, 1], "llama": [3, 1, 2, 1] * blocks + [1]}
    assert sizes == expected[family]
    alone = [
        replace(group, name=module, modules=(module,))
        for group in models.architecture.groups
        for module in group.modules
    ]
    apart = collect(models.models[0], alone, models.batches[0], dtype=torch.float64)
    for group in models.architecture.groups:
        for module in group.modules:
            assert torch.equal(apart[module].symmetric(), models.grams[0][group.name].symmetric())


def test_check_12_padding_counts_only_on_demand(models):
    model, groups, data = models.models[0], models.architecture.groups, models.batches[0]
    padded = collect(model, groups, data, counted=everything, dtype=torch.float64)
    tokens = int(sum(batch["attention_mask"].sum() for batch in data))
    differences = []
    for group in groups:
        masked = models.grams[0][group.name]
        if group.rows == "head":
            assert masked.rows == padded[group.name].rows == 96
            assert torch.equal(masked.symmetric(), padded[group.name].symmetric())
            continue
        assert (masked.rows, padded[group.name].rows) == (tokens, 96 * 32)
        difference = float((masked.mean() - padded[group.name].mean()).norm())
        differences.append(difference / float(masked.mean().norm()))
    assert min(differences) > 0.01
    assert max(differences) > 0.3


def test_check_12_without_padding_the_mask_does_nothing():
    model, data = make("bert"), batches("bert", padded=False)
    groups = described(model).groups
    masked, padded = collect(model, groups, data), collect(model, groups, data, counted=everything)
    assert all(torch.equal(masked[name].total, padded[name].total) for name in masked)


def test_check_13_gram_matrices_do_not_depend_on_batches(models):
    groups = models.architecture.groups
    found = collect(models.models[0], groups, models.data(0, size=32), dtype=torch.float64)
    for name, gram in models.grams[0].items():
        difference = float((found[name].mean() - gram.mean()).norm())
        assert difference <= 1e-13 * float(gram.mean().norm())


def test_experts_have_matrices_of_the_tokens_routed_to_them():
    model, data = make("mixtral"), batches("mixtral")
    groups = described(model).groups
    found = collect(model, groups, data, dtype=torch.float64)
    path = "model.layers.1.mlp"
    experts = model.get_submodule(f"{path}.experts")
    routed = []
    handle = experts.register_forward_pre_hook(lambda _, args: routed.append(args))
    for batch in data:
        model(**batch)
    handle.remove()
    counts = []
    for expert in range(4):
        up = down = 0
        for (x, chosen, _), batch in zip(routed, data, strict=True):
            mask = batch["attention_mask"].bool().flatten()
            rows = x[(chosen == expert).any(dim=1) & mask]
            gate, raised = (rows @ experts.gate_up_proj[expert].T).chunk(2, dim=1)
            inner = torch.nn.functional.silu(gate) * raised
            up, down = up + rows.T @ rows, down + inner.T @ inner
        counts.append(found[f"{path}.experts.{expert}.gate_up"].rows)
        assert torch.allclose(found[f"{path}.experts.{expert}.gate_up"].symmetric(), up)
        assert torch.allclose(found[f"{path}.experts.{expert}.down"].symmetric(), down)
    assert sum(counts) == 2 * sum(int(batch["attention_mask"].sum()) for batch in data)


def test_only_tokens_that_are_asked_for_count():
    model, data = make("llama"), batches("llama")
    answers = [batch["attention_mask"].clone() for batch in data]
    for mask in answers:
        mask[:, :4] = 0
    of = {id(batch["input_ids"]): mask for batch, mask in zip(data, answers, strict=True)}
    groups = described(model).groups
    found = collect(model, groups, data, counted=lambda batch: (of[id(batch["input_ids"])], None))
    assert {gram.rows for gram in found.values()} == {int(sum(mask.sum() for mask in answers))}


class Two(nn.Module):
    """Two maps, of one input or of equal ones."""

    def __init__(self, copy: bool = False, skip: bool = False):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)
        self.copy, self.skip = copy, skip

    def forward(self, x):
        y = self.a(x)
        return y if self.skip else y + self.b(input=x.clone() if self.copy else x)


PAIR = Group("a", ("a", "b"), (Weight("a.weight"), Weight("b.weight")))


def test_a_group_that_does_not_share_its_input_is_refused():
    assert collect(Two(), [PAIR], [{"x": torch.ones(2, 4)}] * 2)["a"].rows == 4
    with pytest.raises(ValueError, match="b is not given the input of a"):
        collect(Two(copy=True), [PAIR], [{"x": torch.ones(2, 4)}])
    with pytest.raises(ValueError, match="b is not given the input of a"):
        collect(Two(skip=True), [PAIR], [{"x": torch.ones(2, 4)}])


def test_what_cannot_be_collected_is_named():
    with pytest.raises(ValueError, match="no module c"):
        collect(Two(), [replace(PAIR, modules=("a", "c"))], [])
    conv = nn.Sequential(nn.Conv1d(1, 1, 1))
    with pytest.raises(ValueError, match="0 is a convolution"):
        collect(conv, [Group("0", ("0",), (Weight("0.weight"),))], [])
    with pytest.raises(ValueError, match="a: 2 rows under a mask of 3 tokens"):
        collect(Two(), [PAIR], [{"x": torch.ones(2, 4)}], counted=lambda _: (torch.tensor([1, 0, 1]), None))


def test_check_22_activations_that_are_not_finite_are_counted():
    model, data = make("bert"), batches("bert")
    with torch.no_grad():
        model.bert.encoder.layer[1].intermediate.dense.bias[0] = torch.nan
    found = collect(model, described(model).groups, data, dtype=torch.float64)
    assert found["bert.encoder.layer.1.intermediate.dense"].skipped == 0
    spoilt = found["bert.encoder.layer.1.output.dense"]
    assert (spoilt.rows, spoilt.skipped) == (0, 3)


def test_the_model_is_left_as_it_was():
    model = make("gpt2").train()
    groups = described(model).groups
    collect(model, groups, batches("gpt2", n=1))
    assert model.training
    assert model.config.use_cache
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(RuntimeError), Collector(model, groups):
        raise RuntimeError
    assert not any(module._forward_pre_hooks for module in model.modules())
