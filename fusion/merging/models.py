"""Whole models by RegMean, tensor by tensor: what the linear maps share is solved for, the rest averaged.

Sources may be lazy mappings; a group's tensors are read when its turn comes and not kept.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fusion.merging.architecture import Architecture, Group, Rule, Stage, Weight, matrix, split
from fusion.merging.average import average, normalised
from fusion.merging.gram import Gram
from fusion.merging.regmean import Diagnostics, Overrides, alpha_of, solve
from fusion.merging.sums import Sums

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Options:
    """How linear maps are solved for."""

    alpha: float
    overrides: Overrides = ()
    coefficients: Sequence[float] | None = None
    """One per model, > 0; equal by default."""
    ridge: float = 0.0
    expert_rows: int = 1
    """Rows that an expert needs in every model, lest it be averaged."""


@dataclass(frozen=True)
class Merged:
    """A merged tensor, as it is stored, and how it came about; skipped tensors are not yielded."""

    name: str
    tensor: Tensor
    rule: Rule
    diagnostics: tuple[Diagnostics, ...] = ()
    """One for RegMean, or one per expert."""


@dataclass(frozen=True)
class Task:
    """A group, or those of its weights that are solved for with one alpha."""

    alpha: float
    group: Group


@dataclass(frozen=True)
class Part:
    """A merged weight of a group, as it is stored."""

    weight: Weight
    tensor: Tensor
    diagnostics: Diagnostics


def merge(
    architecture: Architecture,
    sources: Sequence[Tensors],
    grams: Sequence[Mapping[str, Gram]],
    rules: Mapping[str, Rule],
    options: Options,
) -> Iterator[Merged]:
    """All tensors but the skipped ones: those to copy from the first source and those to average, then those
    to solve for stage by stage. Raises ValueError if a Gram matrix is missing."""
    yield from merge_others(sources, rules, options)
    for stage in architecture.stages:
        yield from merge_stage(stage, sources, grams, rules, options)


def merge_others(sources: Sequence[Tensors], rules: Mapping[str, Rule], options: Options) -> Iterator[Merged]:
    """What needs no Gram matrix."""
    for name, rule in rules.items():
        if rule.kind == "copy":
            yield Merged(name, sources[0][name], rule)
        elif rule.kind == "average":
            tensors = [source[name] for source in sources]
            yield Merged(name, average(tensors, coefficients=options.coefficients), rule)


def merge_stage(
    stage: Stage,
    sources: Sequence[Tensors],
    grams: Iterable[Mapping[str, Gram]],
    rules: Mapping[str, Rule],
    options: Options,
) -> Iterator[Merged]:
    """What is solved for in one stage. Of `grams`, one mapping per source, only one is needed at a time."""
    tasks, sums = tasks_of(stage, rules, options), list[Sums]()
    scales = normalised(options.coefficients, len(sources))
    every = iter(grams)
    for source, scale in zip(sources, scales, strict=True):
        _count(tasks, sums, source, next(every, {}), scale)  # zip would keep one while the next is made
    if next(every, None) is not None:
        raise ValueError(f"there are Gram matrices of more models than the {len(sources)} to merge")
    yield from solve_stage(tasks, sums, sources[0], rules, options)


def tasks_of(stage: Stage, rules: Mapping[str, Rule], options: Options) -> list[Task]:
    """What is solved for in a stage, one `Sums` each. Groups are cut where patterns give their modules
    different alphas."""
    return [
        Task(alpha, replace(group, weights=weights))
        for group in stage.groups
        for alpha, weights in _by_alpha(group, rules, options).items()
    ]


def solve_stage(
    tasks: Iterable[Task], sums: list[Sums], like: Tensors, rules: Mapping[str, Rule], options: Options
) -> Iterator[Merged]:
    """Merged tensors of a stage, in shape and type those of `like`. `sums`, one per task, are used up."""
    parts: dict[str, list[Part]] = {}
    for task in tasks:
        for part in _solved(sums.pop(0), task, like, options):
            name = part.weight.tensor
            parts.setdefault(name, []).append(part)
            if part.weight.expert is None or len(parts[name]) == len(like[name]):
                yield _assembled(name, parts.pop(name), rules[name])


def sums_of(
    group: Group,
    sources: Sequence[Tensors],
    grams: Sequence[Gram],
    coefficients: Sequence[float] | None = None,
) -> Sums:
    """What all models add to a group, around the weights of the first."""
    scales = normalised(coefficients, len(sources))
    sums = Sums(matrix(group, sources[0]), dtype=grams[0].total.dtype)
    for source, gram, scale in zip(sources, grams, scales, strict=True):
        sums.add(gram, matrix(group, source), scale)
    return sums


def _count(
    tasks: Iterable[Task], sums: list[Sums], source: Tensors, known: Mapping[str, Gram], scale: float
) -> None:
    for number, task in enumerate(tasks):
        gram, weight = _of(known, task.group), matrix(task.group, source)
        if number == len(sums):
            sums.append(Sums(weight, dtype=gram.total.dtype))
        sums[number].add(gram, weight, scale)


def _by_alpha(group: Group, rules: Mapping[str, Rule], options: Options) -> dict[float, tuple[Weight, ...]]:
    found: dict[float, tuple[Weight, ...]] = {}
    for weight in group.weights:
        if weight.tensor in rules and rules[weight.tensor].kind == "regmean":
            alpha = alpha_of(weight.tensor, options.alpha, options.overrides)
            found[alpha] = (*found.get(alpha, ()), weight)
    return found


def _solved(sums: Sums, task: Task, like: Tensors, options: Options) -> Iterator[Part]:
    least = 0 if task.group.expert is None else options.expert_rows
    solution = solve(sums, task.alpha, ridge=options.ridge, least_rows=least)
    for weight, tensor in split(task.group, solution.weight, like).items():
        yield Part(weight, tensor, solution.diagnostics)


def _of(grams: Mapping[str, Gram], group: Group) -> Gram:
    if group.name not in grams:
        raise ValueError(f"the Gram matrix of {group.name} is missing")
    return grams[group.name]


def _assembled(name: str, parts: Sequence[Part], rule: Rule) -> Merged:
    diagnostics = tuple(part.diagnostics for part in parts)
    if parts[0].weight.expert is None:
        return Merged(name, parts[0].tensor, rule, diagnostics)
    return Merged(name, torch.stack([part.tensor for part in parts]), rule, diagnostics)
