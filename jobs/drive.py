"""Starts a coordinator, follows it until the end, and starts it again when its process dies."""

from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError, RayError, RayTaskError

from actors import coordinator
from actors.steps.runner import StepError, StoppedError
from cluster.session import Session
from cluster.storage import ResumeError, StorageError
from configs.schema.fusegen import FusegenConfig
from jobs.progress import Progress

REFRESH_S = 0.5
STOP_S = 20.0
CRASHES = 5


class JobError(Exception):
    """A job that failed after it had started; the message says which step and why."""


def drive(uri: str, config: FusegenConfig, session: Session) -> dict[str, Any]:
    """Run the job to its end and return its summary; JobError, or KeyboardInterrupt when stopped."""
    start = partial(coordinator.start, uri, config, session)
    try:
        with Progress(uri) as progress:
            return _follow(start, progress)
    finally:
        coordinator.end(uri, config)
        if session.local:
            ray.shutdown()


def _follow(start: Callable[[], ActorHandle], progress: Progress) -> dict[str, Any]:
    crashes, actor = 0, start()
    running = actor.run.remote()
    while True:
        try:
            ready, _ = ray.wait([running], timeout=REFRESH_S)
            progress.show(ray.get(actor.view.remote(progress.seen), timeout=STOP_S))
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
            running = actor.run.remote()
        except RayError as error:
            raise JobError(_line(error)) from error


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
