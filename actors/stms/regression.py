"""Weighted softmax regression over fixed features: the last layer of `linear` and `head`.

scikit-learn's L-BFGS minimises c * sum(w_i * loss_i) + ||W||^2 / 2, started at zero: convex, so the result
depends on nothing but the data. scikit-learn knows only the classes it sees; here the classes are fixed,
and one that is absent gets zero weights and a bias that makes its probability negligible but not zero.
"""

from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import LogisticRegression

from actors.stms.base import FloatArray, IntArray, Matrix

if TYPE_CHECKING:
    import torch

ABSENT = -30.0
"""Bias of an absent class relative to the lowest of the others: its probability is below 1e-13."""


def fit_softmax(
    features: Matrix, y: IntArray, weights: FloatArray, n_classes: int, *, c: float, max_iter: int
) -> tuple[FloatArray, FloatArray]:
    """Return W (C, d) and b (C,) for features (n, d), dense or CSR, and indices y (n,) below C.

    At least two classes must have a text of positive weight.
    """
    used = np.flatnonzero(weights > 0)
    model = LogisticRegression(C=c, max_iter=max_iter, solver="lbfgs", tol=1e-5)
    model.fit(features[used], y[used], sample_weight=weights[used])
    coef, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # one row for the log odds: split it evenly, softmax sees the difference
        coef, intercept = np.vstack([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    matrix = np.zeros((n_classes, coef.shape[1]))
    bias = np.full(n_classes, intercept.min() + ABSENT)
    matrix[model.classes_], bias[model.classes_] = coef, intercept
    return matrix, bias


def as_linear(weight: FloatArray, bias: FloatArray) -> "torch.nn.Linear":
    """Return a float64 `nn.Linear` with W (C, d) and b (C,)."""
    import torch

    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer
