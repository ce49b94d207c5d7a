"""The multi-layer perceptron of the paper as a scikit-learn classifier: AdamW with a cosine schedule."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data
from torch import nn

from fusion.routing.neighbours import Floats


class MlpFuser(ClassifierMixin, BaseEstimator):
    """ReLU layers `hidden`, cross-entropy, learning rate falling to 0 over `epochs` along a half cosine.

    Defaults are those of the paper's CIFAR experiment; `dropout` acts before the last layer, when training.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (512, 512),
        epochs: int = 50,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        dropout: float = 0.0,
        random_state: int | None = 0,
    ) -> None:
        self.hidden, self.epochs, self.batch_size, self.dropout = hidden, epochs, batch_size, dropout
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Train on features (n, d) and labels (n,)."""
        x, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        features, targets = torch.tensor(x, dtype=torch.float32), torch.from_numpy(labels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network_ = self._network(features.shape[1], len(self.classes_))
            self._train(features, targets)
        return self

    def restore(self, width: int, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over the weights of a network that was trained on `width` columns; `classes_` must be set."""
        self.network_ = self._network(width, len(self.classes_)).eval()
        self.network_.load_state_dict({n: torch.from_numpy(np.array(w)) for n, w in weights.items()})

    def _network(self, width: int, classes: int) -> nn.Sequential:
        sizes = [width, *self.hidden]
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(sizes):
            layers += [nn.Linear(narrow, wide), nn.ReLU()]
        return nn.Sequential(*layers, nn.Dropout(self.dropout), nn.Linear(sizes[-1], classes))

    def _train(self, features: torch.Tensor, targets: torch.Tensor) -> None:
        network, steps = self.network_.train(), -(-len(features) // self.batch_size) * self.epochs
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
        for _ in range(self.epochs):
            for rows in torch.split(torch.randperm(len(features)), self.batch_size):
                optimizer.zero_grad()
                torch.autograd.backward(nn.functional.cross_entropy(network(features[rows]), targets[rows]))
                optimizer.step()
                schedule.step()
        network.eval()

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Labels (m,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    @torch.no_grad()
    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Probabilities (m, C)."""
        check_is_fitted(self)
        x = torch.tensor(validate_data(self, X, reset=False), dtype=torch.float32)
        return np.asarray(self.network_(x).softmax(dim=1), np.float64)
