"""The only steps that read real test labels; they run after the last round.

`predict` lets one model answer the evaluation set; `compare` turns the answers of all models into measures
with 95 % bootstrap intervals and paired tests against the job's result.
"""

from typing import Any

from actors.steps.data import read_step
from actors.steps.kinds import kind_of
from actors.steps.training import load_model
from cluster.storage import Run, Step
from configs.schema.task import Source

PREDICTIONS = "predictions.parquet"


def predict(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write `predictions.parquet` (label, predicted, confidence; of a span task predicted, confidence, exact,
    f1). `params`: model (key), eval, labels, kind."""
    kind = kind_of(params)
    table = kind.evaluation(Source.model_validate(params["eval"]), params["labels"])
    step.files.write_table(PREDICTIONS, kind.answers(load_model(run, params["model"]), table))
    return {"n": table.num_rows}


def check(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Whether the evaluation set can be read and suits the task. `params`: eval, labels, kind."""
    kind_of(params).evaluation(Source.model_validate(params["eval"]), params["labels"])
    return {}


def compare(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Facts: per model accuracy, ci95, macro_f1 (of a span task f1, ci95, exact_match) and, against the
    result, difference, its ci95 and p.

    `params`: predictions {name: key of a predict step}, result (name), seed, n_labels, kind.
    """
    kind = kind_of(params)
    answers = {name: read_step(run, key, PREDICTIONS) for name, key in params["predictions"].items()}
    facts = {name: kind.measures(mine, params["n_labels"], params["seed"]) for name, mine in answers.items()}
    for name, other in answers.items():
        if name != params["result"]:
            facts[name]["against_result"] = kind.against(answers[params["result"]], other, params["seed"])
    return {"models": facts}
