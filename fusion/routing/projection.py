"""Embeddings of different models as blocks of one kind: normalised, and few columns each."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted, validate_data

from fusion.routing.features import BlockNorm
from fusion.routing.neighbours import Floats


class Projection(TransformerMixin, BaseEstimator):
    """`BlockNorm`, then the first principal components: distances count alike whatever a model's width."""

    def __init__(self, dimensions: int = 32) -> None:
        self.dimensions = dimensions

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:  # noqa: N803, ARG002
        """Learn from X (n, d); at most min(n, d) components are kept."""
        x: Floats = np.asarray(validate_data(self, X), np.float64)
        self.norm_ = BlockNorm().fit(x)
        kept = min(self.dimensions, *x.shape)
        self.components_ = PCA(kept, svd_solver="full").fit(self.norm_.transform(x)).components_
        return self

    def to_arrays(self) -> dict[str, Floats]:
        """What it has learnt: mean (d,), scale (d,), components (dimensions, d)."""
        check_is_fitted(self)
        return {"mean": self.norm_.mean_, "scale": self.norm_.scale_, "components": self.components_}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> Self:
        """One that has learnt that."""
        made = cls(len(arrays["components"]))
        made.norm_, made.components_ = BlockNorm(), arrays["components"]
        made.norm_.mean_, made.norm_.scale_ = arrays["mean"], arrays["scale"]
        made.n_features_in_ = made.norm_.n_features_in_ = arrays["components"].shape[1]
        return made

    def transform(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Components (n, dimensions) of X (n, d)."""
        check_is_fitted(self)
        x: Floats = np.asarray(validate_data(self, X, reset=False), np.float64)
        return np.asarray(self.norm_.transform(x) @ self.components_.T)
