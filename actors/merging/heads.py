"""Which outputs of the models' classification heads mean the same, and the head that follows.

Where models have the same labels in the same order, heads are tensors like others. Where they share some, the
merged head has all labels that any model knows; where they have nothing in common, each keeps its own.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from actors.merging.checkpoints import Checkpoint
from actors.merging.errors import CheckpointError
from fusion.merging.architecture import Rule, Stage
from fusion.merging.families import LABELLED, TASK
from fusion.merging.gram import Gram
from fusion.merging.heads import MEANINGLESS, LabelSpace, align, average_rows, merge_heads, same
from fusion.merging.models import Options
from fusion.merging.regmean import alpha_of

How = Literal["names", "positions", "own"]
"""As `heads` of the configuration."""
BY_LABEL = "by label: rows that one model has are copied, "


@dataclass(frozen=True)
class Heads:
    """What becomes of classification heads."""

    kind: Literal["same", "union", "own"]
    space: LabelSpace | None = None
    tensors: tuple[str, ...] = ()
    """Those with a row per label."""

    def ruled(self, rules: dict[str, Rule]) -> dict[str, Rule]:
        """Rules of all tensors, with those of a union's rows."""
        if self.space is None:
            return rules
        left_out = [name for name in self.tensors if rules[name].kind == "skipped"]
        if left_out:
            raise CheckpointError(
                f"exclude: {left_out[0]} cannot be left out where labels differ; set heads to own"
            )
        shared = {"regmean": "shared ones solved for", "average": "shared ones averaged"}
        own = {n: replace(rules[n], reason=BY_LABEL + shared[rules[n].kind]) for n in self.tensors}
        return rules | own

    def comparable(self, source: Checkpoint) -> dict[str, Tensor]:
        """All tensors of a model without contents, and without the number of its labels where it may differ
        from that of others."""
        free = () if self.kind == "same" else self.tensors
        return {n: torch.empty_like(t[0]) if n in free else t for n, t in source.meta().items()}

    def shapes(self, like: Checkpoint) -> dict[str, tuple[int, ...]]:
        """Shapes of what has a row per label, where they are not those of the first model."""
        if self.space is None:
            return {}
        return {name: (len(self.space.labels), *like.shapes[name][1:]) for name in self.tensors}

    def about(self) -> dict[str, Any]:
        """Entries of the configuration that name the labels of a union."""
        if self.space is None:
            return {}
        names = self.space.labels
        return {
            "id2label": {str(row): name for row, name in enumerate(names)},
            "label2id": {name: row for row, name in enumerate(names)},
        }

    def averaged(self, own: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
        """Rows of the union, shared ones averaged."""
        assert self.space is not None  # noqa: S101 - asked of a union only
        return average_rows(self.space, own, coefficients=coefficients)

    def solved(
        self,
        stage: Stage,
        sources: Sequence[Mapping[str, Tensor]],
        grams: Iterable[Mapping[str, Gram]],
        options: Options,
    ) -> tuple[str, Tensor, list[dict[str, Any]]]:
        """Name of the weight of a stage of one group, its rows in the union, and how they came about."""
        assert self.space is not None  # noqa: S101 - asked of a union only
        (group,) = stage.groups
        name = group.weights[0].tensor
        head = merge_heads(
            self.space,
            [source[name] for source in sources],
            grams=[known[group.name] for known in grams],
            alpha=alpha_of(name, options.alpha, options.overrides),
            coefficients=options.coefficients,
            ridge=options.ridge,
        )
        return name, head.weight, [{**asdict(one), "ratio": one.ratio} for one in head.diagnostics.values()]


def heads_of(sources: Sequence[Checkpoint], how: How) -> Heads:
    """What becomes of the heads of these models. CheckpointError for labels that mean nothing, in several
    models, unless it is said how to take them."""
    maps = {source.name: labels_of(source) for source in sources}
    tensors = tuple(name for name in sources[0] if name.rpartition(".")[0] in LABELLED)
    if how == "own":
        return Heads("own" if any(name.startswith(TASK) for name in sources[0]) else "same", None, tensors)
    if not any(maps.values()):
        return Heads("same")
    if not all(maps.values()):
        return Heads("own", None, tensors)
    try:
        if how == "positions":
            return _by_position(list(maps.values()), tensors)
        _refuse_nameless(maps)
        if same(list(maps.values())):
            return Heads("same", None, tensors)
        return (
            Heads("union", align(list(maps.values())), tensors)
            if _overlap(maps)
            else Heads("own", None, tensors)
        )
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def _by_position(maps: Sequence[Mapping[int, str]], tensors: tuple[str, ...]) -> Heads:
    longest = max(maps, key=len)
    if len({len(labels) for labels in maps}) == 1:
        return Heads("same", None, tensors)
    rows = tuple(tuple(row if row < len(own) else None for own in maps) for row in range(len(longest)))
    return Heads("union", LabelSpace(tuple(longest[row] for row in range(len(longest))), rows), tensors)


def labels_of(source: Checkpoint) -> dict[int, str]:
    """The label of each output; nothing for a model without a classification head."""
    rows = [source.shapes[f"{head}.weight"][0] for head in LABELLED if f"{head}.weight" in source]
    if not rows:
        return {}
    named = {int(number): str(name) for number, name in (source.config.get("id2label") or {}).items()}
    if named and len(named) != rows[0]:
        raise CheckpointError(f"{source.name}: config.json names {len(named)} labels, its head has {rows[0]}")
    return named or {number: f"LABEL_{number}" for number in range(rows[0])}


def _nameless(labels: Mapping[int, str]) -> bool:
    return all(MEANINGLESS.match(name) for name in labels.values())


def _refuse_nameless(maps: Mapping[str, Mapping[int, str]]) -> None:
    nameless = [name for name, labels in maps.items() if _nameless(labels)]
    if len(nameless) > 1:
        raise CheckpointError(
            f"{' and '.join(nameless[:2])} call their labels {maps[nameless[0]][0]} and so on, which may "
            "mean different things: name them (id2label in config.json), or set heads to positions or own"
        )


def _overlap(maps: Mapping[str, Mapping[int, str]]) -> bool:
    """Whether labels that models share connect all of them."""
    sets = [set(labels.values()) for labels in maps.values()]
    reached, left = sets[0], sets[1:]
    while touching := [one for one in left if one & reached]:
        reached = reached.union(*touching)
        left = [one for one in left if not one & reached]
    return not left


def write_heads(folder: Path, sources: Sequence[Checkpoint]) -> None:
    """Each model's own head with the names of its labels."""
    for source in sources:
        place = folder / "heads" / source.name
        place.mkdir(parents=True)
        save_file(
            {name: source[name] for name in source if name.startswith(TASK)}, place / "head.safetensors"
        )
        labels = {"id2label": labels_of(source)}
        (place / "labels.json").write_text(json.dumps(labels, indent=2) + "\n")
