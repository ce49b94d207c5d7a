"""What all jobs of the Python interface share: a configuration to run, and what a run left."""

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from os import PathLike, fspath
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from rich.console import Console

from actors.status import status_of
from cluster.storage import Run
from configs.load import resolve
from configs.schema.base import ConfigError, Strict
from jobs import report

C = TypeVar("C", bound=Strict)


class Result(ABC):
    """What a finished run left in its directory. `print` shows the table of the command line."""

    job: ClassVar[str]

    def __init__(self, run: str | PathLike[str]) -> None:
        """Read the run in a directory or URI; ConfigError when there is none of this kind that is done."""
        self.run = Run(fspath(run))
        if not self.run.exists("run.json"):
            raise ConfigError(f"{self.run.uri}: not a run directory (it has no run.json)")
        job = self.run.read_json("run.json")["config"]["job"]
        if job != self.job:
            raise ConfigError(f"{self.run.uri}: is a run of jobs {job}, one of jobs {self.job} is needed")
        if status_of(self.run) != "done":
            raise ConfigError(f"{self.run.uri}: not finished; run the job again to go on")
        self.summary: dict[str, Any] = self.run.read_json("summary.json")
        """`summary.json`; its keys are those of docs/reference/results.md."""

    @property
    def path(self) -> str:
        """The run directory or URI."""
        return self.run.uri

    @cached_property
    def report(self) -> str:
        """Path of `report.html`."""
        there = self.run.exists(report.PAGE)
        return self.run.below(report.PAGE).uri if there else report.write(self.run.uri, None)

    @abstractmethod
    def __str__(self) -> str: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"


R = TypeVar("R", bound=Result)


class Work(Protocol):
    """What the module of a job has, which the command line uses too."""

    def prepare(self, config: Any, path: str, run: str | None, *, start_over: bool) -> str:  # noqa: ANN401
        """Check everything that a configuration names, and open the run directory; its URI."""
        ...

    def conduct(self, uri: str, config: Any, address: str, console: Console | None) -> dict[str, Any]:  # noqa: ANN401
        """Run the job in its directory, and return its summary; JobError when it fails."""
        ...


class Job(ABC, Generic[C, R]):
    """A job that is configured, and not started yet.

    `config` is a YAML file, a mapping or a configuration object; keywords replace values of it, `key__sub`
    those further down. `run` is the run directory or URI (`runs/NAME` otherwise), `address` the Ray cluster
    (`auto`, `local` or `host:port`). ConfigError, in one line, for what is wrong.
    """

    schema: ClassVar[type[Strict]]
    result: ClassVar[type[Result]]
    work: ClassVar[Work]

    def __init__(
        self,
        config: str | PathLike[str] | Mapping[str, Any] | C | None = None,
        *,
        run: str | PathLike[str] | None = None,
        address: str = "auto",
        **changes: Any,  # noqa: ANN401
    ) -> None:
        self.origin = fspath(config) if isinstance(config, str | PathLike) else type(self).__name__
        given = {"job": self.result.job, **(config or {})} if isinstance(config, Mapping | None) else config
        self.config: C = resolve(given, self.schema, changes)  # type: ignore[assignment]
        self.place = None if run is None else fspath(run)
        self.address = address

    @abstractmethod
    def plan(self) -> str:
        """What the job will need; nothing is started."""

    def run(self, *, fresh: bool = False, progress: bool = True) -> R:
        """Do what is not done yet, and return what the run has left; at once where it is finished.

        `fresh` starts over under a new name. JobError when the job fails: run it again to go on from there.
        ConfigError, ResumeError and SessionError before anything is started.
        """
        uri = self.work.prepare(self.config, self.origin, self.place, start_over=fresh)
        if status_of(Run(uri)) != "done":
            console = None if progress else Console(file=io.StringIO())
            self.work.conduct(uri, self.config, self.address, console)
            report.write(uri, None)
        return self.result(uri)  # type: ignore[return-value]
