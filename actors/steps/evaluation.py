"""The only steps that read real test labels; they run after the last round.

`predict` lets one model answer the evaluation set; `compare` turns the answers of all models into accuracies
with 95 % bootstrap intervals and paired tests against the job's result.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.sources import read_labelled
from actors.steps.data import read_step
from actors.steps.training import load_model
from cluster.storage import Run, Step
from configs.schema.task import Source
from fusion import statistics

RESAMPLES = 2000


def predict(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write `predictions.parquet` (label, predicted, confidence). `params`: model (key), eval, labels."""
    table = read_labelled(Source.model_validate(params["eval"]), params["labels"])
    model = load_model(run, params["model"])
    proba = model.predict_proba(model.encode(table.column("text").to_pylist()))
    predicted = proba.argmax(axis=1)
    step.files.write_table(
        "predictions.parquet",
        pa.table({"label": table.column("label"), "predicted": predicted, "confidence": proba.max(axis=1)}),
    )
    return {"n": table.num_rows}


def check(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Whether the evaluation set can be read and has the labels of the task. `params`: eval, labels."""
    read_labelled(Source.model_validate(params["eval"]), params["labels"])
    return {}


def compare(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Facts: per model accuracy, ci95, macro_f1 and, against the result, difference, its ci95 and p.

    `params`: predictions {name: key of a predict step}, result (name), seed, n_labels.
    """
    right: dict[str, NDArray[np.bool_]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for name, key in params["predictions"].items():
        table = read_step(run, key, "predictions.parquet")
        labels, predicted = table.column("label").to_numpy(), table.column("predicted").to_numpy()
        right[name] = labels == predicted
        facts[name] = measures(labels, predicted, params["n_labels"], params["seed"])
    result = right[params["result"]]
    for name, other in right.items():
        if name != params["result"]:
            facts[name]["against_result"] = paired(result, other, params["seed"])
    return {"models": facts}


def measures(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], n_labels: int, seed: int
) -> dict[str, Any]:
    """Accuracy with its 95 % bootstrap interval, macro F1 and n."""
    right = labels == predicted
    low, high = statistics.bootstrap_interval(right.astype(float), resamples=RESAMPLES, seed=seed)
    return {
        "accuracy": round(float(right.mean()), 6),
        "ci95": [round(low, 6), round(high, 6)],
        "macro_f1": round(float(statistics.macro_f1(labels, predicted, n_labels)), 6),
        "n": len(labels),
    }


def paired(result: NDArray[np.bool_], other: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    """By how much one model is more often right than another on the same texts, with interval and p."""
    difference = result.astype(float) - other.astype(float)
    low, high = statistics.bootstrap_interval(difference, resamples=RESAMPLES, seed=seed)
    return {
        "difference": round(float(difference.mean()), 6),
        "ci95": [round(low, 6), round(high, 6)],
        "p_value": float(f"{statistics.mcnemar(result, other):.4g}"),
    }
