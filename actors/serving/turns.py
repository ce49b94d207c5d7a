"""Whose turn it is: a process works on so many requests at a time, and no other waits for longer than it may.

Under overload, a queue in which each request waits as long as it may ends with answers for nobody: one that
would not be answered in its time, by how long those before it took, is refused at once.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors.serving.calls import Clock

SURE = 0.8
"""Share of its time within which a request is to be answered by what is usual, as not all take the same."""
NEWEST = 0.1
"""Share of the newest request in how long requests usually take."""


class BusyError(Exception):
    """There is too much to do; `retry_after_s` says when there may be less."""

    def __init__(self, why: str, retry_after_s: float) -> None:
        super().__init__(why)
        self.retry_after_s = max(1, math.ceil(retry_after_s))


class Turns:
    """Turns of one process: of `size` requests at a time, for which `most` others may wait."""

    def __init__(self, size: int, most: int, clock: Clock = time.monotonic) -> None:
        self._size, self._most, self._clock = size, most, clock
        self._free = asyncio.Semaphore(size)
        self._waiting = 0
        self._usual = 0.0

    @asynccontextmanager
    async def turn(self, until: float) -> AsyncIterator[None]:
        """Wait for a turn of one that must be answered `until` then, by the clock. BusyError where it has
        none in time, mostly at once."""
        if self._free.locked():
            await self._wait(until - self._clock())
        else:
            await self._free.acquire()
        begun, worked = self._clock(), False
        try:
            yield
            worked = True
        finally:
            took = self._clock() - begun
            if worked or took > self._usual:  # what fails at once says nothing of how long work takes
                self._usual += NEWEST * (took - self._usual)
            self._free.release()

    async def _wait(self, seconds: float) -> None:
        """Wait among the others."""
        before = self._usual * (self._waiting + 1) / self._size
        if self._waiting >= self._most:
            raise BusyError(f"{self._waiting} requests wait already", before)
        if before + self._usual > SURE * seconds:
            why = f"it would take {before + self._usual:.1f} s, and may take {seconds:.3g} s"
            raise BusyError(why, before + self._usual - seconds)
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._free.acquire()
        except TimeoutError:
            raise BusyError(f"its turn has not come within {seconds:.3g} s", self._usual) from None
        finally:
            self._waiting -= 1
