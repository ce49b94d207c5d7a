"""Publishes the data set and the model of a run under names that people look for."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.steps.data import read_kept, read_step
from actors.steps.kinds import kind_of
from cluster.storage import Run, Step


@dataclass(frozen=True)
class Card:
    """What the cards say of a kind of task."""

    tag: str
    model: str
    real: str
    caution: str
    data: str


CARDS = {
    "label": Card(
        tag="text-classification",
        model="A text classifier for the labels {labels}",
        real="text",
        caution="The labels of the training texts are those that were asked for, not checked by a person.",
        data="texts written by language models for the labels {labels}. "
        "`label` is the class id, `label_name` the label that was asked for",
    ),
    "span": Card(
        tag="question-answering",
        model="A model that finds the phrase of a context that answers a question",
        real="question",
        caution="Whether the training questions are answered by their answers was not checked by a person.",
        data="questions written by language models about given contexts and answers. `text` is "
        "`context[SEP]question`, `answer` the phrase that was to be asked for, `answer_start` its first "
        "character in the context",
    ),
}


def publish(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Write `dataset/` and `stm/` of the run.

    `params`: chain, weights (key or None), model (key of a training step), labels, kind, plms, task, result,
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
    interval = f"(95 % bootstrap interval {low:.4f} to {high:.4f})"
    if "f1" in final:
        exact = f"; exact match {final['exact_match']:.4f}."
        return f"F1 on {final['n']} real questions: {final['f1']:.4f} {interval}{exact}"
    return f"Accuracy on {final['n']} real texts: {final['accuracy']:.4f} {interval}."


def _provenance(params: dict[str, Any]) -> str:
    samples = params["summary"]["samples"]
    counts = "\n".join(f"| {plm} | {n} |" for plm, n in samples["plms"].items())
    reasons = ", ".join(f"{count} {reason}" for reason, count in samples["rejected"].items()) or "none"
    return (
        f"| written by | accepted texts |\n|---|---:|\n{counts}\n\n"
        f"Requests: {samples['asked']}; not accepted: {reasons}."
    )


def _model_card(params: dict[str, Any]) -> str:
    measure, card = kind_of(params).measure, CARDS[params.get("kind", "label")]
    comparison = "\n".join(
        f"| {name} | {score[measure]:.4f} |" for name, score in params["summary"]["baselines"].items()
    )
    heading = measure.replace("f1", "F1")
    table = f"\n| compared with | {heading} |\n|---|---:|\n{comparison}\n" if comparison else ""
    return (
        f"---\npipeline_tag: {card.tag}\ntags: [fusegen, synthetic-data]\n---\n\n"
        f"# Task model for {params['task']}\n\n"
        f"{card.model.format(labels=', '.join(params['labels']))}, trained by FuseGen "
        f"(variant `{params['result']}`) on texts that language models wrote; it has seen no real "
        f"{card.real}.\n\n"
        f"{_numbers(params)}\n{table}\n## Training data\n\n{_provenance(params)}\n\n{card.caution}\n"
    )


def _dataset_card(params: dict[str, Any], rows: int) -> str:
    card = CARDS[params.get("kind", "label")]
    return (
        f"---\ntask_categories: [{card.tag}]\ntags: [synthetic]\n---\n\n"
        f"# Generated texts for {params['task']}\n\n"
        f"{rows} {card.data.format(labels=', '.join(params['labels']))}, `weight` the weight in training "
        "(mean 1), `plm` the writer, `round` the round of feedback; `id` leads to the full record in "
        f"`steps/`.\n\n{_provenance(params)}\n"
    )
