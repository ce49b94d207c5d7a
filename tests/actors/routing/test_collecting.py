"""Live experts to a pool: real models in real processes, killed, resumed and added to."""

from pathlib import Path
from typing import Any

import pytest

from actors.board import Board
from actors.routing.collecting import collect
from actors.routing.pool import Pool
from actors.steps.runner import Steps
from cluster.session import Session
from cluster.storage import Run
from configs.schema.foe import FoeConfig
from tests.actors.routing.conftest import classifier

HERE = Session(local=False, cpus=0, gpus=0)


def config(small: Path, *pool: dict[str, Any], **changes: Any) -> FoeConfig:
    live = {"kind": "live", "items": {"path": str(small / "items.jsonl")}, "pool": list(pool), "block": 16}
    data = {"job": "foe", "seed": 3, "experts": live, "features": {"prompt": False}}
    return FoeConfig.model_validate({**data, **changes})


class Place:
    """A run directory in which experts are asked."""

    def __init__(self, folder: Path) -> None:
        self.run, self.board = Run(str(folder)), Board()

    def collect(self, config: FoeConfig) -> Pool:
        steps = Steps(self.run, lambda: False)
        self.key = collect(config, HERE, self.run, steps, self.board)
        return Pool.read(self.run.below(f"steps/{self.key}"))

    def files(self) -> dict[str, bytes]:
        """What the pool consists of."""
        files = self.run.below(f"steps/{self.key}")
        return {name: files.read_bytes(name) for name in files.names() if name != "manifest.json"}


@pytest.mark.ray
def test_classifiers_become_a_pool(ray_session, small, tmp_path):
    place = Place(tmp_path / "run")
    pool = place.collect(
        config(small, classifier("ab", small / "ab"), classifier("linear", small / "linear"))
    )
    print(pool.about, pool.items.slice(0, 2).to_pylist(), pool.quality.mean(axis=0), place.board.view(0))
