"""FrugalML (Chen, Zaharia, Zou 2020, arXiv 2006.07512) in its Lagrangian form: at most two calls.

A base service answers; where it is not sure enough of a label, one other service is called, whose answer
replaces the base's. For each base and label, the gain of calling k below a confidence is a prefix sum over
items sorted by confidence, so every base, label, k and threshold is compared in O(K^2 n log n).
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fusion.routing.neighbours import Floats, Ints


@dataclass
class FrugalML:
    """`rate` is what one unit of price must bring in accuracy (lambda); `prices` (K,)."""

    prices: Floats
    rate: float
    base: int = 0
    rules: dict[int, tuple[int, float]] = field(default_factory=dict)
    """For each label that is not always believed: whom to call up to which confidence."""

    def fit(self, labels: Ints, confidence: Floats, correct: NDArray[np.bool_]) -> Self:
        """Learn from labels, confidences and rightness, all (K, n)."""
        found = [self._fit_base(base, labels, confidence, correct) for base in range(len(self.prices))]
        self.base = int(np.argmax([worth for worth, _ in found]))
        self.rules = found[self.base][1]
        return self

    def _fit_base(
        self, base: int, labels: Ints, confidence: Floats, correct: NDArray[np.bool_]
    ) -> tuple[float, dict[int, tuple[int, float]]]:
        worth = correct[base].sum() - self.rate * self.prices[base] * labels.shape[1]
        rules = {}
        for label in np.unique(labels[base]):
            items = np.flatnonzero(labels[base] == label)
            best = (
                max(
                    (
                        *best_threshold(
                            confidence[base, items], correct[base, items], correct[k, items], price
                        ),
                        k,
                    )
                    for k, price in enumerate(self.rate * self.prices)
                    if k != base
                )
                if len(self.prices) > 1
                else (0.0, 0.0, base)
            )
            gain, threshold, other = best
            if gain > 0:
                worth += gain
                rules[int(label)] = (int(other), float(threshold))
        return float(worth), rules

    def decide(self, labels: Ints, confidence: Floats) -> tuple[Ints, NDArray[np.bool_]]:
        """Whose answer is given (n,) and who was called (K, n) for labels and confidences (K, n)."""
        n = labels.shape[1]
        answers = np.full(n, self.base)
        for label, (other, threshold) in self.rules.items():
            answers[(labels[self.base] == label) & (confidence[self.base] <= threshold)] = other
        called = np.zeros(labels.shape, bool)
        called[self.base] = True
        called[answers, np.arange(n)] = True
        return answers, called


def best_threshold(
    confidence: Floats, base: NDArray[np.bool_], other: NDArray[np.bool_], charge: float
) -> tuple[float, float]:
    """The largest gain of calling another service for the items with a confidence up to a threshold, and that
    threshold; (0, 0) when it never pays. `charge` is its price in units of right answers."""
    order = np.argsort(confidence, kind="stable")
    sure = confidence[order]
    gains = np.cumsum(other[order].astype(float) - base[order] - charge)
    last = np.append(sure[1:] != sure[:-1], True)  # a threshold cannot part equal confidences
    if not len(gains) or gains[last].max() <= 0:
        return 0.0, 0.0
    best = np.flatnonzero(last)[gains[last].argmax()]
    return float(gains[best]), float(sure[best])
