"""Gradient-boosted trees (LightGBM) as scikit-learn estimators, the same whenever they are trained."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fusion.routing.neighbours import Floats

if TYPE_CHECKING:
    from lightgbm import Booster


class _Trees(BaseEstimator):
    def __init__(
        self,
        rounds: int = 100,
        learning_rate: float = 0.05,
        leaves: int = 12,
        smallest_leaf: int = 20,
        random_state: int = 0,
    ) -> None:
        self.rounds, self.learning_rate, self.leaves = rounds, learning_rate, leaves
        self.smallest_leaf, self.random_state = smallest_leaf, random_state

    def _boost(self, x: Floats, y: NDArray[Any], objective: dict[str, Any]) -> "Booster":
        import lightgbm

        settings = {
            **objective,
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.smallest_leaf,
            "seed": self.random_state,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        }
        data = lightgbm.Dataset(x, y, params={"verbosity": -1}, free_raw_data=True)
        return lightgbm.train(settings, data, num_boost_round=self.rounds)


class TreesFuser(ClassifierMixin, _Trees):
    """Trees boosted for the cross-entropy: `rounds` of them per class, each of at most `leaves` leaves that
    hold at least `smallest_leaf` items."""

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Train on features (n, d) and labels (n,)."""
        x, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        objective = {"objective": "multiclass", "num_class": max(len(self.classes_), 2)}
        self.booster_ = self._boost(x, labels, objective)
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Labels (m,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Probabilities (m, C)."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=np.float64)
        found = np.asarray(self.booster_.predict(x, num_threads=1))[:, : len(self.classes_)]
        return np.asarray(found / found.sum(axis=1, keepdims=True))


class TreesRegressor(RegressorMixin, _Trees):
    """Trees boosted for squared error, for one target or several side by side; parameters as above."""

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Train on features (n, d) and targets (n,) or (n, A)."""
        x, checked = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        targets: Floats = np.asarray(checked)
        self.single_ = targets.ndim == 1
        columns = targets.reshape(len(targets), -1).T
        self.boosters_ = [self._boost(x, column, {"objective": "regression"}) for column in columns]
        return self

    def predict(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Targets (m,) or (m, A)."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=np.float64)
        found = np.column_stack([np.asarray(booster.predict(x, num_threads=1)) for booster in self.boosters_])
        return np.asarray(found[:, 0] if self.single_ else found)

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
