"""Steps that solve: RegMean, each stage by itself, or RegMean++, where a stage needs those before it.

Weights are read when their turn comes, and of the Gram matrices those of one group and model at a time.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from transformers import PreTrainedModel

from actors.merging import grams, models
from actors.merging.checkpoints import Checkpoint
from actors.merging.collecting import counted_of, opened, read_grams
from actors.merging.errors import CheckpointError
from actors.merging.heads import Heads, heads_of
from actors.merging.texts import part_of
from cluster.storage import Run, Step, Storage
from configs.schema.merge import Statistics
from fusion.merging.architecture import TAIL, Architecture, Group, Rule, Stage, rules
from fusion.merging.average import average
from fusion.merging.collection import evaluating
from fusion.merging.models import Options, merge_stage
from fusion.merging.regmean_pp import staged
from fusion.merging.streaming import Flow, Streamer, collect_stage

PART, DIAGNOSTICS = "part-{}.safetensors", "diagnostics.json"
LARGE = 1 << 24
"""Numbers in the weights of a group above which it is solved for in parts."""
PLUS_PLUS = "regmean_pp"
Found = dict[str, list[dict[str, Any]]]
"""How each tensor came about."""


@dataclass(frozen=True)
class Together:
    """Models that become one, and what becomes of their tensors."""

    sources: list[Checkpoint]
    architecture: Architecture
    heads: Heads
    rules: dict[str, Rule]
    coefficients: list[float]

    def averaged(self, name: str) -> Tensor:
        """A tensor that is not solved for."""
        if self.rules[name].kind in {"skipped", "copy"}:
            return self.sources[0][name]
        return self.mean(name, [source[name] for source in self.sources])

    def mean(self, name: str, own: Sequence[Tensor]) -> Tensor:
        """The average of the models' tensors of a name, or of some of their rows."""
        if self.heads.space is not None and name in self.heads.tensors:
            return self.heads.averaged(own, self.coefficients)
        return average(own, coefficients=self.coefficients)


def together(run: Run, params: Mapping[str, Any]) -> Together:
    """The models of a step. `params`: sources, coefficients, exclude, average, heads, method."""
    sources = [opened(run, source) for source in params["sources"]]
    heads, architecture = heads_of(sources, params["heads"]), models.architecture_of(sources[0])
    known = rules_of(sources, params, heads)
    if params.get("method") == PLUS_PLUS:
        known = staged(known, architecture)
    return Together(sources, architecture, heads, known, params["coefficients"])


def rules_of(sources: Sequence[Checkpoint], params: Mapping[str, Any], heads: Heads) -> dict[str, Rule]:
    """How each tensor is merged, and why. `params`: exclude, average."""
    first = sources[0]
    found = rules(
        models.architecture_of(first),
        first.meta(),
        excluded=params["exclude"],
        averaged=params["average"],
        keep_heads=heads.kind == "own",
    )
    return heads.ruled(found)


