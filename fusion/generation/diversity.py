"""How varied a set of texts is, and how much of it is repetition."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fusion.generation.text import shingles, words

GRAM = 4


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct word n-grams over all word n-grams of the set (Li et al. 2016); it falls as sets grow, so
    compare sets of equal size. 0 without any n-gram."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        tokens = words(text)
        grams = list(zip(*(tokens[start:] for start in range(n)), strict=False))
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else 0.0


def lengths(texts: Sequence[str]) -> dict[str, float]:
    """Mean, median and the 5 % and 95 % quantiles of the number of space-separated words; zeros without
    texts."""
    counts = np.array([len(text.split()) for text in texts] or [0])
    low, median, high = np.quantile(counts, [0.05, 0.5, 0.95])
    return {"mean": float(counts.mean()), "median": float(median), "q05": float(low), "q95": float(high)}


def duplicate_rate(texts: Sequence[str]) -> float:
    """The share of texts that equal an earlier one."""
    return 1 - len(set(texts)) / len(texts) if texts else 0.0


def self_overlap(texts: Sequence[str]) -> float:
    """The mean, over texts, of the share of their distinct word 4-grams that another text has too: what
    self-BLEU asks, in linear time. Texts below four words count as one gram, empty ones not at all."""
    grams = [shingles(words(text), GRAM) for text in texts]
    used = Counter(gram for own in grams for gram in own)
    shared = [sum(used[gram] > 1 for gram in own) / len(own) for own in grams if own]
    return float(np.mean(shared)) if shared else 0.0


def describe(texts: Sequence[str]) -> dict[str, float | int | dict[str, float]]:
    """All of the above."""
    return {
        "texts": len(texts),
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "words": lengths(texts),
        "duplicates": duplicate_rate(texts),
        "self_overlap": self_overlap(texts),
    }
