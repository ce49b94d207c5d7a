"""Check 18, the sources part of check 22, and which rule every tensor of a family gets."""

import pytest
import torch

from fusion.merging.architecture import (
    TAIL,
    check_alike,
    describe,
    distinct,
    matrix,
    rules,
    split,
)
from tests.fusion.merging.families import MODELS, make
from tests.fusion.merging.test_collection import described

AVERAGED = {"embedding", "normalisation", "bias", "convolution: its windows overlap, so no closed form"}


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_has_a_rule_and_a_reason(name):
    model = make(name)
    found = rules(described(model), distinct(model.state_dict())[0])
    assert {rule.reason for rule in found.values() if rule.kind == "average"} <= AVERAGED
    assert {rule.kind for rule in found.values()} <= {"regmean", "average"}
    for tensor, rule in found.items():
        assert (rule.kind == "regmean") == rule.reason.startswith("linear map of the input of "), tensor


@pytest.mark.parametrize("name", MODELS)
def test_a_group_taken_apart_and_put_together_is_itself(name):
    state = distinct(make(name).state_dict())[0]
    for group in described(make(name)).groups:
        weights = matrix(group, state)
        for weight, tensor in split(group, weights, state).items():
            stored = state[weight.tensor]
            assert torch.equal(tensor, stored if weight.expert is None else stored[weight.expert])
            assert tensor.is_contiguous()


def test_gpt2_weights_are_stored_as_they_are_used():
    model = make("gpt2")
    group = next(g for g in described(model).groups if g.name.endswith("0.mlp.c_proj"))
    x = torch.randn(3, 128, dtype=torch.float64)
    expected = model.transformer.h[0].mlp.c_proj(x) - model.transformer.h[0].mlp.c_proj.bias
    assert torch.allclose(x @ matrix(group, model.state_dict()), expected)


@pytest.mark.parametrize("name", ["gpt2", "llama tied", "bert words"])
def test_check_18_a_tied_head_is_the_embedding(name):
    model = make(name)
    parameters, state = dict(model.named_parameters()), model.state_dict()
    kept, aliases = distinct(state)
    head, embedding = next((a, b) for a, b in aliases.items() if state[a].ndim == 2)
    assert head in state
    assert head not in parameters
    assert kept.keys() == parameters.keys() - aliases.keys()
    assert "embedding" in embedding or "wte" in embedding or "embed_tokens" in embedding
    architecture = described(model)
    assert head not in {w.tensor for g in architecture.groups for w in g.weights}
    assert rules(architecture, kept)[embedding].kind == "average"
    both = describe(model.config.to_dict(), state.keys())
    assert rules(both, state)[head].reason == "tied to the embedding"
    assert both.stages == architecture.stages


def test_an_untied_head_is_a_linear_map():
    architecture = described(make("llama"))
    assert [group.name for group in architecture.stages[-1].groups] == ["lm_head"]
    assert architecture.stages[-1].name == TAIL


def test_experts_in_files_have_weights_of_their_own():
    model = make("mixtral")
    names = set(model.state_dict())
    stored = {name for name in names if ".mlp." not in name}
    for layer in range(3):
        path = f"model.layers.{layer}.block_sparse_moe"
        stored |= {f"{path}.gate.weight"}
        stored |= {f"{path}.experts.{e}.w{i}.weight" for e in range(4) for i in (1, 2, 3)}
    fused, apart = described(model), describe(model.config.to_dict(), stored)
    assert [group.name for group in apart.groups] == [group.name for group in fused.groups]
    assert {w.tensor for g in apart.groups for w in g.weights} == {
        name for name in stored if not name.endswith(("norm.weight", "embed_tokens.weight"))
    }


def test_the_cross_attention_of_all_blocks_reads_one_input():
    groups = described(make("t5")).groups
    shared = next(g for g in groups if g.name == "decoder.block.0.layer.1.EncDecAttention.k")
    assert len(shared.modules) == 6
    assert shared.rows == "tokens"


