"""The fusers by name: how they are made, and how a trained one becomes plain arrays and back.

For labels a fuser is a classifier; where a response is chosen it is a regressor of every expert's quality,
so that the choice can weigh quality against price. Arrays hold all that a trained fuser is, so that it can be
stored without executable formats.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor

from fusion.routing.knn import KnnFuser
from fusion.routing.responses import ResponseFuser
from fusion.routing.trees import TreesFuser, TreesRegressor

Kind = Literal["knn", "logistic", "mlp", "trees"]
Arrays = dict[str, NDArray[Any]]


def make(kind: Kind, *, chooses: bool = False, seed: int = 0, neighbours: int = 9) -> Any:  # noqa: ANN401
    """An untrained fuser: a classifier, or for `chooses` a regressor of qualities (logistic: linear)."""
    if chooses:
        if kind == "mlp":
            raise ValueError("the fuser mlp predicts labels only; allowed: knn, logistic, trees")
        if kind == "knn":
            return KNeighborsRegressor(neighbours, algorithm="brute")
        return ResponseFuser(kind="trees" if kind == "trees" else "ridge", random_state=seed)
    if kind == "knn":
        return KnnFuser(neighbours)
    if kind == "logistic":
        return LogisticRegression(max_iter=2000)
    if kind == "trees":
        return TreesFuser(random_state=seed)
    from fusion.routing.mlp import MlpFuser  # torch takes more than a second

    return MlpFuser(random_state=seed)


def to_arrays(fuser: Any) -> Arrays:  # noqa: ANN401
    """What a trained logistic, MLP or tree fuser has learnt; nearest neighbours learn nothing."""
    if isinstance(fuser, ResponseFuser):
        return {"mean": fuser.mean_, "scale": fuser.scale_, **to_arrays(fuser.model_)}
    if isinstance(fuser, LogisticRegression | Ridge):
        found = {"coef": fuser.coef_, "intercept": np.atleast_1d(fuser.intercept_)}
    elif hasattr(fuser, "network_"):
        found = {name: tensor.numpy() for name, tensor in fuser.network_.state_dict().items()}
    elif isinstance(fuser, TreesRegressor):
        found = {f"trees.{i}": _bytes(b.model_to_string()) for i, b in enumerate(fuser.boosters_)}
    else:
        found = {"trees.0": _bytes(fuser.booster_.model_to_string())}
    classes = getattr(fuser, "classes_", None)
    return found if classes is None else {**found, "classes": np.asarray(classes)}


def from_arrays(kind: Kind, arrays: Mapping[str, NDArray[Any]], width: int) -> Any:  # noqa: ANN401
    """The trained classifier again, for features of `width` columns."""
    fuser = make(kind)
    fuser.n_features_in_, fuser.classes_ = width, arrays["classes"]
    if kind == "logistic":
        fuser.coef_, fuser.intercept_ = arrays["coef"], arrays["intercept"]
    elif kind == "mlp":
        fuser.restore(width, {name: value for name, value in arrays.items() if name != "classes"})
    else:
        fuser.booster_ = _boosters(arrays)[0]
    return fuser


def responses_from_arrays(
    kind: Kind, arrays: Mapping[str, NDArray[Any]], blocks: Sequence[int], contexts: int
) -> ResponseFuser:
    """The trained predictor of qualities again, for blocks of these widths, the last of them contexts."""
    fuser: ResponseFuser = make(kind, chooses=True).set_params(blocks=list(blocks), contexts=contexts)
    fuser.mean_, fuser.scale_, fuser.n_features_in_ = arrays["mean"], arrays["scale"], sum(blocks)
    if kind == "trees":
        fuser.model_ = TreesRegressor()
        fuser.model_.boosters_, fuser.model_.single_ = _boosters(arrays), False
    else:
        fuser.model_ = Ridge()
        fuser.model_.coef_, fuser.model_.intercept_ = arrays["coef"], arrays["intercept"]
    fuser.model_.n_features_in_ = len(fuser.mean_)
    return fuser


def _boosters(arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
    from lightgbm import Booster

    texts = [arrays[f"trees.{i}"] for i in range(sum(name.startswith("trees.") for name in arrays))]
    return [Booster(model_str=text.tobytes().decode()) for text in texts]


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)
