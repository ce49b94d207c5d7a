"""What all small task models share: one interface, checked inputs, and their folder on disk.

A model is used in three steps. `encode` turns texts into what the kind computes with, once per text set;
`fit` trains on encoded texts, always from the same initial state, so that refitting with other weights
(SWA) costs no second tokenisation; the predictions read encoded texts. A classifier has `predict_proba` and
`features`; its classes are `labels`, in this order, whatever a training set contains.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError

from configs.schema.stm import FullStm, HeadStm, LinearStm, SpanStm, StmSpec

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Matrix = Any
"""(n, d) float64: a dense array or, where most entries are zero, a SciPy CSR matrix (which has no types)."""
AnySpec = LinearStm | FullStm | HeadStm | SpanStm
DESCRIPTION = "stm.json"


class StmError(Exception):
    """A small task model that cannot be loaded, trained or applied; the message is one line."""


class Encoded(Protocol):
    """Texts as one kind of model reads them; opaque to everyone else."""

    def __len__(self) -> int:
        """Return the number of texts."""
        ...

    def take(self, indices: IntArray) -> Self:
        """Return the texts at `indices`, in that order."""
        ...


@dataclass(frozen=True)
class Description:
    """What `stm.json` holds: enough to build the model again before its weights are read."""

    spec: AnySpec
    labels: tuple[str, ...]
    seed: int

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read `folder/stm.json`; `StmError` when it is absent or not ours."""
        path = folder / DESCRIPTION
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            spec: AnySpec = TypeAdapter(StmSpec).validate_python(fields["spec"])
            return cls(spec, tuple(fields["labels"]), int(fields["seed"]))
        except FileNotFoundError:
            raise StmError(f"{folder} holds no small task model: {DESCRIPTION} is missing") from None
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise StmError(f"{path} does not describe a small task model: {one_line(error)}") from None

    def write(self, folder: Path) -> None:
        """Write `folder/stm.json`."""
        fields = {"spec": self.spec.model_dump(mode="json"), "labels": self.labels, "seed": self.seed}
        write_json(folder / DESCRIPTION, fields)


E = TypeVar("E", bound=Encoded)
S = TypeVar("S", LinearStm, FullStm, HeadStm, SpanStm)


