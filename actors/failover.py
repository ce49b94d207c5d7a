"""How callers outlive the deaths of the processes they call.

Two halves. The caller repeats a call until a deadline, whatever kills the process in between. The called
process keeps a journal beside itself of what it is working on, and so knows after a restart what it died
on: a block that killed it three times is given up instead of killing it for ever. Counting on the called side
tells the guilty block from those that waited behind it, and a request from a node that went away.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TypeVar

from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    PendingCallsLimitExceeded,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from actors.engines.base import DeviceLostError, EngineError

T = TypeVar("T")

PASSING = (
    ActorUnavailableError,
    PendingCallsLimitExceeded,
    WorkerCrashedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
)
LONGEST_DELAY_S = 5.0
MAX_CRASHES = 3
"""Deaths on one block before it is given up: two may be chance, killed from outside."""


class ExpertError(Exception):
    """A model process that did not answer; the message is one line."""


class LostError(ExpertError):
    """A model process that died, or is of no use any more."""


class LateError(LostError):
    """A model process that did not answer in time."""


async def call_with_failover(
    call: Callable[[], Awaitable[T]], *, deadline_s: float, first_delay_s: float = 0.2
) -> T:
    """The answer of `call`, repeated while its process restarts, moves or is full.

    `call` must be idempotent: it may have run before it failed. `EngineError` when the engine cannot work
    as configured; `ExpertError` after `deadline_s` seconds, when the process will not come back, or when the
    call itself raised.
    """
    delay, seen = first_delay_s, "still starting or busy"
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                try:
                    return await call()
                except PASSING as error:
                    seen = reason(error)
                except RayError as error:
                    if isinstance(error, RayTaskError) and isinstance(error.cause, EngineError):
                        raise error.cause from None
                    raise ExpertError(reason(error)) from None
                await asyncio.sleep(delay)
                delay = min(delay * 2, LONGEST_DELAY_S)
    except TimeoutError:
        raise LateError(f"no answer within {deadline_s:g} s: {seen}") from None


def reason(error: BaseException) -> str:
    """What went wrong, in one line: the error's own message without Ray's traceback."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, ActorDiedError):
        return lines[-1]
    return lines[0]


class CrashJournal:
    """Counts how often a process died on a piece of work, in a folder that outlives the process."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, private to one actor; it is made when the first piece of work begins."""
        self._folder = folder
        self._changing = Lock()

    def crashes(self, work: str) -> int:
        """How many times `work` (a name that can be a file name) was begun and never ended."""
        try:
            return int((self._folder / work).read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0

    @contextmanager
    def working_on(self, work: str) -> Iterator[None]:
        """Mark `work` as begun; leaving the block, by an exception too, clears its count."""
        with self._changing:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / work).write_text(str(self.crashes(work) + 1), encoding="ascii")
        try:
            yield
        finally:
            with self._changing:
                (self._folder / work).unlink(missing_ok=True)
                if not any(self._folder.iterdir()):
                    self._folder.rmdir()


def guarded(journal: CrashJournal, work: str, act: Callable[[], T], limit: int = MAX_CRASHES) -> T:
    """What `act` returns; `ExpertError` when it raises, `LostError` when `work` killed the process `limit`
    times. An `EngineError` says that no work can be done, and stays one."""
    # The count stays after giving up: the next block may kill the process before this answer is through.
    if journal.crashes(work) >= limit:
        raise LostError(f"gave up: the process died {limit} time{'s' * (limit > 1)} on this block")
    with journal.working_on(work):
        try:
            return act()
        except DeviceLostError:
            # Only a new process helps; leaving without clean-up keeps the journal's entry.
            os._exit(1)
        except EngineError:
            raise
        except Exception as error:  # a process boundary: a bad block must not end the run
            raise ExpertError(f"{type(error).__name__}: {reason(error)}") from None
