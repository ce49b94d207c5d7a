"""A model as its merge sees it: which tensors are linear maps of which input, and what becomes of the rest.

    describe(config, names)  ->  Architecture: groups of weights with one input, in the order of stages
    rules(architecture, tensors)  ->  for every tensor how it is merged, and why

A stage is one block with everything that must be collected while it runs, so that a model need never be in
memory as a whole; what lies after the last block is a stage of its own.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fusion.merging.families import (
    CROSS,
    FAMILIES,
    HEADS,
    TASK,
    TIED_HEADS,
    Config,
    Experts,
    Family,
    Inputs,
    Rows,
    Stack,
)

TAIL = "tail"
"""Name of the stage after the last block."""
EMBEDDING = re.compile(
    r"(^|.*\.)(word_embeddings|position_embeddings|token_type_embeddings|rel_embeddings|wte|wpe|embed_tokens"
    r"|shared|relative_attention_bias)\.weight$"
)
NORM = re.compile(r"(^|.*\.)(\w*norm\w*|ln_\w+)\.(weight|bias)$", re.IGNORECASE)
CONVOLUTION = re.compile(r"(^|.*\.)conv\.weight$")


@dataclass(frozen=True)
class Weight:
    """One matrix of a group."""

    tensor: str
    transposed: bool = True
    """Whether it is stored (out, in)."""
    expert: int | None = None
    """Which slice of a fused tensor (experts, ...) it is."""
    span: tuple[int, int] | None = None
    """Which outputs of it, from and up to; all when empty. The others are merged by themselves."""


@dataclass(frozen=True)
class Group:
    """Weights that map one and the same input, so that they share a Gram matrix."""

    name: str
    modules: tuple[str, ...]
    """Who is given the input, in order."""
    weights: tuple[Weight, ...]
    rows: Rows = "tokens"
    expert: int | None = None


@dataclass(frozen=True)
class Stage:
    """A block, or the tail, and the groups whose input is seen while it runs."""

    name: str
    groups: tuple[Group, ...]
    stack: int = 0


@dataclass(frozen=True)
class Architecture:
    """What `describe` finds out."""

    family: str
    alpha: float
    """The default for this family."""
    stages: tuple[Stage, ...]
    embeddings: tuple[str, ...]
    """For every stack the module whose output enters its first block."""
    tied: tuple[str, ...] = ()
    """Tensors that are an embedding over again."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups in the order of stages."""
        return tuple(group for stage in self.stages for group in stage.groups)


@dataclass(frozen=True)
class Rule:
    """What is done with a tensor: solved for, averaged, taken from one model, or left out."""

    kind: Literal["regmean", "average", "copy", "skipped"]
    reason: str


def describe(config: Config, names: Collection[str]) -> Architecture:
    """From a model's configuration and the names of its tensors, in memory or in files.

    Raises ValueError for families and variants that are not described here, and for missing tensors.
    """
    kind = str(config.get("model_type"))
    family = _supported(kind, config)
    prefix = _prefix(family, names)
    stages = [
        Stage(
            f"{prefix}{stack.path}.{i}", _block(family, stack, f"{prefix}{stack.path}.{i}", config, names), at
        )
        for at, stack in enumerate(family.stacks)
        if _present(stack, prefix, names)
        for i in range(_depth(stack, config))
    ]
    front = tuple(g for g in _found(family.front, prefix, names))
    stages[0] = Stage(stages[0].name, front + stages[0].groups, stages[0].stack)
    if family.stacks[-1].path == "decoder.block":
        stages = _with_cross_attention(stages)
    tied = _tied(config, names)
    stages.append(Stage(TAIL, _heads(family, prefix, config, set(names) - set(tied)), len(family.stacks)))
    for group in (g for stage in stages for g in stage.groups):
        for weight in group.weights:
            if weight.tensor not in names:
                raise ValueError(f"{kind}: tensor {weight.tensor} is missing")
    embeddings = tuple(f"{prefix}{stack.embeddings}" for stack in family.stacks)
    return Architecture(kind, family.alpha, tuple(stages), embeddings, tied)


