"""Recorded folders of a few classifiers or language models, and pools read from them."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from actors.board import Board
from actors.routing.job import FoeJob
from actors.steps.runner import Call, Done, Steps
from cluster.session import Session
from cluster.storage import Run
from configs.schema.base import identity
from configs.schema.foe import FoeConfig

SERVICES = {"dear": (10.0, 0.85), "middle": (4.0, 0.75), "cheap": (0.5, 0.6)}
"""Price and accuracy of the recorded classifiers."""


@pytest.fixture
def services(tmp_path) -> Path:
    """A folder of `record_services`."""
    return record_services(tmp_path / "services")


def record_services(folder: Path) -> Path:
    """300 items of three labels, three classifiers that are surer when they are right."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 300)
    items = pd.DataFrame({"item": np.arange(300), "label": labels, "domain": np.where(labels == 0, "a", "b")})
    rows = []
    for name, (price, accuracy) in SERVICES.items():
        right = rng.random(300) < accuracy
        pred = np.where(right, labels, (labels + rng.integers(1, 3, 300)) % 3)
        confidence = np.where(right, rng.uniform(0.6, 1, 300), rng.uniform(0.4, 0.8, 300)).round(2)
        rows.append(
            pd.DataFrame(
                {
                    "item": np.arange(300),
                    "expert": name,
                    "pred": pred,
                    "confidence": confidence,
                    "cost_per_10k": price,
                }
            )
        )
    return folder_of(folder, items, pd.concat(rows))


@pytest.fixture
def llms(tmp_path) -> Path:
    """200 questions, three language models with answers and prices of each call; only `good` can do sums."""
    rng = np.random.default_rng(6)
    kinds = rng.integers(0, 2, 200)
    items = pd.DataFrame(
        {
            "item": np.arange(200),
            "task": np.where(kinds == 1, "sums", "names"),
            "split": np.where(np.arange(200) < 120, "train", "test"),
            "text": [f"{'add' if kind else 'name'} {i}" for i, kind in enumerate(kinds)],
        }
    )
    rows = []
    for name, price, sums in (("good", 0.01, 0.9), ("small", 0.001, 0.3), ("tiny", 0.0005, 0.3)):
        right = rng.random(200) < np.where(kinds == 1, sums, 0.8)
        answer = [f"{i}" if ok else f"{i + rng.integers(1, 3)}" for i, ok in enumerate(right)]
        rows.append(
            pd.DataFrame(
                {
                    "item": np.arange(200),
                    "expert": name,
                    "response": answer,
                    "score": right.astype(float),
                    "cost_usd": price * (1 + kinds),
                }
            )
        )
    return folder_of(tmp_path / "llms", items, pd.concat(rows))


def folder_of(folder: Path, items: pd.DataFrame, outputs: pd.DataFrame) -> Path:
    """Write a recorded folder."""
    folder.mkdir(exist_ok=True)
    items.to_parquet(folder / "items.parquet")
    outputs.to_parquet(folder / "outputs.parquet")
    return folder


def config_of(folder: Path, **changes: Any) -> FoeConfig:
    """The configuration of a recorded folder."""
    return FoeConfig.model_validate(
        {"job": "foe", "experts": {"kind": "recorded", "path": str(folder)}, **changes}
    )


class InPlace(Steps):
    """Does steps in this process, one after the other: no Ray."""

    def do(self, calls: Sequence[Call]) -> list[Done]:
        done = []
        for call in calls:
            step = self.run.step(call.name, call.params)
            if step.manifest is None:
                module, _, name = call.function.partition(":")
                with threadpool_limits(1):
                    facts = getattr(importlib.import_module(module), name)(self.run, step, call.params)
                step.commit(**facts, wall_seconds=0.001)
            done.append(Done(step.key, step.manifest or {}))
        return done


def fuse(config: FoeConfig, folder: Path) -> tuple[dict[str, Any], Run]:
    """Run the job of a configuration in this process; its summary and its run."""
    run = Run.open(str(folder), identity(config), {}, "0")
    session = Session(local=False, cpus=0, gpus=0)
    return FoeJob(config, session, run, InPlace(run, lambda: False), Board()).run(), run


@pytest.fixture
def fused(tmp_path) -> Callable[..., tuple[dict[str, Any], Run]]:
    """Runs the job of a configuration in this process; its summary and its run."""
    return lambda config, name="run": fuse(config, tmp_path / name)
