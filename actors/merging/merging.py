"""Steps that merge: RegMean stage by stage, then its checkpoint; and every other method in one pass.

Weights are read when their turn comes, and of the Gram matrices those of one stage and model at a time.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load, load_file, save, save_file
from torch import Tensor

from actors.merging import checkpoints
from actors.merging.checkpoints import Checkpoint
from actors.merging.collecting import FISHER, opened, read_grams
from actors.merging.errors import CheckpointError
from actors.merging.heads import alike, labels_of
from actors.merging.models import architecture_of
from cluster.storage import Run, Step
from fusion.merging.architecture import Group, Rule, Stage, check_finite, rules
from fusion.merging.average import average
from fusion.merging.dare import dare
from fusion.merging.families import TASK
from fusion.merging.fisher import fisher_average, norm
from fusion.merging.models import Options, merge_stage
from fusion.merging.slerp import slerp
from fusion.merging.task_arithmetic import task_arithmetic
from fusion.merging.ties import ties

MODEL, PART, DIAGNOSTICS = "model", "part-{}.safetensors", "diagnostics.json"
LARGE = 1 << 25
"""Numbers in the weights of a group above which it is solved for in parts."""
Each = Callable[[str, list[Tensor]], Tensor]
"""A merged tensor, given its name and the models' own."""


def rules_of(sources: Sequence[Checkpoint], params: Mapping[str, Any]) -> dict[str, Rule]:
    """How each tensor is merged, and why. `params`: exclude, average, heads."""
    first = sources[0]
    return rules(
        architecture_of(first),
        first.meta(),
        excluded=params["exclude"],
        averaged=params["average"],
        keep_heads=not alike(sources, params["heads"]),
    )


