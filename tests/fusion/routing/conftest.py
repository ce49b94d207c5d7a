"""Experts on handwritten digits, each trained on a few neighbouring classes: clean, small, deterministic."""

from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from fusion.routing.features import spread

EXPERTS = 10


@dataclass(frozen=True)
class Data:
    """Outputs (K, n, C) of experts and labels (n,), stored and new."""

    stored: np.ndarray
    labels: np.ndarray
    new: np.ndarray
    truth: np.ndarray

    @property
    def blocks(self) -> list[int]:
        """Width of each expert's output."""
        return [self.stored.shape[2]] * len(self.stored)

    @property
    def columns(self) -> np.ndarray:
        """Stored outputs side by side (n, K C)."""
        return np.concatenate(self.stored, axis=1)

    @property
    def requests(self) -> np.ndarray:
        """New outputs side by side (m, K C)."""
        return np.concatenate(self.new, axis=1)


def _digits(known: int) -> Data:
    x, y = load_digits(return_X_y=True)
    x = x / 16
    part = np.arange(len(x)) % 3
    outputs = np.zeros((EXPERTS, len(x), 10))
    for expert in range(EXPERTS):
        mine = (part == 0) & np.isin(y, (expert + np.arange(known)) % 10)
        model = LogisticRegression(max_iter=2000).fit(x[mine], y[mine])
        outputs[expert][:, model.classes_] = model.predict_proba(x)
    return Data(outputs[:, part == 1], y[part == 1], outputs[:, part == 2], y[part == 2])


@pytest.fixture(scope="session")
def digits4() -> Data:
    """Ten experts that know four classes each."""
    return _digits(4)


@pytest.fixture(scope="session")
def digits2() -> Data:
    """Ten experts that know two classes each."""
    return _digits(2)


@dataclass(frozen=True)
class Recorded:
    """Labels and confidences (K, n) of recorded services, true labels (n,), prices (K,)."""

    labels: np.ndarray
    confidence: np.ndarray
    truth: np.ndarray
    prices: np.ndarray

    @property
    def outputs(self) -> np.ndarray:
        """Probability vectors (K, n, C)."""
        classes = int(max(self.truth.max(), self.labels.max())) + 1
        return np.stack([spread(*of, classes) for of in zip(self.labels, self.confidence, strict=True)])


@pytest.fixture(scope="session")
def recorded(shared):
    """Reads a set of recorded services by name."""

    def read(name: str) -> Recorded:
        folder = shared / "data/experts" / name
        items = pq.read_table(folder / "items.parquet").to_pandas().sort_values("item")
        rows = pq.read_table(folder / "outputs.parquet").to_pandas()
        of = [rows[rows.expert == expert].sort_values("item") for expert in dict.fromkeys(rows.expert)]
        return Recorded(
            np.stack([r.pred.to_numpy(int) for r in of]),
            np.stack([r.confidence.to_numpy(float) for r in of]),
            items.label.to_numpy(int),
            np.array([r.cost_per_10k.iloc[0] for r in of], float),
        )

    return read
