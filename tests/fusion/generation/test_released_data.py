"""The released IMDb generations under a small model of our own: bag of words and logistic regression.

The numbers were computed independently of this package; they validate variability, weights and shares on real
text.
"""

import re
from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix

from fusion.generation.cartography import candidates, variability
from fusion.generation.reweighting import judged, self_boost

PLMS = ["gpt2-xl", "llama-2-7b-chat-hf", "vicuna-7b-1.5v", "opt-6.7b", "flan-t5-xl", "chatglm3-6b-base"]


@pytest.fixture(scope="module")
def rows(shared):
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(shared / "data/fusegen_imdb/generations.parquet")
    return table[table.split == "fusegen"].sort_values(["seed", "plm", "idx"])


def of(rows, plm):
    mine = rows[rows.plm == plm]
    return mine.text.tolist(), mine.label.to_numpy(int)


def tokens(text):
    return set(re.findall(r"[a-z']+", text.lower()))


def vocabulary(texts, least):
    counts = Counter(token for text in texts for token in tokens(text))
    return {token: i for i, token in enumerate(sorted(t for t, n in counts.items() if n >= least))}


def features(texts, known):
    """Binary unigrams, rows of length one, and a constant."""
    columns = [[known[token] for token in tokens(text) if token in known] for text in texts]
    values = np.concatenate([np.full(len(c), 1 / np.sqrt(len(c))) for c in columns if c])
    indptr = np.cumsum([0, *map(len, columns)])
    return csr_matrix((values, np.concatenate(columns).astype(int), indptr), (len(texts), len(known)))


def fit(x, y, steps, weights=None):
    """Gradient descent from zero, rate 5, L2 1e-3 (not on the bias); weights are divided by their mean."""
    theta, bias, transposed = np.zeros(x.shape[1]), 0.0, x.T.tocsr()
    scale = np.ones(len(y)) if weights is None else weights / weights.mean()
    for _ in range(steps):
        residual = scale * (predict(x, theta, bias) - y) / len(y)
        theta -= 5 * (transposed @ residual + 1e-3 * theta)
        bias -= 5 * residual.sum()
    return theta, bias


def predict(x, theta, bias):
    return 1 / (1 + np.exp(-(x @ theta + bias)))


@pytest.fixture(scope="module")
def models(rows):
    """One trained model per language model, on rows 0 to 199 or on all, with its vocabulary."""

    def train(first):
        trained = []
        for plm in PLMS:
            texts, labels = of(rows[(rows.seed == 12345) & (rows.idx < first)], plm)
            known = vocabulary(texts, 2)
            trained.append((known, fit(features(texts, known), labels, 300)))
        return trained

    return {200: train(200), 1000: train(1000)}


def test_fact_18_six_first_files(rows):
    first = rows[(rows.seed == 12345) & (rows["round"] == 0)]
    assert len(first) == 1200
    assert np.bincount(first.label).tolist() == [600, 600]


def test_pair_matrix_of_the_surrogate(rows, models):
    last = rows[rows.seed == 12345]
    matrix = [
        [
            np.mean((predict(features(texts, known), *model) > 0.5) == labels)
            for texts, labels in (of(last, plm) for plm in PLMS)
        ]
        for known, model in models[1000]
    ]
    expected = [
        [81.7, 78.0, 81.7, 65.7, 58.9, 67.9],
        [57.7, 92.6, 85.0, 62.9, 50.8, 61.2],
        [60.7, 87.6, 97.7, 65.5, 61.3, 73.6],
        [60.9, 84.6, 89.9, 80.6, 63.4, 70.2],
        [58.3, 66.6, 70.7, 59.2, 79.0, 65.6],
        [62.5, 81.8, 87.0, 66.5, 61.5, 86.4],
    ]
    assert_allclose(100 * np.array(matrix), expected, atol=0.06)


def test_variability_of_the_surrogate(rows, models):
    first = rows[(rows.seed == 12345) & (rows.idx < 200)]
    texts, labels = zip(*(of(first, plm) for plm in PLMS), strict=True)
    pooled, y = [text for part in texts for text in part], np.concatenate(labels)
    p = np.array([predict(features(pooled, known), *model) for known, model in models[200]])
    d = variability(np.where(y == 1, p, 1 - p))
    assert_allclose(np.quantile(d, [0, 0.25, 0.5, 0.75, 1]), [0.045, 0.122, 0.154, 0.188, 0.326], atol=6e-4)
    owner = np.repeat(PLMS, 200)
    chosen = owner[candidates(d, 40, 0.5)]
    low, high = Counter(chosen[:20]), Counter(chosen[20:])
    assert low["flan-t5-xl"] == 6
    assert low["chatglm3-6b-base"] == 6
    assert high["llama-2-7b-chat-hf"] == 13


def test_self_boosting_confirms_itself_on_the_surrogate(rows):
    texts, labels = zip(*(of(rows[rows.seed == 12345], plm) for plm in PLMS), strict=True)
    pooled, y = [text for part in texts for text in part], np.concatenate(labels)
    x = features(pooled, vocabulary(pooled, 3))

    def judge(weights, iteration):
        p = predict(x, *fit(x, y, 100, weights))
        return judged(np.stack([1 - p, p], axis=1), y)

    result = self_boost(judge, len(y), iterations=30, beta_rule="authors", patience=4)
    assert len(result.history) == 5
    shares = [entry["share_ok"] for entry in result.history]
    assert_allclose(shares, [0.773, 0.756, 0.739, 0.731, 0.721], atol=6e-4)
    assert result.history[-1]["min_weight"] < 0.004
    falling = [100 * (part < 0.25).mean() for part in np.split(result.weights, 6)]
    assert_allclose(falling, [43, 13, 7, 37, 42, 33], atol=0.6)
    assert 1 - result.history[-1]["survivors"] == pytest.approx(0.29, abs=0.006)
