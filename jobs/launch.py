"""What every job does around its run: open the directory, drive the coordinator, say what failed."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from cluster.session import Session, leave
from cluster.storage import Run, file_digest, fresh
from configs import __version__
from configs.load import PACKAGE_ROOT
from configs.schema.base import ConfigError, Strict, identity
from jobs.drive import JobError, drive


def digests(files: Iterable[Path]) -> dict[str, str]:
    """Digests of local input files, by names that are the same from every working directory."""
    return {_as_configured(file): file_digest(file) for file in dict.fromkeys(files)}


def _as_configured(file: Path) -> str:
    return str(file.relative_to(PACKAGE_ROOT)) if file.is_relative_to(PACKAGE_ROOT) else str(file)


def open_run(uri: str, config: Strict, inputs: dict[str, str], *, start_over: bool) -> str:
    """The run directory, created or checked; the name it really has."""
    if start_over:
        uri = fresh(uri)
    uri = uri if "://" in uri else str(Path(uri).absolute())
    Run.open(uri, identity(config), inputs, __version__)
    return uri


def reused(uri: str) -> Run:
    """The run that `--reuse` names; ConfigError when it is none."""
    run = Run(uri)
    if not run.exists("run.json"):
        raise ConfigError(f"--reuse {uri}: not a run directory (it has no run.json)")
    return run


@contextlib.contextmanager
def left(session: Session) -> Iterator[Session]:
    """The session, which is left at the end."""
    try:
        yield session
    finally:
        leave(session)


def drive_to_end(uri: str, config: Any, session: Session, console: Console | None) -> dict[str, Any]:  # noqa: ANN401
    """Run the job and return its summary; JobError when it fails."""
    with terminated_as_interrupted():  # only now: connecting sets a handler of Ray's own
        return drive(uri, config, session, console)


@contextlib.contextmanager
def failing_by_status() -> Iterator[None]:
    """A job that fails ends the command by one line and exit status 1."""
    try:
        yield
    except JobError as error:
        sys.stderr.write(f"jobs: {error}; start the same command again to go on from there\n")
        raise typer.Exit(1) from None


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the job as Ctrl-C does, at the next committed piece of work; only main threads hear it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:  # noqa: ANN401, ARG001
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
