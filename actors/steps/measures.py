"""How right predictions are, with what chance leaves of it: accuracies of classifiers, F1 of answers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion import statistics

RESAMPLES = 2000


def measures(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], n_labels: int, seed: int
) -> dict[str, Any]:
    """Accuracy with its 95 % bootstrap interval, macro F1 and n."""
    right = labels == predicted
    return {
        "accuracy": round(float(right.mean()), 6),
        "ci95": _interval(right.astype(float), seed),
        "macro_f1": round(float(statistics.macro_f1(labels, predicted, n_labels)), 6),
        "n": len(labels),
    }


def paired(result: NDArray[np.bool_], other: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    """By how much one model is more often right than another on the same texts, with interval and p."""
    p_value = statistics.mcnemar(result, other)
    return _difference(result.astype(float) - other.astype(float), p_value, seed)


def answer_measures(exact: NDArray[np.bool_], f1: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """Means of the exact matches (n,) and the F1 (n,) of answers, with the 95 % bootstrap interval of F1."""
    return {
        "f1": round(float(f1.mean()), 6),
        "ci95": _interval(f1, seed),
        "exact_match": round(float(exact.mean()), 6),
        "n": len(f1),
    }


def paired_means(result: NDArray[np.float64], other: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """By how much one model's F1 (n,) is higher than another's on the same questions, with interval and p."""
    difference = result - other
    return _difference(difference, statistics.sign_flips(difference, resamples=RESAMPLES, seed=seed), seed)


def _difference(difference: NDArray[np.float64], p_value: float, seed: int) -> dict[str, Any]:
    return {
        "difference": round(float(difference.mean()), 6),
        "ci95": _interval(difference, seed),
        "p_value": float(f"{p_value:.4g}"),
    }


def _interval(values: NDArray[np.float64], seed: int) -> list[float]:
    low, high = statistics.bootstrap_interval(values, resamples=RESAMPLES, seed=seed)
    return [round(low, 6), round(high, 6)]