def test_positions_are_projected_too_where_deberta_shares_its_keys():
    groups = {g.name: g for g in described(make("deberta")).groups}
    path = "deberta.encoder.layer.0.attention.self"
    assert groups[f"{path}.query_proj"].modules == (f"{path}.query_proj", f"{path}.key_proj")
    assert groups[f"{path}.query_proj"].rows == "repeated"
    assert groups[f"{path}.value_proj"].rows == "tokens"


def test_two_lists_keep_tensors_from_being_merged_or_solved_for():
    state = make("bert").state_dict()
    found = rules(
        described(make("bert")),
        state,
        excluded=["bert.pooler"],
        averaged=[r".*\.output\.dense"],
        keep_heads=True,
    )
    assert found["bert.pooler.dense.weight"].kind == "skipped"
    assert found["bert.pooler.dense.weight"].reason == "excluded by 'bert.pooler'"
    assert found["classifier.weight"].kind == found["classifier.bias"].kind == "skipped"
    assert found["bert.encoder.layer.0.output.dense.weight"].kind == "average"
    assert "kept from RegMean" in found["bert.encoder.layer.0.output.dense.weight"].reason
    assert found["bert.encoder.layer.0.intermediate.dense.weight"].kind == "regmean"
    anchored = rules(described(make("bert")), state, excluded=["pooler"])
    assert anchored["bert.pooler.dense.weight"].kind == "regmean"


def test_what_is_not_a_parameter_is_copied():
    state = {**make("bert").state_dict(), "bert.embeddings.position_ids": torch.arange(4)}
    assert rules(described(make("bert")), state)["bert.embeddings.position_ids"].kind == "copy"


def test_what_is_not_known_is_said_to_be_averaged():
    state = {**make("bert").state_dict(), "extra.projection.weight": torch.ones(4, 4)}
    assert rules(described(make("bert")), state)["extra.projection.weight"].reason == (
        "not known to be a linear map"
    )


def test_other_families_and_variants_are_refused():
    with pytest.raises(ValueError, match="models of type mamba cannot be merged; allowed: bert, roberta"):
        describe({"model_type": "mamba"}, [])
    with pytest.raises(ValueError, match="bert with is_decoder = True"):
        describe({"model_type": "bert", "is_decoder": True}, [])
    with pytest.raises(ValueError, match=r"no tensor is named bert\.encoder\.layer\.0"):
        describe({"model_type": "bert", "num_hidden_layers": 1}, ["roberta.encoder.layer.0.x"])


def test_check_22_a_missing_tensor_is_named():
    model = make("bert")
    names = set(model.state_dict()) - {"bert.encoder.layer.1.output.dense.weight"}
    with pytest.raises(ValueError, match=r"tensor bert\.encoder\.layer\.1\.output\.dense\.weight is missing"):
        describe(model.config.to_dict(), names)
    other = {name: tensor for name, tensor in model.state_dict().items() if name in names}
    with pytest.raises(ValueError, match=r"b: tensor bert\.encoder\.layer\.1\.output\.dense\.weight is miss"):
        check_alike({"a": model.state_dict(), "b": other})


def test_check_22_models_that_do_not_match_are_named():
    state = make("llama").state_dict()
    with pytest.raises(ValueError, match=r"b: tensor model\.embed_tokens\.weight .*vocabularies differ"):
        check_alike({"a": state, "b": {**state, "model.embed_tokens.weight": torch.ones(100, 32)}})
    with pytest.raises(ValueError, match=r"b: tensor lm_head\.weight has shape \(3, 2\), in a \(96, 32\)"):
        check_alike({"a": state, "b": {**state, "lm_head.weight": torch.ones(3, 2)}})
    untied = {name: tensor for name, tensor in state.items() if name != "lm_head.weight"}
    with pytest.raises(ValueError, match=r"a: tensor lm_head\.weight is missing, but b has it; untie"):
        check_alike({"a": untied, "b": state})
    bad = {**state, "model.norm.weight": torch.full((32,), torch.nan)}
    with pytest.raises(ValueError, match=r"b: tensor model\.norm\.weight holds numbers that are not finite"):
        check_alike({"a": state, "b": bad})
    check_alike({"a": state, "b": state})
