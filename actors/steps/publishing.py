"""Publishes the data set and the model of a run under names that people look for."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.steps.data import read_kept, read_step
from cluster.storage import Run, Step


def publish(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Write `dataset/` and `stm/` of the run.

    `params`: chain, weights (key or None), model (key of a training step), labels, plms, task, result,
    summary (its parts final, baselines, samples).
    """
    table = _dataset(run, params)
    run.write_table("dataset/train.parquet", table)
    run.write_bytes("dataset/README.md", _dataset_card(params, table.num_rows).encode())
    with run.folder(f"steps/{params['model']}/model") as model, tempfile.TemporaryDirectory() as copy:
        shutil.copytree(model, copy, dirs_exist_ok=True)
        (Path(copy) / "README.md").write_text(_model_card(params), encoding="utf-8")
        run.put_folder("stm", Path(copy))
    return {"rows": table.num_rows}


def _dataset(run: Run, params: dict[str, Any]) -> pa.Table:
    table = read_kept(run, params["chain"])
    names = pa.array(params["labels"]).take(table.column("label").combine_chunks())
    weights = np.ones(table.num_rows)
    if params["weights"]:
        weighed = read_step(run, params["weights"], "weights.parquet")
        positions = pc.index_in(table.column("id"), weighed.column("id").combine_chunks()).to_numpy()
        weights = weighed.column("weight").to_numpy()[positions]
    table = table.append_column("label_name", names)
    return table.append_column("weight", pa.array(weights / weights.mean()))


def _numbers(params: dict[str, Any]) -> str:
    final = params["summary"]["final"]
    if not final:
        return "No evaluation data was given."
    low, high = final["ci95"]
    return (
        f"Accuracy on {final['n']} real texts: {final['accuracy']:.4f} "
        f"(95 % bootstrap interval {low:.4f} to {high:.4f})."
    )


def _provenance(params: dict[str, Any]) -> str:
    samples = params["summary"]["samples"]
    counts = "\n".join(f"| {plm} | {n} |" for plm, n in samples["plms"].items())
    reasons = ", ".join(f"{count} {reason}" for reason, count in samples["rejected"].items()) or "none"
    return (
        f"| written by | accepted texts |\n|---|---:|\n{counts}\n\n"
        f"Requests: {samples['asked']}; not accepted: {reasons}."
    )


def _model_card(params: dict[str, Any]) -> str:
    comparison = "\n".join(
        f"| {name} | {score['accuracy']:.4f} |" for name, score in params["summary"]["baselines"].items()
    )
    table = f"\n| compared with | accuracy |\n|---|---:|\n{comparison}\n" if comparison else ""
    return (
        f"---\npipeline_tag: text-classification\ntags: [fusegen, synthetic-data]\n---\n\n"
        f"# Task model for {params['task']}\n\n"
        f"A text classifier for the labels {', '.join(params['labels'])}, trained by FuseGen "
        f"(variant `{params['result']}`) on texts that language models wrote; it has seen no real text.\n\n"
        f"{_numbers(params)}\n{table}\n## Training data\n\n{_provenance(params)}\n\n"
        "The labels of the training texts are those that were asked for, not checked by a person.\n"
    )


def _dataset_card(params: dict[str, Any], rows: int) -> str:
    return (
        f"---\ntask_categories: [text-classification]\ntags: [synthetic]\n---\n\n"
        f"# Generated texts for {params['task']}\n\n"
        f"{rows} texts written by language models for the labels {', '.join(params['labels'])}. "
        "`label` is the class id, `label_name` the label that was asked for, `weight` the weight in training "
        "(mean 1), `plm` the writer, `round` the round of feedback; `id` leads to the full record in "
        f"`steps/`.\n\n{_provenance(params)}\n"
    )
