"""A cascade in the manner of FrugalGPT (Chen, Zaharia, Zou 2023): ask in order until an answer is trusted.

A scorer per service predicts from its own output whether it is right; the first answer scored at least at
its threshold is given, the last service's in any case. Order and thresholds maximise accuracy less rate x
price on the training items: the last threshold exactly, by prefix sums over items sorted by score, the others
over quantiles; lists of three extend the best pairs.
"""

from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_predict

from fusion.routing.neighbours import Floats, Ints

QUANTILES = np.linspace(0, 1, 33)
BEAM = 40
FOLDS = 5
Candidate = tuple[float, tuple[int, ...], tuple[float, ...]]
"""Worth on the training items, services, thresholds."""


@dataclass
class Cascade:
    """`prices` (K,), `rate` what one unit of price must bring in accuracy, at most `depth` services (1-3)."""

    prices: Floats
    rate: float
    depth: int = 3
    services: tuple[int, ...] = (0,)
    thresholds: tuple[float, ...] = ()

    def fit(self, trust: Floats, correct: NDArray[np.bool_]) -> Self:
        """Choose services and thresholds from trust and rightness, both (K, n)."""
        k = len(self.prices)
        charge = self.rate * self.prices
        found: list[Candidate] = [(float((correct[a] - charge[a]).sum()), (a,), ()) for a in range(k)]
        pairs = sorted(
            (self._extended(trust, correct, (a, b), ()) for a, b in permutations(range(k), 2)), reverse=True
        )
        found += pairs if self.depth > 1 else []
        if self.depth > 2:
            for _, (a, b), _ in pairs[:BEAM]:
                rest = [c for c in range(k) if c not in (a, b)]
                for threshold in np.unique(np.quantile(trust[a], QUANTILES)):
                    found += [self._extended(trust, correct, (a, b, c), (float(threshold),)) for c in rest]
        _, self.services, self.thresholds = max(found, key=lambda one: (one[0], -len(one[1])))
        return self

    def _extended(
        self, trust: Floats, correct: NDArray[np.bool_], services: tuple[int, ...], first: tuple[float, ...]
    ) -> Candidate:
        """Worth of a list with the best threshold of its last but one service, the others being given."""
        n, charge = trust.shape[1], self.rate * self.prices
        worth, here = 0.0, np.arange(n)
        for service, threshold in zip(services, first, strict=False):
            worth -= charge[service] * len(here)
            accepted = trust[service, here] >= threshold
            worth += float(correct[service, here[accepted]].sum())
            here = here[~accepted]
        judge, last = services[-2:]
        worth += float(correct[judge, here].sum()) - charge[judge] * len(here)
        order = here[np.argsort(trust[judge, here], kind="stable")]
        gains = np.cumsum(correct[last, order].astype(float) - correct[judge, order] - charge[last])
        scores = trust[judge, order]
        ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(order) else np.empty(0, int)
        if not len(ends) or gains[ends].max() <= 0:
            return worth, services, (*first, -np.inf)
        best = ends[gains[ends].argmax()]
        threshold = np.nextafter(scores[best], np.inf)
        return worth + float(gains[best]), services, (*first, float(threshold))

    def decide(self, trust: Floats) -> tuple[Ints, NDArray[np.bool_]]:
        """Whose answer is given (n,) and who was called (K, n) for trust (K, n)."""
        n = trust.shape[1]
        answers, called, here = np.empty(n, np.intp), np.zeros(trust.shape, bool), np.arange(n)
        for service, threshold in zip(self.services, (*self.thresholds, -np.inf), strict=True):
            called[service, here] = True
            answers[here] = service
            here = here[trust[service, here] < threshold]
        return answers, called


@dataclass
class Trust:
    """How likely each expert is right, from its own output: boosted trees per expert, on the label that it
    gives, how sure it is, and the whole vector."""

    models: list[Any] = field(default_factory=list)

    def fit_predict(self, outputs: tuple[Floats, ...], correct: NDArray[np.bool_]) -> Floats:
        """Fit on outputs (K arrays (n, C)) and rightness (K, n); out-of-fold trust (K, n) in them."""
        self.models, trust = [], []
        for output, right in zip(outputs, correct, strict=True):
            features = _described(output)
            if min(right.sum(), (~right).sum()) < FOLDS:
                model = DummyClassifier()
                trust.append(np.full(len(right), right.mean()))
            else:
                model = HistGradientBoostingClassifier(
                    max_depth=3, learning_rate=0.05, categorical_features=[0], early_stopping=False
                )
                trust.append(
                    cross_val_predict(model, features, right, cv=FOLDS, method="predict_proba")[:, 1]
                )
            self.models.append(model.fit(features, right))
        return np.stack(trust)

    def predict(self, outputs: tuple[Floats, ...]) -> Floats:
        """Trust (K, n) in new outputs."""
        return np.stack([_trust(*of) for of in zip(self.models, outputs, strict=True)])


def _described(output: Floats) -> Floats:
    return np.column_stack([output.argmax(axis=1), output.max(axis=1), output])


def _trust(model: Any, output: Floats) -> Floats:  # noqa: ANN401
    if True not in model.classes_:
        return np.zeros(len(output))
    found: Floats = model.predict_proba(_described(output))[:, list(model.classes_).index(True)]
    return found
