"""Tiny models of three domains, fine-tuned by the job itself on sentences of the small corpus."""

import json
from pathlib import Path
from typing import Any

import pytest

from actors.board import Board
from actors.merging.job import MergeJob
from cluster.session import Session
from cluster.storage import Run
from configs.schema.base import identity
from configs.schema.merge import MergeConfig
from tests import corpus
from tests.actors.routing.conftest import InPlace
from tests.experts import LABELS, bert

DOMAINS = ("critic", "fan", "grump")


@pytest.fixture(scope="session")
def reviews(tmp_path_factory) -> Path:
    """Texts of three voices."""
    path = tmp_path_factory.mktemp("reviews") / "texts.jsonl"
    with path.open("w") as stream:
        for row in corpus.rows():
            kept = {"domain": row["plm"], "text": row["text"], "label_name": row["label_name"]}
            stream.write(json.dumps(kept) + "\n")
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """The tiny BERT that all start from."""
    return bert(tmp_path_factory.mktemp("base") / "bert", LABELS, seed=1)


def config(reviews: Path, base: Path, **changes: Any) -> MergeConfig:
    """Two domains fine-tuned for a moment, the third held out; every method."""
    data: dict[str, Any] = {
        "job": "merge",
        "name": "tiny",
        "data": {"path": str(reviews), "domains": ["critic", "fan"], "train_limit": 40, "test_limit": 20},
        "fine_tuning": {"model": str(base), "epochs": 2, "learning_rate": 1e-3, "max_length": 32},
        "methods": ["simple", "fisher", "regmean", "regmean_pp", "task_arithmetic", "ties", "dare", "slerp"],
        "alphas": [0.5],
        "statistics": {"sequences": 24, "max_length": 32, "batch_size": 8, "fisher_samples": 8},
    }
    return MergeConfig.model_validate({**data, **changes})


def merge(config: MergeConfig, folder: Path) -> tuple[dict[str, Any], Run]:
    """The summary and the run of a job, done in this process, step by step."""
    run = Run.open(str(folder), identity(config), {}, "0")
    session = Session(local=True, cpus=4.0, gpus=0.0)
    return MergeJob(config, session, run, InPlace(run, lambda: False), Board()).run(), run


@pytest.fixture(scope="session")
def merged(reviews, base, tmp_path_factory) -> tuple[dict[str, Any], Run]:
    """The job with every method."""
    return merge(config(reviews, base), tmp_path_factory.mktemp("merged") / "run")