def rules(
    architecture: Architecture,
    tensors: Mapping[str, Tensor],
    *,
    excluded: Sequence[str] = (),
    averaged: Sequence[str] = (),
    keep_heads: bool = False,
) -> dict[str, Rule]:
    """How each tensor is merged. Tensors may be on the meta device.

    Regular expressions anchored at the start of names: `excluded` tensors are not merged at all, `averaged`
    ones not solved for. `keep_heads` leaves out what belongs to a task, as label sets that differ require.
    """
    solved = {w.tensor: g.name for g in architecture.groups for w in g.weights}

    def left_out(name: str) -> Rule | None:
        if (pattern := _matching(excluded, name)) is not None:
            return Rule("skipped", f"excluded by {pattern!r}")
        head = keep_heads and name.startswith(TASK)
        return Rule("skipped", "head of a task: every model keeps its own") if head else None

    def merged(name: str, tensor: Tensor) -> Rule:
        if not tensor.is_floating_point():
            return Rule("copy", "not a parameter")
        if name in architecture.tied:
            return Rule("average", "tied to the embedding")
        if name not in solved:
            return Rule("average", _kind(name, tensor))
        if (pattern := _matching(averaged, name)) is not None:
            return Rule("average", f"kept from RegMean by {pattern!r}")
        return Rule("regmean", f"linear map of the input of {solved[name]}")

    return {name: left_out(name) or merged(name, tensor) for name, tensor in tensors.items()}


