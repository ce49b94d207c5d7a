"""The fusers by name: how they are made, and how a trained one becomes plain arrays and back.

For labels a fuser is a classifier; where a response is chosen it is a regressor of every expert's quality,
so that the choice can weigh quality against price. Arrays hold all that a trained fuser is, so that it can be
stored without executable formats.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from fusion.routing.knn import KnnFuser
from fusion.routing.mlp import MlpFuser
from fusion.routing.trees import TreesFuser, TreesRegressor

Kind = Literal["knn", "logistic", "mlp", "trees"]
Arrays = dict[str, NDArray[Any]]
RIDGE = 10.0


def make(kind: Kind, *, chooses: bool = False, seed: int = 0, neighbours: int = 9) -> Any:  # noqa: ANN401
    """An untrained fuser: a classifier, or for `chooses` a regressor of qualities (logistic: ridge)."""
    if chooses:
        if kind == "logistic":
            return Ridge(alpha=RIDGE)
        if kind == "trees":
            return TreesRegressor(random_state=seed)
        raise ValueError(f"no fuser of kind {kind} predicts qualities; allowed: logistic, trees")
    if kind == "knn":
        return KnnFuser(neighbours)
    if kind == "logistic":
        return LogisticRegression(max_iter=2000)
    return MlpFuser(random_state=seed) if kind == "mlp" else TreesFuser(random_state=seed)


def to_arrays(fuser: Any) -> Arrays:  # noqa: ANN401
    """What a trained logistic, MLP or tree fuser has learnt; nearest neighbours learn nothing."""
    if isinstance(fuser, LogisticRegression | Ridge):
        found = {"coef": fuser.coef_, "intercept": np.atleast_1d(fuser.intercept_)}
    elif isinstance(fuser, MlpFuser):
        found = {name: tensor.numpy() for name, tensor in fuser.network_.state_dict().items()}
    elif isinstance(fuser, TreesRegressor):
        found = {f"trees.{i}": _bytes(b.model_to_string()) for i, b in enumerate(fuser.boosters_)}
    else:
        found = {"trees.0": _bytes(fuser.booster_.model_to_string())}
    classes = getattr(fuser, "classes_", None)
    return found if classes is None else {**found, "classes": np.asarray(classes)}


def from_arrays(kind: Kind, arrays: Mapping[str, NDArray[Any]], width: int, *, chooses: bool) -> Any:  # noqa: ANN401
    """The trained fuser again, for features of `width` columns."""
    fuser = make(kind, chooses=chooses)
    fuser.n_features_in_ = width
    if "classes" in arrays:
        fuser.classes_ = arrays["classes"]
    if kind == "logistic":
        fuser.coef_, fuser.intercept_ = arrays["coef"], arrays["intercept"]
    elif kind == "mlp":
        fuser.restore(width, {name: value for name, value in arrays.items() if name != "classes"})
    else:
        from lightgbm import Booster

        texts = [arrays[f"trees.{i}"] for i in range(sum(name.startswith("trees.") for name in arrays))]
        boosters = [Booster(model_str=text.tobytes().decode()) for text in texts]
        if chooses:
            fuser.boosters_, fuser.single_ = boosters, False
        else:
            fuser.booster_ = boosters[0]
    return fuser


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)
