"""The nearest-neighbour fuser as a scikit-learn classifier, with tie-inclusive neighbourhoods."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fusion.routing.neighbours import Floats, Ties, block_distances, nearest, ones, row_chunks


class KnnFuser(ClassifierMixin, BaseEstimator):
    """Votes of the `n_neighbors` nearest items in Euclidean distance; equal votes go to the lowest class.

    `ties="inclusive"` lets everyone vote who is as near as the last neighbour, which quantised outputs need.
    """

    def __init__(self, n_neighbors: int = 9, ties: Ties = "inclusive") -> None:
        self.n_neighbors, self.ties = n_neighbors, ties

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Store features (n, d) and labels (n,)."""
        x, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        self.features_ = np.asarray(x, np.float64)
        self.votes_ = np.eye(len(self.classes_))[labels]
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Labels (m,) with most votes."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Shares of the votes (m, C)."""
        check_is_fitted(self)
        x = np.asarray(validate_data(self, X, reset=False), np.float64)
        shares = np.empty((len(x), len(self.classes_)))
        for rows in row_chunks(len(x), len(self.features_)):
            near = nearest(block_distances(x[rows], self.features_), self.n_neighbors, self.ties)
            votes = ones(near) @ self.votes_
            shares[rows] = votes / votes.sum(axis=1, keepdims=True)
        return shares