def distinct(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors without those that share all of their memory with an earlier one, and those by name with the
    name of the earlier one. A state dict lists tied parameters twice."""
    first: dict[tuple[object, ...], str] = {}
    kept, aliases = {}, {}
    for name, tensor in state.items():
        place = tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride()
        if tensor.device.type != "meta" and tensor.numel() and place in first:
            aliases[name] = first[place]
        else:
            first[place] = name
            kept[name] = tensor
    return kept, aliases


def check_alike(models: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Models by name have the same tensors of the same shapes, all of them finite where they are not on the
    meta device. Raises ValueError that names model and tensor."""
    (first, reference), *others = models.items()
    for model, tensors in others:
        if tied := set(reference) ^ set(tensors):
            name = min(tied)
            lacking, having = (model, first) if name in reference else (first, model)
            raise ValueError(f"{lacking}: tensor {name} is missing, but {having} has it{_hint(name)}")
        for name, tensor in tensors.items():
            if tensor.shape != reference[name].shape:
                shapes = f"{tuple(tensor.shape)}, in {first} {tuple(reference[name].shape)}"
                hint = "; vocabularies differ" if EMBEDDING.match(name) else ""
                raise ValueError(f"{model}: tensor {name} has shape {shapes}{hint}")
    for model, tensors in models.items():
        for name, tensor in tensors.items():
            check_finite(model, name, tensor)


def check_finite(model: str, name: str, tensor: Tensor) -> None:
    """Raises ValueError that names model and tensor if a number in it is not finite."""
    if tensor.device.type != "meta" and tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ValueError(f"{model}: tensor {name} holds numbers that are not finite")


def width(group: Group, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Input features of a group, from the shapes of tensors."""
    weight = group.weights[0]
    shape = shapes[weight.tensor] if weight.expert is None else shapes[weight.tensor][1:]
    return shape[1] if weight.transposed else shape[0]


def matrix(group: Group, tensors: Mapping[str, Tensor]) -> Tensor:
    """The weights of a group side by side (inputs, outputs)."""
    parts = [_stored(weight, tensors[weight.tensor]) for weight in group.weights]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).T


def split(group: Group, merged: Tensor, tensors: Mapping[str, Tensor]) -> dict[Weight, Tensor]:
    """A matrix (inputs, outputs) of a group cut into its weights as they are stored, contiguous."""
    sizes = [_stored(weight, tensors[weight.tensor]).shape[0] for weight in group.weights]
    parts = torch.split_with_sizes(merged, sizes, dim=1)
    return {
        weight: (part.T if weight.transposed else part).contiguous()
        for weight, part in zip(group.weights, parts, strict=True)
    }


def _stored(weight: Weight, tensor: Tensor) -> Tensor:
    matrix = tensor if weight.expert is None else tensor[weight.expert]
    rows = matrix if weight.transposed else matrix.T
    return rows if weight.span is None else rows[slice(*weight.span)]


def _supported(kind: str, config: Config) -> Family:
    if kind not in FAMILIES:
        raise ValueError(f"models of type {kind} cannot be merged; allowed: {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    for key, value in family.unsupported:
        if config.get(key) == value:
            raise ValueError(f"{kind} with {key} = {value} cannot be merged")
    return family


def _prefix(family: Family, names: Iterable[str]) -> str:
    path = family.stacks[0].path
    for prefix in (f"{family.prefix}.", "", "transformer."):
        if any(name.startswith(f"{prefix}{path}.0.") for name in names):
            return prefix
    raise ValueError(f"no tensor is named {family.prefix}.{path}.0 or {path}.0")


def _present(stack: Stack, prefix: str, names: Iterable[str]) -> bool:
    return stack.path != "decoder.block" or any(name.startswith(f"{prefix}{stack.path}.") for name in names)


def _depth(stack: Stack, config: Config) -> int:
    fallback = config.get("num_hidden_layers", config.get("num_layers"))
    value = config.get(stack.depth)
    return int(fallback if value is None else value)


def _block(
    family: Family, stack: Stack, path: str, config: Config, names: Collection[str]
) -> tuple[Group, ...]:
    groups = [_group(inputs, f"{path}.", family.transposed) for inputs in stack.inputs(config)]
    if stack.experts is not None:
        groups += _experts(stack.experts, path, config, names)
    return tuple(groups)


def _group(inputs: Inputs, prefix: str, transposed: bool = True) -> Group:
    modules = tuple(prefix + name for name in inputs.modules)
    return Group(modules[0], modules, tuple(Weight(f"{m}.weight", transposed) for m in modules), inputs.rows)


def _experts(experts: Experts, path: str, config: Config, names: Collection[str]) -> list[Group]:
    module, stored = f"{path}.{experts.module}", f"{path}.{experts.stored}"
    in_files = f"{stored}.gate.weight" in names
    router = f"{stored}.gate.weight" if in_files else f"{path}.{experts.router}.weight"
    groups = [Group(f"{path}.{experts.router}", (f"{path}.{experts.router}",), (Weight(router),))]
    for expert in range(int(config[experts.count])):
        own = f"{stored}.experts.{expert}"
        up = [Weight(f"{own}.w1.weight"), Weight(f"{own}.w3.weight")]
        down = [Weight(f"{own}.w2.weight")]
        if not in_files:
            up = [Weight(f"{module}.gate_up_proj", expert=expert)]
            down = [Weight(f"{module}.down_proj", expert=expert)]
        groups.append(Group(f"{module}.{expert}.gate_up", (module,), tuple(up), "gate_up", expert))
        groups.append(Group(f"{module}.{expert}.down", (module,), tuple(down), "down", expert))
    return groups


def _with_cross_attention(stages: list[Stage]) -> list[Stage]:
    decoder = [stage for stage in stages if stage.stack == 1]
    if not decoder:
        return stages
    modules = tuple(f"{stage.name}.{name}" for stage in decoder for name in CROSS)
    shared = Group(modules[0], modules, tuple(Weight(f"{m}.weight") for m in modules))
    first = decoder[0]
    return [Stage(s.name, (*s.groups, shared), s.stack) if s is first else s for s in stages]


def _found(inputs: Iterable[Inputs], prefix: str, names: Collection[str]) -> list[Group]:
    return [_group(i, prefix) for i in inputs if f"{prefix}{i.modules[0]}.weight" in names]


def _heads(family: Family, prefix: str, config: Config, names: Collection[str]) -> tuple[Group, ...]:
    classes = " ".join(config.get("architectures") or [])
    score: Rows = "last" if "SequenceClassification" in classes else "tokens"
    own = (
        Inputs(("score",), score),
        Inputs(("lm_head",), family.generation_rows),
        Inputs(("qa_outputs",), family.generation_rows),
    )
    pooler = [] if not prefix else _found((Inputs(("pooler.dense",), "head"),), prefix, names)
    return (*pooler, *_found((*HEADS, *own), "", names))


def _tied(config: Config, names: Collection[str]) -> tuple[str, ...]:
    defaults = config.get("model_type") not in ("llama", "qwen2", "qwen3", "mixtral")
    if not config.get("tie_word_embeddings", defaults) or config.get("scale_decoder_outputs") is False:
        return ()
    return tuple(name for head in TIED_HEADS if (name := f"{head}.weight") in names)


def _matching(patterns: Iterable[str], name: str) -> str | None:
    return next((pattern for pattern in patterns if re.match(pattern, name)), None)


def _kind(name: str, tensor: Tensor) -> str:
    if EMBEDDING.match(name):
        return "embedding"
    if NORM.match(name):
        return "normalisation"
    if CONVOLUTION.match(name):
        return "convolution: its windows overlap, so no closed form"
    if name.endswith("bias") and tensor.ndim == 1:
        return "bias"
    return "not known to be a linear map"


def _hint(name: str) -> str:
    return "; untie its embeddings or tie those of all" if name.removesuffix(".weight") in TIED_HEADS else ""