def solve(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the merged tensors of a stage. `params`: sources, grams, stage (number), alpha, overrides,
    coefficients, ridge, exclude, average, heads."""
    these = together(run, params)
    stage = these.architecture.stages[params["stage"]]
    found: Found = {}
    parts = _solved(run, these, stage, params["grams"], _options(these, params), found)
    count = 0
    for tensors in parts:
        step.files.write_bytes(PART.format(count), save(tensors))
        count += 1
    step.files.write_json(DIAGNOSTICS, found)
    return {"stage": stage.name, "parts": count}


def solve_pp(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the merged tensors of all stages. `params`: those of `solve` without grams and stage, and texts
    (one per model), statistics. Stages that are published are not solved for again."""
    these, spec = together(run, params), Statistics.model_validate(params["statistics"])
    carrier = carrier_of(these.sources[0])
    streamer, stages = Streamer(carrier, these.architecture), these.architecture.stages
    flows = []
    for source, own in zip(these.sources, params["texts"], strict=True):
        texts = part_of(run, own, "train")[0][: spec.sequences]
        batches = models.batches(source, texts, spec.batch_size, spec.max_length)
        flows.append([Flow(batch) for batch in batches])
    merged = _Merged(these)
    whole = models.Loader(carrier, merged, stages)
    loaders = [models.Loader(carrier, source, stages) for source in these.sources]
    whole.load_around()
    _everyone(streamer, flows, -1)
    found: Found = {}
    for number, stage in enumerate(stages):
        if not stage.groups:
            continue
        if not step.files.exists(f"{number}.json"):
            with tempfile.TemporaryDirectory() as folder:
                places = [{"grams": f"{folder}/{i}"} for i in range(len(loaders))]
                for place, loader, own in zip(places, loaders, flows, strict=True):
                    loader.load(stage.name)
                    seen = collect_stage(streamer, own, number, counted=counted_of(spec), keep=False)
                    loader.drop(stage.name)
                    grams.write_stage(Storage(place["grams"]), stage.name, seen)
                    del seen
                how: Found = {}
                parts = _solved(run, these, stage, places, _options(these, params), how)
                for part, tensors in enumerate(parts):
                    step.files.write_bytes(PART.format(f"{number}-{part}"), save(tensors))
            step.files.write_json(f"{number}.json", how)
        found |= step.files.read_json(f"{number}.json")
        if stage.name != TAIL:
            merged.update(_whole(step, number))
            whole.load(stage.name)
            _everyone(streamer, flows, number)
            whole.drop(stage.name)
            merged.forget(stage.name)
    step.files.write_json(DIAGNOSTICS, found)
    return {"stages": len(stages)}


def carrier_of(source: Checkpoint) -> PreTrainedModel:
    """A model without weights that merged layers and those of every source are loaded into, one by one."""
    try:
        return models.hollow(source)
    except CheckpointError as error:
        raise CheckpointError(
            f"{PLUS_PLUS} needs files whose tensors are named as the model's: {error}"
        ) from None


class _Merged(dict[str, Tensor]):
    """Tensors of the merged model: those that were solved for, and averages, which are not kept."""

    def __init__(self, these: Together) -> None:
        super().__init__()
        self._these = these

    def __missing__(self, name: str) -> Tensor:
        return self._these.averaged(name)

    def forget(self, stage: str) -> None:
        """Drop what was solved for in a stage."""
        for name in [name for name in self if name.startswith(f"{stage}.")]:
            del self[name]


def _everyone(streamer: Streamer, flows: Sequence[Sequence[Flow]], number: int) -> None:
    with evaluating(streamer.model):
        for flow in (flow for of in flows for flow in of):
            streamer.advance(flow, number)


def _whole(step: Step, number: int) -> dict[str, Tensor]:
    """Tensors of a stage, from its parts."""
    parts: dict[str, dict[int, Tensor]] = {}
    for file in step.files.names():
        if file.startswith(f"part-{number}-"):
            for place, tensor in load(step.files.read_bytes(file)).items():
                name, _, start = place.rpartition("@")
                parts.setdefault(name, {})[int(start)] = tensor
    return {name: torch.cat([of[start] for start in sorted(of)]) for name, of in parts.items()}


def _options(these: Together, params: Mapping[str, Any]) -> Options:
    alpha = these.architecture.alpha if params["alpha"] is None else params["alpha"]
    return Options(alpha, params["overrides"], params["coefficients"], params["ridge"])


def _solved(
    run: Run,
    these: Together,
    stage: Stage,
    places: Sequence[Mapping[str, Any]],
    options: Options,
    found: Found,
) -> Iterator[dict[str, Tensor]]:
    """What is solved for in a stage, part by part, by names and first rows; `found` is told how."""
    for part in _parts(stage, these):
        known = (
            read_grams(run, place, part, source) for place, source in zip(places, these.sources, strict=True)
        )
        try:
            if these.heads.space is not None and part.groups[0].weights[0].tensor in these.heads.tensors:
                name, rows, how = these.heads.solved(part, these.sources, known, options)
                found[name] = how
                yield {f"{name}@0": rows.contiguous()}
                continue
            tensors = {}
            for merged in merge_stage(part, these.sources, known, these.rules, options):
                tensors[f"{merged.name}@{_start(part)}"] = merged.tensor.contiguous()
                about = [{**asdict(one), "ratio": one.ratio} for one in merged.diagnostics]
                found[merged.name] = found.get(merged.name, []) + about
            yield tensors
        except ValueError as error:
            raise CheckpointError(f"stage {part.name}: {error}") from None


def _parts(stage: Stage, these: Together) -> list[Stage]:
    """A stage group by group, as the sums of one are enough in memory, and large ones by their outputs;
    experts share tensors and stay together."""
    wanted = [g for g in stage.groups if any(these.rules[w.tensor].kind == "regmean" for w in g.weights)]
    alone = [(part,) for g in wanted if g.expert is None for part in _cut(g, these.sources[0])]
    together = tuple(group for group in wanted if group.expert is not None)
    return [replace(stage, groups=groups) for groups in (*alone, together) if groups]


def _cut(group: Group, like: Checkpoint) -> list[Group]:
    """A group, or several with a share of its outputs each."""
    shapes = [like.shapes[weight.tensor] for weight in group.weights]
    if sum(math.prod(shape) for shape in shapes) <= LARGE or not all(w.transposed for w in group.weights):
        return [group]
    return [
        replace(group, weights=(replace(weight, span=(start, min(start + rows, shape[0]))),))
        for weight, shape in zip(group.weights, shapes, strict=True)
        for rows in [max(1, LARGE // shape[1])]
        for start in range(0, shape[0], rows)
    ]


def _start(stage: Stage) -> int:
    """The first output of what is solved for."""
    span = stage.groups[0].weights[0].span
    return 0 if span is None else span[0]