class Stm(ABC, Generic[E, S]):
    """A model that is small enough to be trained many times.

    `E` is its encoded form of texts, `S` its configuration. All randomness comes from `seed`.
    """

    kind: ClassVar[str]
    on_epoch: Callable[[int, float], None] | None = None
    """Called by `fit` after each epoch, from 1, with its mean weighted loss; the model can be probed then.
    Only `full` and `span` have epochs."""

    def __init__(self, spec: S, labels: Sequence[str], seed: int) -> None:
        """Prepare an untrained model."""
        self.spec: S = spec
        self.labels = tuple(labels)
        self.seed = seed

    @abstractmethod
    def encode(self, texts: Sequence[str], *, learn: bool = False) -> E:
        """Prepare texts for this model; `learn` lets it fit its vocabulary, if it has one, to them."""

    def fit(self, encoded: E, y: Sequence[Any] | IntArray, weights: FloatArray | None = None) -> Self:
        """Train from the initial state on the mean of w_i * loss_i (not divided by the sum of w).

        `y` (n, ...) is what the texts are about, of a classifier (n,) indices into `labels`; `weights` (n,)
        are non-negative, all 1 by default. Texts of weight 0 change nothing. `StmError` when too few remain,
        of a classifier fewer than two classes.
        """
        targets, positive = self._checked(y, weights, len(encoded))
        self._fit(encoded, targets, positive)
        return self

    @abstractmethod
    def _checked(
        self, y: Sequence[Any] | IntArray, weights: FloatArray | None, n: int
    ) -> tuple[IntArray, FloatArray]: ...

    @abstractmethod
    def _fit(self, encoded: E, y: IntArray, weights: FloatArray) -> None: ...

    @abstractmethod
    def probe(self, encoded: E) -> "tuple[torch.nn.Module, Callable[[IntArray], torch.Tensor]]":
        """Return the trained network and a function from text indices (m,) to its logits, (m, C) of a
        classifier.

        Gradients flow from the logits to the network's parameters; dropout is off.
        """

    def save_pretrained(self, folder: Path, card: str) -> None:
        """Write the model and its card (Markdown) into `folder`: safetensors and JSON only."""
        folder.mkdir(parents=True, exist_ok=True)
        self._save(folder)
        Description(self.spec, self.labels, self.seed).write(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")

    @abstractmethod
    def _save(self, folder: Path) -> None: ...

    @classmethod
    def from_pretrained(cls, folder: Path) -> Self:
        """Read a model that `save_pretrained` wrote; `StmError` when `folder` holds none of this kind."""
        described = Description.read(folder)
        if described.spec.kind != cls.kind:
            raise StmError(f"{folder} holds a small task model of kind {described.spec.kind}, not {cls.kind}")
        return cls.restored(described.spec, described.labels, described.seed, folder)  # type: ignore[arg-type]

    @classmethod
    def restored(cls, spec: S, labels: Sequence[str], seed: int, folder: Path) -> Self:
        """Read the weights of a model that is described elsewhere; `StmError` when `folder` lacks them."""
        model = cls(spec, labels, seed)
        try:
            model._load(folder)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise StmError(f"{folder} holds no complete small task model: {one_line(error)}") from None
        return model

    @abstractmethod
    def _load(self, folder: Path) -> None: ...


class Classifier(Stm[E, S]):
    """A small task model that tells texts apart."""

    def __init__(self, spec: S, labels: Sequence[str], seed: int) -> None:
        """Prepare an untrained model; `StmError` for fewer than two or repeated labels."""
        super().__init__(spec, labels, seed)
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise StmError(f"a classifier needs at least two distinct labels, not {list(labels)}")

    def _checked(
        self, y: Sequence[Any] | IntArray, weights: FloatArray | None, n: int
    ) -> tuple[IntArray, FloatArray]:
        return checked_targets(y, weights, n, self.labels)

    @abstractmethod
    def predict_proba(self, encoded: E) -> FloatArray:
        """Return (n, C) class probabilities."""

    @abstractmethod
    def features(self, encoded: E) -> Matrix:
        """Return h (n, d), the inputs of the last layer: `predict_proba` is softmax(W h + b)."""

    @abstractmethod
    def last_layer(self) -> tuple[FloatArray, FloatArray]:
        """Return W (C, d) and b (C,) of the last layer."""


def checked_targets(
    y: Sequence[int] | IntArray, weights: FloatArray | None, n: int, labels: Sequence[str]
) -> tuple[IntArray, FloatArray]:
    """Return `y` and `weights` as (n,) arrays; `StmError` says what is wrong with them."""
    targets = np.asarray(y, dtype=np.int64)
    if targets.shape != (n,):
        raise StmError(f"{n} texts need as many labels, not {targets.size}")
    if n and not 0 <= targets.min() <= targets.max() < len(labels):
        raise StmError(
            f"label indices must lie in 0..{len(labels) - 1}, got {targets.min()}..{targets.max()}"
        )
    positive = checked_weights(weights, n)
    present = sorted({labels[index] for index in np.unique(targets[positive > 0])})
    if len(present) < 2:
        raise StmError(f"training needs texts of at least two labels, got {present} among {n} texts")
    return targets, positive


def checked_weights(weights: FloatArray | None, n: int) -> FloatArray:
    """Return `weights` as an (n,) array, ones by default; `StmError` says what is wrong with them."""
    positive = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if positive.shape != (n,) or not np.isfinite(positive).all() or (positive < 0).any():
        raise StmError(f"{n} texts need as many finite, non-negative weights")
    return positive


def check_finite(values: FloatArray | NDArray[np.float32], what: str) -> None:
    """Raise `StmError` if any of `values` (n, ...) is NaN or infinite, with the number of rows affected."""
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        raise StmError(f"{what}: {len(bad)} of {len(values)} rows are not finite numbers, first row {bad[0]}")


def softmax(logits: FloatArray) -> FloatArray:
    """Return (n, C) probabilities of (n, C) logits."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: FloatArray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def one_line(error: Exception) -> str:
    """Return the first non-empty line of an error's message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def write_json(path: Path, value: object) -> None:
    """Write `value` as UTF-8 JSON."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
