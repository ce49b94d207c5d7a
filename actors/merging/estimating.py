"""What a merge will need, counted from shapes and tokens before any weight is read: disk, memory, work.

Work is counted in floating-point operations of linear maps, which are nearly all.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch

from actors.merging import solving
from actors.merging.checking import Plan, expected_rows, texts_of
from actors.merging.checkpoints import size_of
from configs.schema.merge import MergeConfig
from fusion.merging.architecture import Group, Stage, width
from fusion.merging.gram import panels_of

SINGLE, DOUBLE = 4, 8
"""Bytes of a number."""
PROCESS = 600 << 20
"""Memory of a process that has loaded torch and transformers and nothing else."""
REACHED = 0.6
"""Share of a matrix product's speed that whole models reach."""
SIDE = 1024
"""Size of the matrices that are multiplied to find the speed of a core."""


@dataclass(frozen=True)
class Estimate:
    """Bytes on disk by kind, bytes of the largest process, and operations by kind."""

    disk: dict[str, int]
    memory: int
    work: dict[str, float]

    def seconds(self, speed: float) -> float:
        """Of one process that multiplies with so many operations a second."""
        return sum(self.work.values()) / (REACHED * speed)


def estimate(config: MergeConfig, plans: Sequence[Plan], table: pa.Table | None) -> Estimate:
    """What merging these models will need."""
    work = {name: count for name, count in _work(config, plans, table).items() if count}
    return Estimate(disk(config, plans), max(_collecting(config, plans[0]), _solving(plans[0])), work)


def disk(config: MergeConfig, plans: Sequence[Plan]) -> dict[str, int]:
    """Bytes that will be written, by kind."""
    plan = plans[0]
    size = sum(size_of(dtype, plan.shapes.get(n, shape)) for n, (dtype, shape) in plan.like.headers.items())
    triangles = sum(width(g, plan.shapes) * (width(g, plan.shapes) + 1) // 2 for g in plan.groups)
    solved, own = _solutions(config), sum(one.grams is None for one in plans)
    found = {
        "fine-tuned models": size * len(plans) if config.fine_tuning is not None else 0,
        "Gram matrices": SINGLE * triangles * own if "regmean" in config.methods else 0,
        "Fisher information": SINGLE * _numbers(plan) * len(plans) if "fisher" in config.methods else 0,
        "solved layers": SINGLE * sum(_inputs_outputs(plan, g)[2] for g in plan.groups) * solved,
        "merged models": size * (len(config.methods) + (len(config.alphas) if solved else 0)) * config.merges,
    }
    return {name: written for name, written in found.items() if written}


def _solutions(config: MergeConfig) -> int:
    """How often layers are solved for."""
    plain = 1 + len(config.alphas) if "regmean" in config.methods and config.merges else 0
    return plain + (solving.PLUS_PLUS in config.methods)


def _numbers(plan: Plan) -> int:
    return sum(math.prod(shape) for shape in plan.shapes.values())


def _inputs_outputs(plan: Plan, group: Group) -> tuple[int, int, int]:
    """Input features, outputs, and their product."""
    inputs = width(group, plan.shapes)
    numbers = sum(math.prod(plan.shapes[w.tensor][0 if w.expert is None else 1 :]) for w in group.weights)
    return inputs, numbers // inputs, numbers


def _collecting(config: MergeConfig, plan: Plan) -> int:
    """Memory while Gram matrices are collected: weights of a block and what lies around the blocks, hidden
    states, and a stage's matrices with their triangles twice."""
    blocks = plan.architecture.stages[:-1]
    hidden = width(blocks[0].groups[0], plan.shapes)
    spec = config.statistics
    states = 2 * spec.sequences * spec.max_length * hidden
    around = {n: s for n, s in plan.shapes.items() if not n.startswith(tuple(f"{b.name}." for b in blocks))}
    block = max(_of_stage(plan, stage) for stage in blocks)
    grams = max(sum(2 * width(g, plan.shapes) ** 2 for g in stage.groups) for stage in blocks)
    numbers = states + sum(map(math.prod, around.values())) + block + grams
    return PROCESS + SINGLE * numbers


def _of_stage(plan: Plan, stage: Stage) -> int:
    return sum(math.prod(shape) for name, shape in plan.shapes.items() if name.startswith(f"{stage.name}."))


def _solving(plan: Plan) -> int:
    """Memory while a group is solved for: its sums and one Gram matrix in single, the system in double."""
    largest = 0
    for group in plan.groups:
        inputs, _, numbers = _inputs_outputs(plan, group)
        part = min(numbers, max(solving.LARGE, inputs))
        largest = max(largest, (2 * SINGLE + 2 * DOUBLE) * inputs**2 + 7 * SINGLE * part)
    return PROCESS + largest


def _work(config: MergeConfig, plans: Sequence[Plan], table: pa.Table | None) -> dict[str, float]:
    work = {"fine-tuning": 0.0, "collecting": 0.0, "solving": 0.0, "judging": 0.0}
    merged = len(config.methods) + len(config.alphas)
    for plan in plans:
        sizes = {group.name: _inputs_outputs(plan, group) for group in plan.groups}
        work["solving"] += _solutions(config) * sum(4.0 * m * m * n for m, n, _ in sizes.values())
        if table is None or plan.domain is None:
            continue
        texts = texts_of(config, table, plan.domain)
        rows = expected_rows(plan, texts, config.statistics)
        tokens = max(rows.values(), default=0)
        passing = 2.0 * tokens * sum(numbers for *_, numbers in sizes.values())
        grams = sum(rows.get(name, tokens) * gram_work(m) for name, (m, *_) in sizes.items())
        if "regmean" in config.methods and plan.grams is None:
            work["collecting"] += passing + grams
        if solving.PLUS_PLUS in config.methods:
            work["collecting"] += 2 * passing + grams
        each = passing / max(1, len(texts))
        if "fisher" in config.methods:
            labels = len(set(table.column("label").to_pylist()))
            work["collecting"] += each * (1 + 2 * (labels - 1)) * config.statistics.fisher_samples
        if config.fine_tuning is not None:
            learnt = _count(table, "train", plan.domain)
            work["fine-tuning"] += 3 * each * learnt * config.fine_tuning.epochs
        if config.merges:
            work["judging"] += each * _count(table, "test") * (len(plans) + merged) / len(plans)
    if _solutions(config):
        work["solving"] += _solutions(config) * sum(
            width(g, plans[0].shapes) ** 3 / 3 for g in plans[0].groups
        )
    return work


def gram_work(features: int) -> float:
    """Operations that a row costs a Gram matrix."""
    panels = panels_of(features)
    return features**2 * (panels + 1) / panels


def _count(table: pa.Table, part: str, domain: str | None = None) -> int:
    rows = zip(table.column("part").to_pylist(), table.column("domain").to_pylist(), strict=True)
    return sum(one == part and domain in {None, of} for one, of in rows)


def speed() -> float:
    """Operations a second of one core of this machine in a matrix product."""
    before, best = torch.get_num_threads(), 0.0
    torch.set_num_threads(1)
    try:
        x = torch.randn(SIDE, SIDE)
        for _ in range(3):
            started = time.perf_counter()
            x @ x
            best = max(best, 2 * SIDE**3 / (time.perf_counter() - started))
    finally:
        torch.set_num_threads(before)
    return best
