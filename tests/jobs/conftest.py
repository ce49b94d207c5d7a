"""The small corpus, the command line as a person uses it, and jobs run in place."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster.storage import Run
from configs.schema.base import identity
from configs.schema.fusegen import FusegenConfig
from tests import corpus

ROOT = Path(__file__).parents[2]
TIMES = {"seconds", "tokens_per_second", "wall_seconds"}


class CommandLine:
    """`python -m jobs …` in the repository root."""

    def start(
        self, *arguments: object, on_interrupt: signal.Handlers = signal.SIG_DFL
    ) -> subprocess.Popen[str]:
        """Start a command, in which Ctrl-C is ignored or not."""
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Where the tests run in the background, their children ignore Ctrl-C unless told otherwise.
            preexec_fn=lambda: signal.signal(signal.SIGINT, on_interrupt),  # noqa: PLW1509
        )

    def __call__(self, *arguments: object, timeout: float = 500) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="session")
def jobs() -> CommandLine:
    """The command line."""
    return CommandLine()


@pytest.fixture(scope="session")
def tiny(once) -> Path:
    """A folder of `corpus.write`."""
    return once("corpus", corpus.write)


@pytest.fixture(scope="session")
def address(ray_session) -> str:
    """The address of the Ray cluster that all tests share."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


@pytest.fixture(scope="session")
def finished(tiny, jobs, address, once) -> Path:
    """The directory of the small job, run by the command line without disturbance."""
    return once("finished", lambda run: undisturbed(jobs, tiny / "job.yaml", address, run))


@pytest.fixture(scope="session")
def quick(tiny, jobs, address, once) -> Path:
    """The same of the job that trains no transformer."""
    return once("quick", lambda run: undisturbed(jobs, tiny / "quick.yaml", address, run))


def undisturbed(jobs: CommandLine, config: Path, address: str, run: Path) -> None:
    """Run a job to its end."""
    done = jobs("fusegen", config, "--run", run, "--address", address)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def command(capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: its exit status, and what it said and complained of."""
    from jobs.__main__ import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["jobs", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
        said = capsys.readouterr()
        return int(done.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def here(ray_session, monkeypatch, command) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same on the cluster that this process is connected to already: workers that have loaded what they
    need are used again, where a command in a process of its own has ten new ones started."""
    from cluster.session import Session
    from jobs import fusegen

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(fusegen, "connect", lambda address: Session(local=False, cpus=0, gpus=0))
        return subprocess.CompletedProcess(arguments, *command(*arguments))

    return run


class Conducted:
    """A run directory and what its job returned."""

    def __init__(self, folder: Path, summary: dict[str, Any]) -> None:
        self.folder, self.summary = folder, summary
        self.run = Run(str(folder))

    def steps(self, name: str) -> list[str]:
        """Keys of the steps whose name contains `name`."""
        return [key for key in self.run.names("steps") if name in key.rpartition("-")[0]]

    def dataset(self) -> list[dict[str, Any]]:
        """Rows of the published data set."""
        rows: list[dict[str, Any]] = pq.read_table(self.folder / "dataset/train.parquet").to_pylist()
        return rows

    def records(self, key: str) -> list[dict[str, Any]]:
        """Records of a filter step."""
        rows: list[dict[str, Any]] = self.run.read_table(f"steps/{key}/records.parquet").to_pylist()
        return rows

    def shots(self, key: str) -> dict[str, list[list[str]]]:
        """Ids of the shots of a selection, by PLM and label."""
        shots = self.run.read_json(f"steps/{key}/feedback.json")["shots"]
        return {plm: [[shot["id"] for shot in of] for of in labels] for plm, labels in shots.items()}


def coordinated(tiny: Path, uri: str, **changes: Any) -> dict[str, Any]:
    """The summary of the small job, with changes, by a coordinator in this process; its final model is
    `linear`."""
    from actors.coordinator import Coordinator
    from cluster.session import Session
    from configs.load import _expand

    data = corpus.config(tiny, **{"stm": {"rounds": corpus.LINEAR, "final": corpus.LINEAR}, **changes})
    _expand(data, "test", "task")
    config = FusegenConfig.model_validate(data)
    Run.open(uri, identity(config), {}, "0")
    return Coordinator(uri, config, Session(local=False, cpus=0, gpus=0)).run()


@pytest.fixture
def conduct(ray_session, tiny, tmp_path) -> Iterator[Callable[..., Conducted]]:
    """Runs the small job by `coordinated`, in a folder of a name."""

    def run(name: str = "run", **changes: Any) -> Conducted:
        folder = tmp_path / name
        return Conducted(folder, coordinated(tiny, str(folder), **changes))

    yield run


def results(folder: Path) -> dict[str, bytes]:
    """Everything of a run that must be the same every time, by path: data set, model, weights, summary."""
    paths = [*folder.glob("dataset/*"), *folder.glob("stm/*"), *folder.glob("steps/*/weights.parquet")]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    assert {"dataset/train.parquet", "stm/model.safetensors"} <= set(files)
    assert any("weights.parquet" in name for name in files)
    summary = timeless(json.loads((folder / "summary.json").read_text()))
    return {**files, "summary": json.dumps(summary).encode()}


def timeless(value: Any) -> Any:
    """A JSON value without what measures time."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def ids_of_chains(folder: Path) -> list[list[str]]:
    """Per filter step the ids of its records."""
    return [
        pq.read_table(path, columns=["id"]).column("id").to_pylist()
        for path in sorted(folder.glob("steps/*/records.parquet"))
    ]
