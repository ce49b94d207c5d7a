"""Blocks that one process works on side by side: whose time it is, and which must be alone."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Overlap:
    """Lets blocks overlap, and gives each an equal share of the time in which they do."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._changed, self._clock = threading.Condition(), clock
        self._working = self._lonely = 0
        self._alone = False
        self._share, self._seen = 0.0, clock()

    @contextmanager
    def block(self, *, alone: bool) -> Iterator[Callable[[], float]]:
        """Work on a block, with no other at the same time if `alone`; yields its seconds so far."""
        with self._changed:
            self._lonely += alone
            self._changed.wait_for(lambda: not (self._alone or (self._working if alone else self._lonely)))
            self._lonely -= alone
            self._alone = alone
            self._count(1)
            begun = self._share
        try:
            yield lambda: self._now() - begun
        finally:
            with self._changed:
                self._count(-1)
                self._alone = False
                self._changed.notify_all()

    def _now(self) -> float:
        with self._changed:
            self._count(0)
            return self._share

    def _count(self, more: int) -> None:
        """Advance the time that each block at work has had, before their number changes."""
        now = self._clock()
        if self._working:
            self._share += (now - self._seen) / self._working
        self._seen = now
        self._working += more
