"""Vectors for task models of kind `head`: every accepted text is embedded once per run, by Ray Data."""

from typing import Any

from actors.steps.training import stm_spec, vector_cache
from actors.vectors import embed_once
from cluster.storage import Run, Step


def embed(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Fill the run's cache with the texts of a chain. `params`: chain, stm."""
    files = [run.below(f"steps/{key}/kept.parquet").uri for key in params["chain"]]
    return {"embedded": embed_once(files, vector_cache(run), stm_spec(params["stm"]))}
