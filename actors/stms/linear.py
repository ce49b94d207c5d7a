"""`linear`: TF-IDF over word n-grams and softmax regression.

Encoding with `learn` fixes the vocabulary and the document frequencies, so a refit with other weights
touches only the regression. On disk: vocabulary (JSON, in column order), idf, W and b (safetensors,
float64, hence the same probabilities to the last bit).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from actors.stms.base import Classifier, FloatArray, IntArray, Matrix, StmError, softmax, write_json
from actors.stms.regression import as_linear, fit_softmax
from configs.schema.stm import LinearStm

if TYPE_CHECKING:
    import torch

WEIGHTS, VOCABULARY = "model.safetensors", "vocabulary.json"


@dataclass(frozen=True)
class Bags:
    """Texts as TF-IDF rows (n, d) of Euclidean length 1, or 0 where no n-gram is known."""

    rows: Matrix

    def __len__(self) -> int:
        """Return the number of texts."""
        return int(self.rows.shape[0])

    def take(self, indices: IntArray) -> Self:
        """Return the texts at `indices`, in that order."""
        return type(self)(self.rows[indices])


class LinearModel(Classifier[Bags, LinearStm]):
    """A linear classifier of word n-grams."""

    kind = "linear"

    def encode(self, texts: Sequence[str], *, learn: bool = False) -> Bags:
        """Count n-grams; `learn` builds the vocabulary from `texts`, without it one must exist."""
        if learn:
            self._vectorizer = self._new_vectorizer()
            try:
                return Bags(csr_matrix(self._vectorizer.fit_transform(texts)))
            except ValueError:  # scikit-learn's way of saying that nothing is left
                raise StmError(
                    f"no word n-gram occurs in {self.spec.min_count} of the {len(texts)} training texts: "
                    "generate more, or lower min_count"
                ) from None
        if not hasattr(self, "_vectorizer"):
            raise StmError("no vocabulary yet: encode the training texts with learn=True")
        if not len(texts):
            return Bags(csr_matrix((0, len(self._vectorizer.vocabulary_))))
        return Bags(csr_matrix(self._vectorizer.transform(texts)))

    def _new_vectorizer(self, vocabulary: dict[str, int] | None = None) -> TfidfVectorizer:
        return TfidfVectorizer(
            ngram_range=self.spec.ngrams,
            min_df=1 if vocabulary else self.spec.min_count,
            max_features=None if vocabulary else self.spec.max_features,
            sublinear_tf=self.spec.sublinear,
            vocabulary=vocabulary,
        )

    def _fit(self, encoded: Bags, y: IntArray, weights: FloatArray) -> None:
        self._weight, self._bias = fit_softmax(
            encoded.rows, y, weights, len(self.labels), c=self.spec.c, max_iter=self.spec.max_iter
        )

    def predict_proba(self, encoded: Bags) -> FloatArray:
        """Return (n, C) class probabilities."""
        return softmax(np.asarray(encoded.rows @ self._weight.T) + self._bias)

    def features(self, encoded: Bags) -> Matrix:
        """Return the TF-IDF rows, CSR (n, d)."""
        return encoded.rows

    def last_layer(self) -> tuple[FloatArray, FloatArray]:
        """Return W (C, d) and b (C,)."""
        return self._weight, self._bias

    def probe(self, encoded: Bags) -> "tuple[torch.nn.Module, Callable[[IntArray], torch.Tensor]]":
        """Return the regression as a float64 `nn.Linear`; rows become dense only for the texts asked for."""
        import torch

        layer = as_linear(self._weight, self._bias)
        return layer, lambda indices: layer(torch.from_numpy(encoded.rows[indices].toarray()))

    def _save(self, folder: Path) -> None:
        tensors = {"idf": self._vectorizer.idf_, "weight": self._weight, "bias": self._bias}
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / WEIGHTS)
        vocabulary = self._vectorizer.vocabulary_
        write_json(folder / VOCABULARY, sorted(vocabulary, key=vocabulary.__getitem__))

    def _load(self, folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        words = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
        self._vectorizer = self._new_vectorizer({word: column for column, word in enumerate(words)})
        self._vectorizer.idf_ = tensors["idf"]
        self._weight, self._bias = tensors["weight"], tensors["bias"]
