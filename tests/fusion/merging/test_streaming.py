"""Blocks one after another see what they see in the whole model."""

from itertools import pairwise

import pytest
import torch

from fusion.merging.architecture import TAIL
from fusion.merging.collection import collect
from fusion.merging.streaming import Flow, Streamer, collect_stage, collect_streamed
from tests.fusion.merging.families import MODELS, batches, make
from tests.fusion.merging.test_collection import described


@pytest.mark.parametrize("name", MODELS)
def test_streamed_matrices_are_those_of_the_whole_model(name):
    model, data = make(name), batches(name)
    architecture = described(model)
    whole = collect(model, architecture.groups, data, dtype=torch.float64)
    streamed = {}
    for stage, grams in collect_streamed(model, architecture, data, dtype=torch.float64):
        assert grams.keys() == {group.name for group in stage.groups}
        streamed |= grams
    assert streamed.keys() == whole.keys()
    for group in whole:
        assert streamed[group].rows == whole[group].rows
        assert torch.equal(streamed[group].symmetric(), whole[group].symmetric()), group


def test_one_block_is_enough_in_memory():
    name = "qwen2"
    model, data = make(name), batches(name)
    architecture = described(model)
    whole = collect(model, architecture.groups, data, dtype=torch.float64)
    kept = {stage.name: model.get_submodule(stage.name).state_dict() for stage in architecture.stages[:-1]}
    kept = {path: {n: t.clone() for n, t in state.items()} for path, state in kept.items()}
    for path in kept:
        model.get_submodule(path).to("meta")
    streamer, flows = Streamer(model, architecture), [Flow(batch) for batch in data]
    for number, stage in enumerate(architecture.stages):
        if stage.name != TAIL:
            block = model.get_submodule(stage.name)
            block.to_empty(device="cpu").load_state_dict(kept[stage.name])
        for group, gram in collect_stage(streamer, flows, number, dtype=torch.float64).items():
            assert torch.equal(gram.symmetric(), whole[group].symmetric()), group
        if number == 0:
            model.model.embed_tokens.to("meta")
        if stage.name != TAIL:
            block.to("meta")


def test_a_flow_may_look_without_going():
    model, data = make("llama"), batches("llama")
    architecture = described(model)
    streamer, flows = Streamer(model, architecture), [Flow(batch) for batch in data]
    with torch.no_grad():
        for flow in flows:
            streamer.advance(flow, -1)
    first = collect_stage(streamer, flows, 0, keep=False)
    again = collect_stage(streamer, flows, 0)
    after = collect_stage(streamer, flows, 1)
    assert all(torch.equal(first[name].total, again[name].total) for name in first)
    assert not {"model.layers.0.self_attn.q_proj"} & after.keys()
    assert not any("forward" in vars(module) for module in model.modules())


def test_hidden_states_stay_in_their_memory():
    model, data = make("llama"), batches("llama")
    streamer, flow = Streamer(model, described(model)), Flow(data[0])
    with torch.no_grad():
        streamer.advance(flow, -1)
    place, seen = flow.hidden[0].data_ptr(), []
    for number in range(len(streamer.stages) - 1):
        collect_stage(streamer, [flow], number)
        assert flow.hidden[0].data_ptr() == place
        seen.append(flow.hidden[0].clone())
    assert not any(torch.equal(one, other) for one, other in pairwise(seen))
