"""What can be known before any work starts: refusals and doubts, each one line.

Matrices are described without their contents; of the texts only tokens are counted.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch

from actors.merging import models
from actors.merging.checkpoints import GIB, Checkpoint, fetch
from actors.merging.errors import CheckpointError
from actors.merging.grams import read_manifest
from actors.merging.heads import heads_of
from actors.stms.pretrained import checkpoint as bundled
from cluster.storage import Storage, file_digest
from configs.schema.merge import MergeConfig, Statistics
from fusion.merging.architecture import Architecture, Group, Rule, rules, width
from fusion.merging.average import cosine
from fusion.merging.gram import doubt
from fusion.merging.regmean import alpha_of

VOCABULARY = ("tokenizer.json", "vocab.txt", "spiece.model", "tokenizer.model")
RELATED = 0.5
"""Cosine below which weights are not those of siblings, which lie near 1; those of strangers lie near 0."""
OF_SEQUENCES = ("head", "last")
UNKNOWN = ("positions", "gate_up", "down")
"""Rows of a Gram matrix that the number of tokens does not tell."""
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Plan:
    """A model that is there, or will be fine-tuned, and the texts that its statistics come from."""

    name: str
    like: Checkpoint
    """Itself, or the base that it will be fine-tuned from."""
    architecture: Architecture
    shapes: Shapes
    domain: str | None = None
    grams: str | None = None
    keep_heads: bool = False

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups of linear maps."""
        return self.architecture.groups


def given(
    checkpoint: Checkpoint, *, keep_heads: bool, domain: str | None = None, grams: str | None = None
) -> Plan:
    """A model that is there."""
    architecture = models.architecture_of(checkpoint)
    return Plan(checkpoint.name, checkpoint, architecture, checkpoint.shapes, domain, grams, keep_heads)


def planned(config: MergeConfig, there: Sequence[Checkpoint], domains: Sequence[str]) -> list[Plan]:
    """All models that will be merged."""
    if config.fine_tuning is None:
        pairs = zip(there, config.models, strict=True)
        kept = bool(there) and heads_of(there, config.heads).kind == "own"
        return [given(like, keep_heads=kept, domain=one.domain, grams=one.grams) for like, one in pairs]
    base = Checkpoint(fetch(bundled(config.fine_tuning.model)), "base")
    architecture, shapes = models.classifier_of(base)
    return [Plan(domain, base, architecture, shapes, domain) for domain in domains]


def expected_rows(plan: Plan, texts: Sequence[str], spec: Statistics) -> dict[str, int]:
    """Rows that the texts will give each Gram matrix, at least, where that can be told."""
    classes = str(plan.like.config.get("architectures"))
    tokens = sequences = 0
    for batch in models.batches(plan.like, texts, spec.batch_size, spec.max_length):
        mask = batch["attention_mask"]
        tokens += mask.numel() if spec.count_padding else int(mask.sum())
        sequences += len(mask)
    per_sequence = OF_SEQUENCES if "TokenClassification" not in classes else ()
    known = [group for group in plan.groups if group.rows not in UNKNOWN]
    return {group.name: sequences if group.rows in per_sequence else tokens for group in known}


def check_rows(config: MergeConfig, plan: Plan, rows: Mapping[str, int]) -> None:
    """CheckpointError if a Gram matrix of so many rows is to be solved with unshrunk."""
    default = plan.architecture.alpha if config.alpha is None else config.alpha
    alphas = {default, *(config.alphas if "regmean" in config.methods else ())}
    overrides = tuple(config.overrides.items())
    known = _rules(config, plan)
    for group in (g for g in plan.groups if g.expert is None and g.name in rows):
        solved = [w.tensor for w in group.weights if known[w.tensor].kind == "regmean"]
        for alpha in sorted({alpha_of(name, alpha, overrides) for alpha in alphas for name in solved}):
            try:
                doubt(rows[group.name], width(group, plan.shapes), alpha)
            except ValueError as error:
                raise CheckpointError(f"{plan.name}: {group.name}: {error}") from None


def _rules(config: MergeConfig, plan: Plan) -> dict[str, Rule]:
    tensors = {name: torch.empty(shape, device="meta") for name, shape in plan.shapes.items()}
    return rules(
        plan.architecture,
        tensors,
        excluded=config.exclude,
        averaged=config.average,
        keep_heads=plan.keep_heads,
    )


def check_statistics(config: MergeConfig, plans: Iterable[Plan], table: pa.Table | None) -> None:
    """CheckpointError if texts or Gram files are too few for some alpha = 1."""
    unshrunk = 1 in {config.alpha, *config.alphas, *config.overrides.values()}
    if not unshrunk or not {"regmean", "regmean_pp"} & set(config.methods):
        return
    for plan in plans:
        if plan.grams is not None:
            check_rows(config, plan, read_manifest(Storage(plan.grams))["rows"])
        elif plan.domain is not None and table is not None:
            check_rows(
                config, plan, expected_rows(plan, texts_of(config, table, plan.domain), config.statistics)
            )


def texts_of(config: MergeConfig, table: pa.Table, domain: str) -> list[str]:
    """The texts of a domain that statistics will be taken from."""
    mine = pc.and_(pc.equal(table.column("domain"), domain), pc.equal(table.column("part"), "train"))
    texts: list[str] = table.filter(mine).column("text").to_pylist()
    return texts[: config.statistics.sequences]


def short_of(place: str, needed: int) -> list[str]:
    """Whether a folder on this machine has less room than will be written."""
    if "://" in place:
        return []
    path = Path(place).absolute()
    there = next(folder for folder in (path, *path.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    return [f"{needed / GIB:.2f} GiB will be written, {free / GIB:.2f} GiB are free at {there}"] * (
        free < needed
    )


def doubts(there: Sequence[Checkpoint], base: Checkpoint | None = None) -> list[str]:
    """What speaks against merging models that fit by their shapes."""
    found = []
    for name in VOCABULARY:
        having = [model for model in there if (model.folder / name).is_file()]
        if len({file_digest(model.folder / name) for model in having}) > 1 or 0 < len(having) < len(there):
            found.append(f"the models' {name} differ; the result has that of {there[0].name}")
    if len({template_of(model) for model in there}) > 1:
        found.append(f"the models' chat templates differ; the result has that of {there[0].name}")
    return [*found, *strangers([*there, *([base] if base else [])])]


def template_of(model: Checkpoint) -> str:
    """The chat template that comes with a model."""
    path = model.folder / "chat_template.jinja"
    return path.read_text() if path.is_file() else ""


def strangers(there: Sequence[Checkpoint]) -> list[str]:
    """Models that do not seem to descend from the one that the first descends from."""
    if len(there) < 2:
        return []
    blocks = [stage for stage in models.architecture_of(there[0]).stages[:-1] if stage.groups]
    names = {stage.groups[0].weights[0].tensor for stage in (blocks[0], blocks[-1])}
    found = []
    for name in sorted(names):
        mine = there[0][name]
        for other in there[1:]:
            like = other[name] if name in other else other.get(name.partition(".")[2])
            if like is not None and like.shape == mine.shape and (near := cosine(mine, like)) < RELATED:
                found.append(
                    f"{other.name} does not seem to descend from the same model as {there[0].name}: the "
                    f"cosine of their {name} is {near:.2f}; merging such models gives nothing useful"
                )
    return found
