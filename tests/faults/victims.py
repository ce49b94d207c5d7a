"""One small job of each kind, and what of its run must be the same every time."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from safetensors.numpy import load_file

from tests import corpus, experts
from tests.jobs.conftest import results, timeless


@dataclass(frozen=True)
class Job:
    """A job, by its configuration file."""

    name: str
    config: Path
    files: Callable[[Path], dict[str, bytes]]
    """Results of a run, by name."""
    rows: Callable[[Path], list[str]]
    """Ids of everything that was asked and answered in a run, each of which may be there once."""


def jobs(folder: Path) -> list[Job]:
    """Write the configurations of all jobs, and the data they need, into a folder."""
    small, models = folder / "corpus", folder / "models"
    for place in (small, models):
        place.mkdir()
    corpus.write(small)
    experts.write(models)
    slow = corpus.config(small, **corpus.SHORT, stm={"rounds": corpus.LINEAR, "final": corpus.LINEAR})
    engine = {"kind": "recorded", "latency_s": 0.3}
    slow["plms"] = [corpus.plm(name, engine=engine) for name in corpus.PLMS]
    return [
        Job("fusegen", _written(folder / "fusegen.yaml", slow), results, _records),
        Job("foe", _written(folder / "foe.yaml", _foe(models)), _routed, _answers),
        Job("merge", _written(folder / "merge.yaml", _merge(folder, models)), _merged, _judged),
    ]


def _written(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def _foe(models: Path) -> dict[str, Any]:
    items = experts.write_items(models, 200)
    pool = [experts.classifier(name, models / name) for name in ("ab", "ba", "linear")]
    live = {"kind": "live", "items": {"path": str(items)}, "pool": pool, "block": 8}
    settings = {"fusers": ["knn"], "neighbours": 9, "rates": [0, 0.1]}
    features = {"prompt": False}
    return {"job": "foe", "name": "foe", "experts": live, "policy": settings, "features": features}


def _merge(folder: Path, models: Path) -> dict[str, Any]:
    texts = folder / "texts.jsonl"
    with texts.open("w") as stream:
        for row in corpus.rows():
            kept = {"domain": row["plm"], "text": row["text"], "label_name": row["label_name"]}
            stream.write(json.dumps(kept) + "\n")
    return {
        "job": "merge",
        "name": "merge",
        "data": {"path": str(texts), "domains": ["critic", "fan"], "train_limit": 80, "test_limit": 20},
        "fine_tuning": {"model": str(models / "ab"), "epochs": 2, "learning_rate": 1e-3, "max_length": 32},
        "methods": ["simple", "fisher", "regmean", "task_arithmetic"],
        "statistics": {"sequences": 24, "max_length": 32, "batch_size": 8, "fisher_samples": 8},
    }


def _published(run: Path, folder: str) -> dict[str, bytes]:
    """The files of a folder, and the summary and the numbers of the report without times."""
    found = {
        str(path.relative_to(run)): path.read_bytes() for path in run.glob(f"{folder}/*") if path.is_file()
    }
    for name in ("summary.json", "report.json"):
        found[name] = json.dumps(timeless(json.loads((run / name).read_text()))).encode()
    return found


def _routed(run: Path) -> dict[str, bytes]:
    return _published(run, "artefact")


def _merged(run: Path) -> dict[str, bytes]:
    return _published(run, "model")


def _records(run: Path) -> list[str]:
    paths = run.glob("steps/*/records.parquet")
    return [i for path in paths for i in pq.read_table(path, columns=["id"]).column("id").to_pylist()]


def _answers(run: Path) -> list[str]:
    found = []
    for manifest in run.glob("steps/answers-*/manifest.json"):
        for name in json.loads(manifest.read_text())["files"]:
            table = pq.read_table(manifest.parent / name, columns=["item", "error"]).to_pylist()
            found += [f"{manifest.parent.name}/{row['item']}" for row in table if row["error"] is None]
    return found


def _judged(run: Path) -> list[str]:
    found = []
    for path in run.glob("steps/*/answers.safetensors"):
        for domain, answers in load_file(path).items():
            found += [f"{path.parent.name}/{domain}/{row}" for row in range(len(answers))]
    return found
