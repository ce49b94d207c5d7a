"""Vectors for task models of kind `head`: every text is embedded once per run, by Ray Data."""

from typing import Any

from actors.sources import read_labelled
from actors.steps.training import stm_spec, vector_cache
from actors.vectors import embed_once
from cluster.storage import Run, Step
from configs.schema.task import Source

EVALUATION = "texts.parquet"


def embed(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Fill the run's cache with the texts of a chain. `params`: chain, stm."""
    files = [run.below(f"steps/{key}/kept.parquet").uri for key in params["chain"]]
    return {"embedded": embed_once(files, vector_cache(run), stm_spec(params["stm"]))}


def embed_evaluation(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Fill the run's cache with the evaluation texts. `params`: eval, labels, stm."""
    table = read_labelled(Source.model_validate(params["eval"]), params["labels"])
    step.files.write_table(EVALUATION, table.select(["text"]))
    texts = step.files.below(EVALUATION).uri
    return {"embedded": embed_once(texts, vector_cache(run), stm_spec(params["stm"]))}
