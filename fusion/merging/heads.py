"""Classification heads of models whose label sets differ: aligned by the names of labels.

The merged head has every label that any model knows. A row that one model has is copied; rows that several
have are merged by RegMean among just these, with their Gram matrices, or averaged where there are none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fusion.merging.average import average, normalised
from fusion.merging.gram import Gram
from fusion.merging.regmean import Diagnostics, regmean

MEANINGLESS = re.compile(r"^(label_?)?\d+$", re.IGNORECASE)
Names = Mapping[int, str] | Mapping[str, str]
"""`id2label` of a configuration; its keys are strings in JSON."""


@dataclass(frozen=True)
class LabelSpace:
    """The union of label sets."""

    labels: tuple[str, ...]
    rows: tuple[tuple[int | None, ...], ...]
    """For each label, its row in the head of each model, or None."""


@dataclass(frozen=True)
class Head:
    """A merged head: weight (labels, m), bias (labels,), and what RegMean found for each set of models."""

    weight: Tensor
    bias: Tensor | None
    diagnostics: dict[tuple[int, ...], Diagnostics]


def align(maps: Sequence[Names], *, force: bool = False) -> LabelSpace:
    """The union of the models' labels, in the order in which they first occur.

    Raises ValueError for labels that are mere numbers, unless `force` takes equal numbers for equal labels.
    """
    names = [_ordered(number, mapping) for number, mapping in enumerate(maps)]
    for number, labels in enumerate(names):
        if len(maps) > 1 and not force and all(MEANINGLESS.match(label) for label in labels):
            raise ValueError(
                f"model {number} calls its labels {labels[0]} .. {labels[-1]}: name them, or force alignment"
            )
    union = tuple(dict.fromkeys(label for labels in names for label in labels))
    places = [{label: row for row, label in enumerate(labels)} for labels in names]
    return LabelSpace(union, tuple(tuple(place.get(label) for place in places) for label in union))


def same(maps: Sequence[Names]) -> bool:
    """Whether all models have the same labels in the same order, so that heads merge as they are."""
    return len({tuple(_ordered(number, mapping)) for number, mapping in enumerate(maps)}) == 1


def average_rows(
    space: LabelSpace, tensors: Sequence[Tensor], *, coefficients: Sequence[float] | None = None
) -> Tensor:
    """Rows (labels, ...) of the union, from weights or biases (labels_i, ...): each the mean of those that
    have it."""
    scales = normalised(coefficients, len(tensors))
    merged = tensors[0].new_empty(len(space.labels), *tensors[0].shape[1:])
    for models, places in _sharing(space).items():
        merged[places] = average(
            _rows(space, tensors, models, places), coefficients=[scales[model] for model in models]
        )
    return merged


def merge_heads(
    space: LabelSpace,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None = None,
    *,
    grams: Sequence[Gram] | None = None,
    alpha: float = 0.9,
    coefficients: Sequence[float] | None = None,
    ridge: float = 0.0,
) -> Head:
    """The head over the union of labels, from weights (labels_i, m) and biases (labels_i,)."""
    scales = normalised(coefficients, len(weights))
    weight = average_rows(space, weights, coefficients=scales)
    bias = None if biases is None else average_rows(space, biases, coefficients=scales)
    found: dict[tuple[int, ...], Diagnostics] = {}
    for models, places in _sharing(space).items():
        if grams is not None and len(models) > 1:
            rows = [part.T for part in _rows(space, weights, models, places)]
            known, own = [grams[model] for model in models], [scales[model] for model in models]
            solution = regmean(rows, known, alpha=alpha, coefficients=own, ridge=ridge)
            weight[places], found[models] = solution.weight.T, solution.diagnostics
    return Head(weight, bias, found)


def _rows(
    space: LabelSpace, tensors: Sequence[Tensor], models: Sequence[int], places: Sequence[int]
) -> list[Tensor]:
    """Of each of some models, its rows for some labels."""
    return [tensors[model][[space.rows[place][model] for place in places]] for model in models]


def _sharing(space: LabelSpace) -> dict[tuple[int, ...], list[int]]:
    """Positions of labels by the models that have them."""
    found: dict[tuple[int, ...], list[int]] = {}
    for place, rows in enumerate(space.rows):
        found.setdefault(tuple(i for i, row in enumerate(rows) if row is not None), []).append(place)
    return found


def _ordered(number: int, mapping: Names) -> list[str]:
    labels = {int(key): name for key, name in mapping.items()}
    if sorted(labels) != list(range(len(labels))) or not labels:
        raise ValueError(f"model {number}: labels are numbered {sorted(labels)}, not from 0 on without gaps")
    names = [labels[row] for row in range(len(labels))]
    if len(set(names)) < len(names):
        raise ValueError(f"model {number} has two labels of one name: {', '.join(names)}")
    return names
