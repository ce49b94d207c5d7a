"""Cost of influence scores, and how well they foretell what leaving a sample out does.

    python -m tests.benchmarks.bench_influence

Cost: a tiny BERT classifier, 40 candidates and 96 validation samples; the authors' computation (one LiSSA
chain per validation sample over all parameters) is timed on 8 of the 96 chains and scaled. Audit: logistic
regression on a small task, retrained without each of 40 samples in turn; Spearman correlation of the true
change of the validation loss with each score.
"""

import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from transformers import BertConfig, BertForSequenceClassification

from fusion.generation import influence

CANDIDATES, VALIDATION, TIMED = 40, 96, 8
LENGTH = 48


def main(arguments: list[str]) -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    _costs()
    _audit()


def _costs() -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    model = BertForSequenceClassification(
        BertConfig(vocab_size=2000, attn_implementation="eager", **shape)
    ).eval()
    n = CANDIDATES + VALIDATION
    ids = torch.randint(5, 2000, (n, LENGTH))
    labels = np.random.default_rng(0).integers(0, 2, n)
    probe = influence.Probe(model, lambda samples: model(input_ids=ids[list(samples)]).logits, labels)
    first, second = list(range(CANDIDATES)), list(range(CANDIDATES, n))

    def closed() -> np.ndarray:
        with torch.inference_mode():
            pooled = model.dropout(model.bert(input_ids=ids).pooler_output)
            p = model.classifier(pooled).softmax(-1).double().numpy()
        h = pooled.double().numpy()
        return influence.last_layer(h[first], p[first], labels[first], h[second], p[second], labels[second])

    ways: dict[str, tuple[Callable[[], np.ndarray], float]] = {
        "last layer, closed form (with its forwards)": (closed, 1.0),
        "gradient dot": (lambda: influence.gradient_dot(probe, first, second), 1.0),
        "LiSSA, one chain": (lambda: influence.lissa(probe, first, second), 1.0),
        "LiSSA per validation sample (authors)": (
            lambda: influence.per_sample_lissa(probe, first, second[:TIMED]),
            VALIDATION / TIMED,
        ),
    }
    seconds = {name: _seconds(way) * scale for name, (way, scale) in ways.items()}
    authors = seconds["LiSSA per validation sample (authors)"]
    print(f"{'influence of 40 on 96 samples':46}{'seconds':>9}{'times faster than authors':>28}")
    for name, took in seconds.items():
        print(f"{name:46}{took:9.3f}{authors / took:28.0f}")


def _seconds(way: Callable[[], np.ndarray]) -> float:
    """Time of one call, after the first for those that are quick."""
    started = time.perf_counter()
    way()
    if time.perf_counter() - started > 10:
        return time.perf_counter() - started
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def _audit() -> None:
    rows = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(90, 3))
        y = (x[:, 0] + 0.5 * rng.normal(size=90) > 0).astype(int)
        rows.append(_correlations(x, y, np.arange(40), np.arange(40, 90)))
    print(f"\n{'rank correlation with leave-one-out retraining':48}{'mean of 4':>10}")
    for name in rows[0]:
        print(f"{name:48}{np.mean([row[name] for row in rows]):10.3f}")


def _correlations(x: np.ndarray, y: np.ndarray, train: np.ndarray, held: np.ndarray) -> dict[str, float]:
    def fit(kept: np.ndarray) -> LogisticRegression:
        return LogisticRegression(tol=1e-10, max_iter=1000).fit(x[kept], y[kept])

    def loss(model: LogisticRegression) -> float:
        return float(1 - model.predict_proba(x[held])[np.arange(len(held)), y[held]].mean())

    model = fit(train)
    p = model.predict_proba(x)
    truth = loss(model) - np.array([loss(fit(np.delete(train, i))) for i in train])
    given = (x[train], p[train], y[train], x[held], p[held], y[held])
    scores = {
        "last layer": influence.last_layer(*given),
        "last layer with Hessian": influence.last_layer_hessian(*given),
    }
    return {name: float(spearmanr(score, truth).statistic) for name, score in scores.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
