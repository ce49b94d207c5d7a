"""A run directory with steps made in place: no Ray."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest

from actors.dispatch import RECORD
from cluster.storage import Run, Step
from tests import corpus

LABELS = list(corpus.LABELS)
LINEAR = {"kind": "linear"}


class Bench:
    """A run directory, and short ways to put committed steps into it."""

    def __init__(self, folder: str) -> None:
        self.run = Run.open(folder, {"seed": 1}, {}, "0")

    def do(self, function: str, params: dict[str, Any], name: str = "step") -> tuple[Step, dict[str, Any]]:
        """Do a step function of `actors.steps` (`module:name`) and commit it; the step and its facts."""
        module, _, attribute = function.partition(":")
        step = self.run.step(name, params)
        facts = getattr(importlib.import_module(f"actors.steps.{module}"), attribute)(self.run, step, params)
        step.commit(**facts)
        return step, facts

    def commit(self, name: str, tables: dict[str, pa.Table], **facts: Any) -> str:
        """A committed step with these tables; its key."""
        step = self.run.step(name, [list(tables), facts])
        for file, table in tables.items():
            step.files.write_table(file, table)
        step.commit(**facts)
        return step.key

    def answers(self, blocks: Sequence[Sequence[dict[str, Any]]], name: str = "wave") -> str:
        """A committed generate step with one file per block."""
        files = {
            f"blocks/{name}{i}.parquet": pa.Table.from_pylist([answer(**row) for row in rows], RECORD)
            for i, rows in enumerate(blocks)
        }
        return self.commit(name, files, files=list(files), dropped={})

    def chain(self, rounds: int = 1, per_label: int = 10) -> list[str]:
        """Filter steps that accepted the first texts of the corpus, `per_label` of each PLM and round."""
        keys = []
        for number in range(rounds):
            rows = [
                {
                    "id": f"{row['plm']}-r{number}-l{row['label']}-{row['idx'] // 2:07d}",
                    **{name: row[name] for name in ("plm", "round", "label", "text")},
                }
                for row in corpus.rows()
                if (row["split"], row["round"]) == ("fusegen", number) and row["idx"] < 2 * per_label
            ]
            more = {"raw": "", "status": "kept", "of": None, "prompt_hash": "h", "shot_ids": "", "seed": 1}
            tables = {
                "kept.parquet": pa.Table.from_pylist(rows),
                "records.parquet": pa.Table.from_pylist([{**row, **more} for row in rows]),
            }
            keys.append(self.commit(f"r{number}-filter", tables, number=number))
        return keys

    def train(self, chain: list[str], **changes: Any) -> tuple[Step, dict[str, Any]]:
        """A model trained on the samples of a chain."""
        params = {
            "chain": chain,
            "plms": None,
            "held_out": 0.0,
            "weights": None,
            "stm": LINEAR,
            "labels": LABELS,
            "seed": 1,
            "score": False,
            "checkpoints": False,
        }
        return self.do("training:train", {**params, **changes}, "train")


def answer(**changes: Any) -> dict[str, Any]:
    """A row of answers: ten words for the first label, unless said otherwise."""
    row = {
        "id": "critic-r0-l0-0000000",
        "plm": "critic",
        "model": "a model",
        "round": 0,
        "label": 0,
        "index": 0,
        "raw": "one two three four five six seven eight nine ten",
        "cut": True,
        "finish_reason": "stop",
        "error": None,
        "context": None,
        "prompt_hash": "h",
        "shot_ids": "",
        "seed": 1,
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "logprob": None,
        "seconds": 0.25,
    }
    return row | changes


@pytest.fixture
def bench(tmp_path) -> Bench:
    """An empty run directory."""
    return Bench(str(tmp_path / "run"))


@pytest.fixture
def movies() -> dict[str, Any]:
    """The task of the corpus, in JSON form."""
    from configs.load import locate, read_yaml
    from configs.schema.base import identity
    from configs.schema.task import Task

    return identity(Task.model_validate(read_yaml(locate("configs/tasks/movies.yaml"))))


@pytest.fixture
def trained(bench) -> Callable[..., dict[str, Any]]:
    """Parameters of a selection after training: one model per PLM and one on all."""

    def build(rounds: int = 1, **selection: Any) -> dict[str, Any]:
        chain = bench.chain(rounds)
        models = {p: bench.train(chain, plms=[p], held_out=0.2, score=True)[0].key for p in corpus.PLMS}
        rules = {"candidates": 10, "shots": 3, "held_out": 0.2, **selection}
        return {
            "chain": chain,
            "plms": list(corpus.PLMS),
            "models": models,
            "union": bench.train(chain)[0].key,
            "selection": rules,
            "labels": LABELS,
            "seed": 1,
            "round": rounds - 1,
        }

    return build
