"""From what experts say to numbers that can be compared: probability vectors and normalised blocks."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from fusion.routing.neighbours import Floats


def spread(labels: ArrayLike, confidence: ArrayLike, classes: int) -> Floats:
    """Probability vectors (n, classes) of answers of which only the first label (n,) and its confidence (n,)
    are known: the rest is shared equally by the other labels."""
    label, sure = np.asarray(labels, np.intp), np.asarray(confidence, float)
    rest = (1 - sure) / max(classes - 1, 1)
    vectors = np.repeat(rest[:, None], classes, axis=1)
    vectors[np.arange(len(label)), label] = sure
    return vectors


def one_hot(labels: ArrayLike, confidence: ArrayLike, classes: int) -> Floats:
    """Vectors (n, classes) with the confidence at the label and 0 elsewhere."""
    label = np.asarray(labels, np.intp)
    vectors = np.zeros((len(label), classes))
    vectors[np.arange(len(label)), label] = np.asarray(confidence, float)
    return vectors


class BlockNorm(TransformerMixin, BaseEstimator):
    """Standardise every column and divide by the root of its block's width, so that embeddings of different
    models and sizes count alike in a distance. `blocks` are the widths (None: one block)."""

    def __init__(self, blocks: Sequence[int] | None = None) -> None:
        self.blocks = blocks

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:  # noqa: N803, ARG002
        """Learn mean and scale of the columns of X (n, sum of widths); constant ones keep scale 1."""
        x: Floats = np.asarray(validate_data(self, X), np.float64)
        widths = [x.shape[1]] if self.blocks is None else list(self.blocks)
        if sum(widths) != x.shape[1]:
            raise ValueError(f"blocks sum to {sum(widths)} columns, X has {x.shape[1]}")
        spread_ = x.std(axis=0)
        self.mean_ = x.mean(axis=0)
        self.scale_ = np.where(spread_ > 0, spread_, 1) * np.repeat(np.sqrt(widths), widths)
        return self

    def transform(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Normalised columns (n, sum of widths)."""
        check_is_fitted(self)
        return np.asarray((validate_data(self, X, reset=False) - self.mean_) / self.scale_)
