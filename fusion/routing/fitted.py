"""Trained fusers for subsets of experts: one model per subset that is asked for, judged out of fold.

A stored item is judged, and answered, by a model that was not fitted on it, so that stored losses say what
new requests may expect; the scores of a request come from a model fitted on all items.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import KFold

from fusion.routing.losses import Loss, Near, Plan, losses
from fusion.routing.neighbours import Floats, Ints, Singles
from fusion.routing.states import States
from fusion.routing.stored import Stored, Subset
from fusion.routing.tables import Tables


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
        self._tables = Tables(len(stored), stored.values.shape[1] if stored.chooses else 1, 0)
        self._tabled: set[Subset] = set()
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
        return self.among([(subset,)], np.zeros(len(rows), np.intp), rows)[:, 0].astype(np.float64)

    def among(self, plans: Sequence[Plan], which: Ints, items: Ints) -> Singles:
        """The same (p, w, 1 or K) at stored items (p,), each for all w subsets of one of the plans."""
        for subset in dict.fromkeys(subset for plan in plans for subset in plan):
            if subset not in self._tabled:
                scores = self._left_out(subset)
                chooses = self.stored.chooses
                table = scores if chooses else losses(scores, self.stored.values, self.loss)[:, None]
                self._tables.add(subset, table.astype(np.float32))
                self._tabled.add(subset)
        return self._tables.read(plans, which, items)

    def scores(self, states: States, chosen: Ints, near: Near) -> Floats:  # noqa: ARG002
        """Scores (len(chosen), A) of the fusers on what states have heard."""
        found = np.empty((len(chosen), self.stored.values.shape[1]))
        for number in np.unique(states.of[chosen]).tolist():
            some, subset = np.flatnonzero(states.of[chosen] == number), states.subsets[number]
            if states.exclude is not None:
                found[some] = self._left_out(subset)[states.exclude[states.rows[chosen[some]]]]
            else:
                found[some] = self.predict(self._model(subset), states.outputs(chosen[some]))
        return found

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
