"""What responses of language models tell together: a fuser that sees which of them agree.

A block of an expert begins with a code of its answer: equal codes of an item are equal answers, and -1 is
none. The columns behind it are numbers. Blocks of contexts, at the end, are numbers only.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from sklearn.utils.validation import check_is_fitted, validate_data

from fusion.routing.neighbours import Floats
from fusion.routing.trees import TreesRegressor


def agreement(codes: Floats) -> Floats:
    """Of codes (n, s): which share of the others agrees with each expert (n, s), who has no answer (n, s),
    the share of the largest group (n, 1), and who is in it (n, s)."""
    s = codes.shape[1]
    given = codes >= 0
    same = (codes[:, :, None] == codes[:, None, :]) & given[:, :, None]
    group = same.sum(axis=2)
    others = np.where(given, group - 1, 0) / max(s - 1, 1)
    largest = group.max(axis=1, keepdims=True)
    in_largest = given & (group == largest)
    return np.concatenate([others, ~given, largest / s, in_largest], axis=1).astype(float)


class ResponseFuser(RegressorMixin, BaseEstimator):
    """Predicts the quality of every expert from the responses of some: ridge regression, or trees, on their
    agreement and their numbers. `blocks` are the widths of the blocks, the last `contexts` of them contexts.
    """

    def __init__(
        self,
        blocks: Sequence[int] | None = None,
        contexts: int = 0,
        kind: Literal["ridge", "trees"] = "ridge",
        alpha: float = 10.0,
        random_state: int = 0,
    ) -> None:
        self.blocks, self.contexts, self.kind = blocks, contexts, kind
        self.alpha, self.random_state = alpha, random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Train on blocks side by side (n, sum of widths) and qualities (n, K)."""
        x, checked = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        features = self._features(x)
        self.mean_ = features.mean(axis=0)
        spread = features.std(axis=0)
        self.scale_ = np.where(spread > 0, spread, 1)
        self.model_ = self._unfitted().fit((features - self.mean_) / self.scale_, checked)
        return self

    def _unfitted(self) -> Any:  # noqa: ANN401
        return Ridge(self.alpha) if self.kind == "ridge" else TreesRegressor(random_state=self.random_state)

    def predict(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Qualities (m, K)."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=np.float64)
        found: Floats = self.model_.predict((self._features(x) - self.mean_) / self.scale_)
        return found

    def _features(self, x: Floats) -> Floats:
        widths = [x.shape[1]] if self.blocks is None else list(self.blocks)
        starts = np.cumsum([0, *widths[:-1]])
        experts = starts[: len(widths) - self.contexts].astype(int)
        numbers = np.delete(x, experts, axis=1)
        return np.concatenate([agreement(x[:, experts]), numbers], axis=1) if len(experts) else numbers

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
