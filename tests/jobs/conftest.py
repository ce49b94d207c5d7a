"""The small corpus and the command line as a person uses it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import corpus

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with `generations.parquet`, `eval.jsonl` and `job.yaml`."""
    return corpus.write(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def jobs(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python -m jobs …` from a folder that is not the repository."""
    cwd = tmp_path_factory.mktemp("cwd")

    def run(*arguments: object, timeout: float = 500) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jobs", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