def solve(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the merged tensors of a stage. `params`: sources, grams, stage (number), alpha, overrides,
    coefficients, ridge, exclude, average, heads."""
    sources = [opened(run, source) for source in params["sources"]]
    architecture = architecture_of(sources[0])
    whole = architecture.stages[params["stage"]]
    alpha = architecture.alpha if params["alpha"] is None else params["alpha"]
    options = Options(alpha, params["overrides"], params["coefficients"], params["ridge"])
    known, parts = rules_of(sources, params), _parts(whole, sources[0])
    found: dict[str, list[dict[str, Any]]] = {}
    for number, stage in enumerate(parts):
        grams = (
            read_grams(run, place, stage, source)
            for place, source in zip(params["grams"], sources, strict=True)
        )
        tensors = {}
        try:
            for merged in merge_stage(stage, sources, grams, known, options):
                tensors[f"{merged.name}@{_start(stage)}"] = merged.tensor.contiguous()
                about = [{**asdict(one), "ratio": one.ratio} for one in merged.diagnostics]
                found[merged.name] = found.get(merged.name, []) + about
        except ValueError as error:
            raise CheckpointError(f"stage {stage.name}: {error}") from None
        step.files.write_bytes(PART.format(number), save(tensors))
    step.files.write_json(DIAGNOSTICS, found)
    return {"stage": whole.name, "parts": len(parts)}


def _parts(stage: Stage, like: Checkpoint) -> list[Stage]:
    """A stage group by group, as the sums of one are enough in memory, and large ones by their outputs;
    experts share tensors and stay together."""
    alone = [(part,) for group in stage.groups if group.expert is None for part in _cut(group, like)]
    together = tuple(group for group in stage.groups if group.expert is not None)
    return [replace(stage, groups=groups) for groups in (*alone, together) if groups]


def _cut(group: Group, like: Checkpoint) -> list[Group]:
    """A group, or several with a share of its outputs each."""
    shapes = [like.headers[weight.tensor][1] for weight in group.weights]
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


def assemble(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the checkpoint that RegMean makes. `params`: those of `solve` without stage, stages (keys of
    `solve` steps), dtype, shard_bytes, name."""
    sources = [opened(run, source) for source in params["sources"]]
    known = rules_of(sources, params)

    def tensors() -> Iterator[checkpoints.Piece]:
        yield from _merged(
            {name: rule for name, rule in known.items() if rule.kind != "regmean"},
            sources,
            lambda _, own: average(own, coefficients=params["coefficients"]),
            by_rows=True,
        )
        for key in params["stages"]:
            with run.folder(f"steps/{key}") as folder:
                for file in sorted(folder.glob(PART.format("*"))):
                    for place, tensor in load_file(file).items():
                        name, _, start = place.rpartition("@")
                        yield name, tensor, int(start)

    _write(run, step, tensors(), sources, params)
    counts: dict[str, int] = {}
    for rule in known.values():
        counts[rule.kind] = counts.get(rule.kind, 0) + 1
    found = {}
    for key in params["stages"]:
        found |= run.read_json(f"steps/{key}/{DIAGNOSTICS}")
    report = {name: {**asdict(rule), "diagnostics": found.get(name, [])} for name, rule in known.items()}
    step.files.write_json("tensors.json", report)
    solved = {(one["objective"], one["of_average"]) for several in found.values() for one in several}
    of_average = sum(average for _, average in solved)
    ratio = sum(objective for objective, _ in solved) / of_average if of_average else 1.0
    return {"tensors": counts, "objective_ratio": round(ratio, 6)}


def rival(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the checkpoint of another method. `params`: method, sources, coefficients, exclude, average,
    heads, seed, dtype, shard_bytes, name; base, scale, density, drop; fishers (keys)."""
    sources = [opened(run, source) for source in params["sources"]]
    known = rules_of(sources, params)
    with _each(run, params) as each:
        by_rows = params["method"] == "simple"
        _write(run, step, _merged(known, sources, each, by_rows=by_rows), sources, params)
    return {"tensors": len(known)}


def _merged(
    known: Mapping[str, Rule], sources: Sequence[Checkpoint], each: Each, *, by_rows: bool
) -> Iterator[checkpoints.Piece]:
    """Tensors by one method, large ones `by_rows` where it looks at each number by itself."""
    for name, rule in known.items():
        if rule.kind in {"skipped", "copy"}:
            yield name, sources[0][name], 0
            continue
        shape = sources[0].headers[name][1]
        rows = shape[0] if shape else 1
        some = max(1, LARGE * rows // math.prod(shape)) if by_rows and math.prod(shape) > LARGE else rows
        for start in range(0, rows, some):
            own = [source[name] for source in sources]
            own = own if some == rows else [tensor[start : start + some] for tensor in own]
            for source, tensor in zip(sources, own, strict=True):
                check_finite(source.name, name, tensor)
            yield name, each(name, own), start


@contextmanager
def _each(run: Run, params: dict[str, Any]) -> Iterator[Each]:
    """The method, as a function of one tensor."""
    method, scales = params["method"], params["coefficients"]
    if method == "simple":
        yield lambda _, own: average(own, coefficients=scales)
    elif method == "slerp":
        yield lambda _, own: slerp(own[0], own[1])
    elif method == "fisher":
        fishers = [load(run.read_bytes(f"steps/{key}/{FISHER}")) for key in params["fishers"]]
        norms = [norm(fisher.values()) for fisher in fishers]
        yield lambda name, own: fisher_average(
            own, [fisher[name] for fisher in fishers], coefficients=scales, norms=norms
        )
    else:
        base = opened(run, params["base"])
        yield _from_base(params, base)


def _from_base(params: dict[str, Any], base: Checkpoint) -> Each:
    """Methods that know the model that all descend from; a head that it lacks is averaged."""
    method = params["method"]

    def merged(name: str, own: list[Tensor]) -> Tensor:
        there = name if name in base else name.partition(".")[2]  # a base without a head lacks the prefix
        if there not in base or base.headers[there][1] != tuple(own[0].shape):
            return average(own, coefficients=params["coefficients"])
        if method == "task_arithmetic":
            return task_arithmetic(own, base[there], scale=params["scale"])
        if method == "ties":
            return ties(own, base[there], density=params["density"])
        return dare(own, base[there], name=name, seed=params["seed"], drop=params["drop"])

    return merged


def _write(
    run: Run,
    step: Step,
    tensors: Iterator[checkpoints.Piece],
    sources: Sequence[Checkpoint],
    params: dict[str, Any],
) -> None:
    """Write a checkpoint below the step. Where label sets differ, its head is that of the first model, and
    `heads/` has all of them."""
    with _folder(run, step) as folder:
        checkpoints.write(
            folder,
            tensors,
            sources[0],
            dtype=params["dtype"],
            card=card(params, sources[0]),
            shard_bytes=params["shard_bytes"],
        )
        if not alike(sources, params["heads"]):
            _write_heads(folder, sources)


@contextmanager
def _folder(run: Run, step: Step) -> Iterator[Path]:
    """An empty folder that becomes the checkpoint of a step."""
    if run.local:
        folder = Path(step.files.at(MODEL))
        shutil.rmtree(folder, ignore_errors=True)  # what was begun and not finished
        folder.mkdir(parents=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)
        step.files.put_folder(MODEL, Path(temporary))


def _write_heads(folder: Path, sources: Sequence[Checkpoint]) -> None:
    """Each model's own head with the names of its labels, where models have different ones."""
    for source in sources:
        place = folder / "heads" / source.name
        place.mkdir(parents=True)
        save_file(
            {name: source[name] for name in source if name.startswith(TASK)}, place / "head.safetensors"
        )
        labels = labels_of(source)
        (place / "labels.json").write_text(json.dumps({"id2label": labels}, indent=2) + "\n")


def card(params: Mapping[str, Any], like: Checkpoint) -> str:
    """The model card."""
    method = params.get("method", "regmean")
    rows = [
        f"| {source['name']} | {source.get('model', 'fine-tuned by the same run')} | {share:.4g} |"
        for source, share in zip(params["sources"], params["shares"], strict=True)
    ]
    alpha = (
        f"alpha {params['alpha']}" if params.get("alpha") is not None else "alpha by default of the family"
    )
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "tags: [merge]",
            "---",
            "",
            f"# {params['name']}",
            "",
            f"A {like.config.get('model_type')} merged by `{method}`"
            + (f", {alpha}." if method == "regmean" else "."),
            "",
            "| model | from | share |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )
