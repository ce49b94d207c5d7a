"""`head`: softmax regression on the pooled vectors of a frozen encoder.

Vectors are standardised by the mean and deviation of the training texts, so that one regularisation suits
every encoder. They come from the cache that `actors.vectors.embed_once` fills, as far as it has them.
The encoder itself is not saved: `stm.json` names it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from safetensors.numpy import load_file, save_file

from actors.stms.base import Classifier, FloatArray, IntArray, StmError, check_finite, softmax
from actors.stms.regression import as_linear, fit_softmax
from actors.vectors import Vectors, read_vectors
from configs.schema.stm import HeadStm

if TYPE_CHECKING:
    import torch

    from actors.encoder import Encoder

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Rows:
    """Texts as standardised vectors (n, d)."""

    rows: FloatArray

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.rows)

    def take(self, indices: IntArray) -> Self:
        """Return the texts at `indices`, in that order."""
        return type(self)(self.rows[indices])


class HeadModel(Classifier[Rows, HeadStm]):
    """A linear classifier of encoder vectors."""

    kind = "head"

    def __init__(self, spec: HeadStm, labels: Sequence[str], seed: int, cache: str | None = None) -> None:
        """Prepare an untrained model that looks for vectors in `cache` before it computes them."""
        super().__init__(spec, labels, seed)
        self._cache = cache

    @cached_property
    def _encoder(self) -> "Encoder":
        from actors.encoder import Encoder  # takes seconds, and the cache mostly has all vectors

        return Encoder(self.spec)

    def encode(self, texts: Sequence[str], *, learn: bool = False) -> Rows:
        """Look up or compute vectors; `learn` takes the standardisation from `texts`."""
        vectors = self._vectors(texts).astype(np.float64)
        check_finite(vectors, "text vectors")
        if learn:
            self._mean, self._scale = vectors.mean(axis=0), vectors.std(axis=0) + 1e-6
        if not hasattr(self, "_mean"):
            raise StmError("no standardisation yet: encode the training texts with learn=True")
        return Rows((vectors - self._mean) / self._scale)

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        if self._cache is None:
            return self._encoder.embed(texts)
        cached, places = read_vectors(texts, self._cache, self.spec)
        if cached is None:
            return self._encoder.embed(texts)
        missing = np.setdiff1d(np.arange(len(texts)), places)
        vectors = np.empty((len(texts), cached.shape[1]), dtype=np.float32)
        vectors[places] = cached
        if len(missing):
            vectors[missing] = self._encoder.embed([texts[place] for place in missing])
        return vectors

    def _fit(self, encoded: Rows, y: IntArray, weights: FloatArray) -> None:
        self._weight, self._bias = fit_softmax(
            encoded.rows, y, weights, len(self.labels), c=self.spec.c, max_iter=self.spec.max_iter
        )

    def predict_proba(self, encoded: Rows) -> FloatArray:
        """Return (n, C) class probabilities."""
        return softmax(encoded.rows @ self._weight.T + self._bias)

    def features(self, encoded: Rows) -> FloatArray:
        """Return the standardised vectors (n, d)."""
        return encoded.rows

    def last_layer(self) -> tuple[FloatArray, FloatArray]:
        """Return W (C, d) and b (C,)."""
        return self._weight, self._bias

    def probe(self, encoded: Rows) -> "tuple[torch.nn.Module, Callable[[IntArray], torch.Tensor]]":
        """Return the regression as a float64 `nn.Linear`."""
        import torch

        layer = as_linear(self._weight, self._bias)
        return layer, lambda indices: layer(torch.from_numpy(encoded.rows[indices]))

    def _save(self, folder: Path) -> None:
        tensors = {"mean": self._mean, "scale": self._scale, "weight": self._weight, "bias": self._bias}
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / WEIGHTS)

    def _load(self, folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        self._mean, self._scale = tensors["mean"], tensors["scale"]
        self._weight, self._bias = tensors["weight"], tensors["bias"]
