"""Sample weights for the final model: FuseGen's self-boosting adjustment, or SunGen's bi-level one."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors import stms
from actors.steps.data import read_kept
from actors.steps.kinds import Bools, Floats, Labels, kind_of
from actors.steps.training import stm_spec, vector_cache
from cluster.storage import Run, Step
from configs.schema.fusegen import Weights
from fusion.generation import reweighting

INITIAL = 0.5


def weigh(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write `weights.parquet` (id, plm, label, weight); facts hold the history of the iterations.

    `params`: chain, plms (None for all), weights (section of the configuration), stm, labels, kind, seed.
    """
    kind = kind_of(params)
    table = read_kept(run, params["chain"], ["id", "plm", "label", "text", *kind.carried])
    if params["plms"] is not None:
        table = table.filter(pa.compute.is_in(table["plm"], pa.array(params["plms"])))
    targets = kind.targets(table)
    settings = Weights.model_validate(params["weights"])
    model = stms.create(stm_spec(params["stm"]), params["labels"], params["seed"], vector_cache(run))
    encoded = model.encode(table.column("text").to_pylist(), learn=True)
    if settings.kind == "swa":
        weights, facts = _swa(model, encoded, kind, targets, settings)
    else:
        weights, facts = _sungen(model, encoded, targets, settings, params["seed"])
    step.files.write_table(
        "weights.parquet", table.select(["id", "plm", "label"]).append_column("weight", pa.array(weights))
    )
    return facts


def _swa(
    model: Any,  # noqa: ANN401
    encoded: Any,  # noqa: ANN401
    kind: Labels,
    targets: NDArray[np.int64],
    settings: Weights,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    def judge(weights: NDArray[np.float64], iteration: int) -> tuple[Floats, Bools]:  # noqa: ARG001
        scores = kind.scores(model.fit(encoded, targets, weights), encoded, targets)
        return scores.error, scores.right

    result = reweighting.self_boost(
        judge,
        len(targets),
        iterations=settings.iterations,
        beta_rule=settings.beta,
        initial=INITIAL,
        patience=settings.patience,
    )
    return result.weights, {"history": [dict(entry) for entry in result.history]}


def _sungen(
    model: Any,  # noqa: ANN401
    encoded: Any,  # noqa: ANN401
    labels: NDArray[np.int64],
    settings: Weights,
    seed: int,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    def train(weights: NDArray[np.float64], iteration: int) -> tuple[Any, NDArray[np.float64]]:  # noqa: ARG001
        model.fit(encoded, labels, weights)
        return model.features(encoded), np.asarray(model.predict_proba(encoded))

    result = reweighting.sungen(train, labels, iterations=settings.iterations, seed=seed)
    return result.weights, {"history": [dict(entry) for entry in result.history]}
