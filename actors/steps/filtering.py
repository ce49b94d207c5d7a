"""From the completions of one wave to accepted samples: every completion gets a record with its status.

Completions are judged in a fixed order (by index, label, PLM), so that what counts as the duplicate of what
does not depend on who answered first, and no PLM is favoured.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from actors.steps.data import read_kept
from actors.steps.kinds import KINDS
from cluster.storage import Run, Step
from configs.schema.fusegen import FilterRules
from configs.schema.task import Task
from fusion.generation.filtering import Filter, Rules

KEPT = ["id", "plm", "round", "label", "text"]


def rules_of(rules: FilterRules, task: Task) -> Rules:
    """The rules of a job for a task."""
    prompts = {fragment for label in task.labels for fragment in _fragments(label.feedback, label.zero_shot)}
    return Rules(
        cut=task.cut,
        min_words=rules.min_words,
        word_count=rules.word_count,
        required={i: label.required for i, label in enumerate(task.labels) if label.required},
        forbidden={i: label.forbidden for i, label in enumerate(task.labels) if label.forbidden},
        pair=task.pair,
        placeholders=rules.placeholders,
        refusals=rules.refusals,
        templates=tuple(sorted({task.shot_prefix.strip(), *prompts})) if rules.echoes else (),
        copies=rules.copies,
        copy_overlap=rules.copy_overlap,
        duplicates=rules.duplicates,
        near_threshold=rules.near_threshold,
    )


def _fragments(*prompts: str) -> list[str]:
    """The prompts as a model would repeat them: the line before the open quote, without slots."""
    return [
        line
        for prompt in prompts
        if "<C>" not in prompt
        for line in [prompt.rsplit("\n", 1)[-1].rstrip().removesuffix('"').strip()]
        if line
    ]


def filter_wave(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Judge a wave; write `records.parquet` (all) and `kept.parquet` (accepted: id, plm, round, label, text,
    and what samples of the task's kind carry).

    `params`: wave (key of its generate step), chain (filter steps before it), task, rules, shots (key or
    None), plms (names in order), room {plm: [per label] or one number for all labels}. Facts: per PLM the
    numbers asked and kept per label, rejected by reason, tokens and seconds.
    """
    task = Task.model_validate(params["task"])
    judge = Filter(rules_of(FilterRules.model_validate(params["rules"]), task), _shots(run, params["shots"]))
    if params["chain"]:
        judge.remember(read_kept(run, params["chain"], ["text"]).column("text").to_pylist())
    quota = _Quota(params["room"])
    records = [_judged(row, judge, quota) for row in _completions(run, params)]
    columns = [*KEPT, *KINDS[task.kind].carried]
    schema = None if records else pa.schema([(name, pa.string()) for name in ["status", *columns]])
    table = pa.Table.from_pylist(records, schema)
    step.files.write_table("records.parquet", table)
    step.files.write_table(
        "kept.parquet", table.filter(pa.compute.equal(table["status"], "kept")).select(columns)
    )
    return {"plms": {plm: _facts(records, plm, len(task.labels)) for plm in params["plms"]}}


def _completions(run: Run, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    wave = run.below(f"steps/{params['wave']}")
    tables = [wave.read_table(path) for path in wave.read_json("manifest.json")["files"]]
    order = {plm: position for position, plm in enumerate(params["plms"])}
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist() if tables else []
    return sorted(rows, key=lambda row: (row["index"], row["label"], order[row["plm"]]))


def _shots(run: Run, key: str | None) -> list[str]:
    feedback = run.read_json(f"steps/{key}/feedback.json") if key else {"shots": {}}
    texts = (shot["text"] for labels in feedback["shots"].values() for shots in labels for shot in shots)
    return list(dict.fromkeys(texts))


class _Quota:
    """How many samples are still wanted: per PLM and label, or per PLM."""

    def __init__(self, room: Mapping[str, list[int] | int]) -> None:
        self.room = {plm: list(n) if isinstance(n, list) else n for plm, n in room.items()}

    def open(self, plm: str, label: int) -> bool:
        room = self.room[plm]
        return (room[label] if isinstance(room, list) else room) > 0

    def take(self, plm: str, label: int) -> None:
        room = self.room[plm]
        if isinstance(room, list):
            room[label] -= 1
        else:
            self.room[plm] = room - 1


def _judged(row: dict[str, Any], judge: Filter, quota: _Quota) -> dict[str, Any]:
    finish = row["finish_reason"]
    if finish in {"error", "exhausted"}:
        text, status, of = "", finish, None
    elif not quota.open(row["plm"], row["label"]):
        text, status, of = "", "surplus", None
    else:
        answer = row.get("answer")
        verdict = judge.judge(row["raw"], row["label"], row["context"], answer, finished=row["cut"])
        text, status, of = verdict.text, verdict.status, verdict.of
    if status == "kept":
        quota.take(row["plm"], row["label"])
    return {**row, "text": text, "status": status, "of": of}


def _facts(records: list[dict[str, Any]], plm: str, n_labels: int) -> dict[str, Any]:
    mine = [record for record in records if record["plm"] == plm]
    kept = Counter(record["label"] for record in mine if record["status"] == "kept")
    statuses = Counter(record["status"] for record in mine)
    del statuses["kept"]
    return {
        "asked": [sum(r["label"] == label for r in mine) for label in range(n_labels)],
        "kept": [kept[label] for label in range(n_labels)],
        "rejected": dict(sorted(statuses.items())),
        "prompt_tokens": sum(r["prompt_tokens"] for r in mine),
        "completion_tokens": sum(r["completion_tokens"] for r in mine),
        "seconds": round(sum(r["seconds"] for r in mine), 3),
    }
