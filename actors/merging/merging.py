"""Steps that write checkpoints: that of what was solved for, and those of every other method, in one pass."""

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load, load_file
from torch import Tensor

from actors.merging import checkpoints, solving
from actors.merging.checkpoints import Checkpoint
from actors.merging.collecting import FISHER, opened
from actors.merging.heads import write_heads
from actors.merging.solving import DIAGNOSTICS, PART, Together, together
from cluster.storage import Run, Step, StorageError
from fusion.merging.architecture import check_finite
from fusion.merging.average import average
from fusion.merging.dare import dare
from fusion.merging.fisher import fisher_average, norm
from fusion.merging.slerp import slerp
from fusion.merging.task_arithmetic import task_arithmetic
from fusion.merging.ties import ties

MODEL = "model"
RESULT, GRAMS = "model", "grams"
"""What a run leaves: the model that it made of several, or the Gram files of one."""
"""Folder of the result below the run."""
Each = Callable[[str, list[Tensor]], Tensor]
"""A merged tensor, given its name and the models' own."""


def assemble(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the checkpoint that RegMean makes. `params`: those of `solve` without stage, stages (keys of
    `solve` steps), method, dtype, shard_bytes, name."""
    these = together(run, params)

    def tensors() -> Iterator[checkpoints.Piece]:
        rest = {name: rule for name, rule in these.rules.items() if rule.kind != "regmean"}
        yield from _merged(replace(these, rules=rest), these.mean, by_rows=True)
        for key in params["stages"]:
            with run.folder(f"steps/{key}") as folder:
                for file in sorted(folder.glob(PART.format("*"))):
                    for place, tensor in load_file(file).items():
                        name, _, start = place.rpartition("@")
                        yield name, tensor, int(start)

    _write(run, step, tensors(), these, params)
    counts: dict[str, int] = {}
    for rule in these.rules.values():
        counts[rule.kind] = counts.get(rule.kind, 0) + 1
    found = {}
    for key in params["stages"]:
        found |= run.read_json(f"steps/{key}/{DIAGNOSTICS}")
    report = {
        name: {**asdict(rule), "diagnostics": found.get(name, [])} for name, rule in these.rules.items()
    }
    step.files.write_json("tensors.json", report)
    solved = {(one["objective"], one["of_average"]) for several in found.values() for one in several}
    of_average = sum(average for _, average in solved)
    ratio = sum(objective for objective, _ in solved) / of_average if of_average else 1.0
    return {"tensors": counts, "objective_ratio": round(ratio, 6)}


def rival(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the checkpoint of another method. `params`: method, sources, coefficients, exclude, average,
    heads, seed, dtype, shard_bytes, name; base, scale, density, drop; fishers (keys)."""
    these = together(run, params)
    with _each(run, params) as each:
        by_rows = params["method"] == "simple"
        _write(run, step, _merged(these, each, by_rows=by_rows), these, params)
    return {"tensors": len(these.rules)}


def _merged(these: Together, each: Each, *, by_rows: bool) -> Iterator[checkpoints.Piece]:
    """Tensors by one method, large ones `by_rows` where it looks at each number by itself."""
    sources = these.sources
    for name, rule in these.rules.items():
        if rule.kind in {"skipped", "copy"}:
            yield name, sources[0][name], 0
            continue
        by_label = these.heads.space is not None and name in these.heads.tensors
        shape = sources[0].shapes[name]
        rows = shape[0] if shape else 1
        some = rows_at_once(shape) if by_rows and not by_label else rows
        for start in range(0, rows, some):
            own = [source[name] for source in sources]
            own = own if some == rows else [tensor[start : start + some] for tensor in own]
            for source, tensor in zip(sources, own, strict=True):
                check_finite(source.name, name, tensor)
            yield name, (these.mean if by_label else each)(name, own), start


def rows_at_once(shape: tuple[int, ...]) -> int:
    """How many rows of a tensor are merged together."""
    rows, size = shape[0] if shape else 1, math.prod(shape)
    return max(1, solving.LARGE * rows // size) if size > solving.LARGE else rows


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
    run: Run, step: Step, tensors: Iterator[checkpoints.Piece], these: Together, params: dict[str, Any]
) -> None:
    """Write a checkpoint below the step. Where models keep their own heads, its head is that of the first,
    and `heads/` has all of them."""
    like = these.sources[0]
    with _folder(run, step) as folder:
        checkpoints.write(
            folder,
            tensors,
            like,
            dtype=params["dtype"],
            card=card(params, like),
            shard_bytes=params["shard_bytes"],
            shapes=these.heads.shapes(like),
            about=these.heads.about(),
        )
        if these.heads.kind == "own":
            write_heads(folder, these.sources)


@contextmanager
def _folder(run: Run, step: Step) -> Iterator[Path]:
    """An empty folder that becomes the checkpoint of a step; nothing is left of one that fails."""
    if run.local:
        folder = Path(step.files.at(MODEL))
        shutil.rmtree(folder, ignore_errors=True)  # what was begun and not finished
        folder.mkdir(parents=True)
        try:
            yield folder
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise StorageError(f"{folder}: cannot be written: {error.strerror}") from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)
        step.files.put_folder(MODEL, Path(temporary))


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
            + (f", {alpha}." if params.get("stages") else "."),
            "",
            "| model | from | share |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def publish(run: Run, made: str, name: str = RESULT) -> None:
    """Put a folder that a step has made where a person looks for it, all at once where one can be renamed."""
    if not run.local:
        with run.folder(made) as folder:
            run.put_folder(name, folder)
        return
    target, source = Path(run.at(name)), Path(run.at(made))
    if target.is_symlink() and target.resolve() == source.resolve():
        return
    draft = target.with_name(f".{name}.tmp")
    draft.unlink(missing_ok=True)
    draft.symlink_to(source.relative_to(target.parent), target_is_directory=True)
    draft.replace(target)
