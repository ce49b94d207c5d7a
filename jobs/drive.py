"""Starts a coordinator, follows it until the end, and starts it again when its process dies."""

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    RayActorError,
    RayError,
    RayTaskError,
)
from rich.console import Console

from actors import coordinator
from actors.steps.runner import StepError, StoppedError
from cluster.session import Session
from cluster.storage import ResumeError, StorageError
from configs.schema.base import ConfigError
from jobs import report
from jobs.progress import Progress

REFRESH_S = 0.5
REPORT_S = 30.0
"""Least time between two reports of a run at work: drawing one takes seconds."""
STOP_S = 20.0
RESTART_S = 120.0
CRASHES = 5


class JobError(Exception):
    """A job that failed after it had started; the message says which step and why."""


class Page:
    """The report of a run at work, drawn again beside it after each round, but not all the time."""

    def __init__(self, uri: str) -> None:
        self.uri, self.round, self.drawn = uri, 0, time.monotonic()
        self.thread = threading.Thread()

    def refresh(self, view: dict[str, Any]) -> None:
        """Draw the page if a round has ended since it was drawn last."""
        due = time.monotonic() - self.drawn > REPORT_S
        if due and view["round"] > self.round and not self.thread.is_alive():
            self.round, self.drawn = view["round"], time.monotonic()
            self.thread = threading.Thread(target=self._draw, daemon=True)
            self.thread.start()

    def _draw(self) -> None:
        with contextlib.suppress(ConfigError, StorageError):  # the run goes on without a picture of it
            report.write(self.uri, None)

    def close(self) -> None:
        """Wait for the page that is being drawn: a later one must not be replaced by it."""
        if self.thread.is_alive():
            self.thread.join()


def drive(
    uri: str, config: coordinator.Config, session: Session, console: Console | None = None
) -> dict[str, Any]:
    """Run the job to its end and return its summary; JobError, or KeyboardInterrupt when stopped. Progress
    goes to `console`."""
    start = partial(coordinator.start, uri, config, session)
    page = Page(uri)
    try:
        with Progress(uri, console) as progress:
            return _follow(start, progress, page)
    finally:
        page.close()
        coordinator.end(uri, config)


def _follow(start: Callable[[], ActorHandle], progress: Progress, page: Page) -> dict[str, Any]:
    crashes, actor = 0, start()
    running = actor.run.remote()
    while True:
        try:
            ready, _ = ray.wait([running], timeout=REFRESH_S)
            view = ray.get(actor.view.remote(progress.seen), timeout=STOP_S)
            progress.show(view)
            page.refresh(view)
            if ready:
                summary: dict[str, Any] = ray.get(running)
                return summary
        except RayTaskError as error:
            raise _reason(error) from error
        except GetTimeoutError:
            continue
        except KeyboardInterrupt:
            _stop(actor, running)
            raise
        except RayActorError as error:
            crashes += 1
            if crashes > CRASHES:
                raise JobError(f"the coordinator died {crashes} times: {_line(error)}") from error
            progress.restarted()
            if isinstance(error, ActorDiedError):  # for good: another driver may have ended it
                actor = start()
            _wait_until_back(actor)
            running = actor.run.remote()
        except RayError as error:
            raise JobError(_line(error)) from error


def _wait_until_back(actor: Any) -> None:  # noqa: ANN401
    """Give a coordinator time to start again: on a busy machine that takes many seconds."""
    deadline = time.monotonic() + RESTART_S
    while time.monotonic() < deadline:
        try:
            ray.get(actor.pid.remote(), timeout=STOP_S)
        except (ActorUnavailableError, GetTimeoutError):
            time.sleep(REFRESH_S)
        except RayActorError:
            return
        else:
            return


def _reason(error: RayTaskError) -> BaseException:
    cause = error.cause if isinstance(error.cause, BaseException) else error
    if isinstance(cause, StoppedError):
        return KeyboardInterrupt()
    ours = isinstance(cause, StepError | StorageError | ResumeError)
    return JobError(_line(cause) if ours else f"{type(cause).__name__}: {_line(cause)}")


def _stop(actor: Any, running: Any) -> None:  # noqa: ANN401
    """Give the coordinator time to reach a committed piece of work."""
    try:
        ray.get(actor.stop.remote(), timeout=STOP_S)
        ray.wait([running], timeout=STOP_S)
    except (RayActorError, GetTimeoutError):
        return


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
