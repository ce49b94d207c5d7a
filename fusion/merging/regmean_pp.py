"""RegMean++ (arXiv 2508.03121): inputs of a layer are those that the merged layers before it produce.

Same solution as RegMean, but layers depend on each other: for each layer, every task's data comes out of the
merged layers so far and goes through that task's own layer, whose Gram matrices are used; then through the
merged one. What is averaged is averaged first, and so are linear maps before the first block.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from fusion.merging.architecture import TAIL, Architecture, Rule, Stage
from fusion.merging.collection import Batch, Counted, evaluating, no_padding
from fusion.merging.models import Merged, Options, merge
from fusion.merging.streaming import Flow, Streamer, collect_stage

Tensors = Mapping[str, Tensor]


def regmean_pp(
    model: nn.Module,
    architecture: Architecture,
    sources: Sequence[Tensors],
    batches: Sequence[Iterable[Batch]],
    rules: Mapping[str, Rule],
    options: Options,
    *,
    counted: Counted = no_padding,
    dtype: torch.dtype = torch.float32,
) -> tuple[nn.Module, list[Merged]]:
    """A copy of `model` with the merged weights, and these tensors, from the tensors of every source without
    those that are tied (`architecture.distinct`) and one calibration set for each."""
    carrier = deepcopy(model)
    first = {name: rule for name, rule in staged(rules, architecture).items() if rule.kind != "regmean"}
    done = list(merge(architecture, sources, [{}] * len(sources), first, options))
    _load(carrier, {item.name: item.tensor for item in done})
    streamer, flows = Streamer(carrier, architecture), [[Flow(batch) for batch in of] for of in batches]
    _everyone(streamer, flows, -1)
    for number, stage in enumerate(architecture.stages):
        before = {name: tensor.clone() for name, tensor in _own(stage, carrier.state_dict()).items()}
        grams = []
        for source, of in zip(sources, flows, strict=True):
            _load(carrier, _own(stage, source))
            grams.append(collect_stage(streamer, of, number, counted=counted, dtype=dtype, keep=False))
        found = list(merge(architecture, sources, grams, _within(rules, stage), options))
        done += found
        _load(carrier, before | {item.name: item.tensor for item in found})
        if number + 1 < len(architecture.stages):
            _everyone(streamer, flows, number)
    return carrier, done


def _everyone(streamer: Streamer, flows: Iterable[Iterable[Flow]], number: int) -> None:
    with evaluating(streamer.model):
        for flow in (flow for of in flows for flow in of):
            streamer.advance(flow, number)


def staged(rules: Mapping[str, Rule], architecture: Architecture) -> dict[str, Rule]:
    """The rules, but that linear maps before the first block are averaged."""
    solved = {name for stage in architecture.stages for name in _within(rules, stage)}
    early = Rule("average", "before the first block")
    return {name: early if r.kind == "regmean" and name not in solved else r for name, r in rules.items()}


def _within(rules: Mapping[str, Rule], stage: Stage) -> dict[str, Rule]:
    """The rules of what is solved for in a stage, without what lies before its block."""
    inside = [g for g in stage.groups if stage.name == TAIL or g.name.startswith(f"{stage.name}.")]
    names = [weight.tensor for group in inside for weight in group.weights if weight.tensor in rules]
    return {name: rules[name] for name in names if rules[name].kind == "regmean"}


def _own(stage: Stage, source: Tensors) -> dict[str, Tensor]:
    """What a stage takes from a source while that one's inputs are collected."""
    paths = (
        [module for group in stage.groups for module in group.modules] if stage.name == TAIL else [stage.name]
    )
    starts = tuple(f"{path}." for path in paths)
    return {name: tensor for name, tensor in source.items() if name.startswith(starts)}


def _load(model: nn.Module, tensors: Tensors) -> None:
    state = model.state_dict()
    for name, tensor in tensors.items():
        state[name].copy_(tensor)
