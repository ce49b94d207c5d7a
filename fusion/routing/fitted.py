"""Trained fusers for subsets of experts: one model per subset that is asked for, judged out of fold.

A stored item is judged, and answered, by a model that was not fitted on it, so that stored losses say what
new requests may expect; the scores of a request come from a model fitted on all items.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import KFold

from fusion.routing.losses import Groups, Loss, Near, losses
from fusion.routing.neighbours import Floats, Ints
from fusion.routing.stored import Stored, Subset


class FittedLosses:
    """Losses of estimators fitted on the outputs of subsets, each subset when it is first asked for.

    `make(subset)` returns an unfitted scikit-learn estimator: a classifier of the answer that is worth most,
    or a regressor of what every answer is worth. `add` takes over what was fitted elsewhere.
    """

    def __init__(
        self,
        stored: Stored,
        make: Callable[[Subset], Any],
        *,
        loss: Loss = "soft",
        folds: int = 5,
        seed: int = 0,
    ) -> None:
        self.stored, self.make, self.loss, self.folds, self.seed = stored, make, loss, folds, seed
        self._scores: dict[Subset, Floats] = {}
        self._models: dict[Subset, Any] = {}

    def add(self, subset: Subset, model: Any, left_out: Floats) -> None:  # noqa: ANN401
        """Take over a fitted estimator and its out-of-fold scores (n, A)."""
        self._models[subset], self._scores[subset] = model, left_out

    def fit(self, subset: Subset) -> tuple[Any, Floats]:
        """The estimator fitted on all items, and its out-of-fold scores (n, A)."""
        return self._model(subset), self._left_out(subset)

    def trained(self) -> dict[Subset, tuple[Any, Floats]]:
        """The estimators of all subsets fitted so far, with their out-of-fold scores."""
        return {subset: self.fit(subset) for subset in sorted(self._models)}

    def at(self, subset: Subset, rows: Ints) -> Floats:
        """Losses (len(rows), 1) of the fuser on `subset` at stored items, or qualities (len(rows), K)."""
        scores = self._left_out(subset)[rows]
        return scores if self.stored.chooses else losses(scores, self.stored.values[rows], self.loss)[:, None]

    def children(self, subset: Subset, experts: Sequence[int], rows: Ints) -> Floats:
        """The same (len(experts), len(rows), 1 or K) with one expert more, for each of `experts`; one that is
        in the subset adds nothing."""
        return np.stack([self.at(tuple(sorted({*subset, expert})), rows) for expert in experts])

    def scores(
        self,
        groups: Groups,
        near: Near,  # noqa: ARG002
        outputs: Callable[[Subset, Ints], Floats],
        exclude: Ints | None,
    ) -> Floats:
        """Scores (m, A), group after group, of the fusers on the experts that requests have asked."""
        found, start = [], 0
        for subset, rows in groups.items():
            if exclude is not None:
                found.append(self._left_out(subset)[exclude[start : start + len(rows)]])
            else:
                found.append(self.predict(self._model(subset), outputs(subset, rows)))
            start += len(rows)
        return np.concatenate(found)

    def _model(self, subset: Subset) -> Any:  # noqa: ANN401
        if subset not in self._models:
            self._models[subset] = self._fit(subset, self._outputs(subset), self.stored.values)
        return self._models[subset]

    def _outputs(self, subset: Subset) -> Floats:
        return np.concatenate([self.stored.blocks[expert] for expert in subset], axis=1)

    def _left_out(self, subset: Subset) -> Floats:
        """Scores (n, A) of stored items by models fitted on the other folds."""
        if subset not in self._scores:
            outputs, scores = self._outputs(subset), np.zeros_like(self.stored.values)
            for seen, left in self._folds(len(outputs)):
                model = self._fit(subset, outputs[seen], self.stored.values[seen])
                scores[left] = self.predict(model, outputs[left])
            self._scores[subset] = scores
        return self._scores[subset]

    def _folds(self, n: int) -> Iterator[tuple[Ints, Ints]]:
        folds = KFold(min(self.folds, n), shuffle=True, random_state=self.seed)
        yield from folds.split(np.empty((n, 0)))

    def _fit(self, subset: Subset, outputs: Floats, values: Floats) -> Any:  # noqa: ANN401
        model = self.make(subset)
        return model.fit(outputs, values.argmax(axis=1) if is_classifier(model) else values)

    def predict(self, model: Any, outputs: Floats) -> Floats:  # noqa: ANN401
        """Scores (m, A) of an estimator."""
        if not is_classifier(model):
            return np.asarray(model.predict(outputs), np.float64)
        scores = np.zeros((len(outputs), self.stored.values.shape[1]))
        scores[:, model.classes_] = model.predict_proba(outputs)
        return scores
