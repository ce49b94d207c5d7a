"""Calls of one expert: in time, tried again where it may help, and not at all while it keeps failing."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException

from actors.engines.base import EngineError
from actors.experts.base import Answer
from configs.schema.serve import Circuit, Service

Ask = Callable[[Sequence[str]], Awaitable[list[Answer]]]
Tell = Callable[[str], AsyncIterator[str | Answer]]
"""Pieces of the answer to a text as they are written, and then the answer."""
Clock = Callable[[], float]
PAUSE_S = 0.05
"""Before the first further try; twice as long before each later one."""


class CallError(Exception):
    """An expert that did not answer; the message says why."""


@dataclass
class Breaker:
    """Opens after so many failures in a row, and lets one call try again after a while."""

    circuit: Circuit
    clock: Clock = time.monotonic
    failures: int = 0
    opened: float | None = field(default=None)
    trying: bool = False

    @property
    def closed(self) -> bool:
        """Whether the expert may be asked."""
        if self.opened is None:
            return True
        return not self.trying and self.clock() - self.opened >= self.circuit.cool_down_s

    def begin(self) -> None:
        """A call begins; while the circuit is open it is the one that tries."""
        self.trying = self.opened is not None

    def end(self, *, good: bool | None) -> None:
        """A call ended; None: in a way that says nothing about the expert."""
        self.trying = False
        if good is None:
            return
        self.failures = 0 if good else self.failures + 1
        if good:
            self.opened = None
        elif self.failures >= self.circuit.failures:
            self.opened = self.clock()


class Caller:
    """One expert, as the router asks it."""

    def __init__(
        self, name: str, ask: Ask, service: Service, breaker: Breaker, tell: Tell | None = None
    ) -> None:
        self.name, self.ask, self.service, self.breaker, self.tell = name, ask, service, breaker, tell

    @property
    def available(self) -> bool:
        """Whether it may be asked."""
        return self.breaker.closed

    async def __call__(self, texts: Sequence[str], until: float) -> list[Answer]:
        """Its answers, in order; those of texts that it cannot answer have errors.

        CallError when it does not answer at all until `until` (of `time.monotonic`), or in its own time.
        """
        problem = "no time was left" if self.available else "its circuit is open"
        for attempt in range(1 + self.service.retries):
            left = until - time.monotonic() - (PAUSE_S * 2 ** (attempt - 1) if attempt else 0)
            if not self.breaker.closed or left <= 0:
                break
            if attempt:
                await asyncio.sleep(PAUSE_S * 2 ** (attempt - 1))
            try:
                async with self._watched(left) as result, asyncio.timeout(min(left, self.service.timeout_s)):
                    answers = await self.ask(texts)
                    result.good = not all(answer.error for answer in answers)
                    return answers
            except CallError as error:
                problem = str(error)
        raise CallError(problem)

    async def told(self, text: str, until: float) -> AsyncIterator[str | Answer]:
        """The pieces of its answer to one text as they are written, and then the answer; not tried again.

        CallError as above, each piece being waited for as for an answer, or when it breaks off.
        """
        if self.tell is None:
            (answer,) = await self([text], until)
            yield answer
            return
        if not self.available:
            raise CallError("its circuit is open")
        told = aiter(self.tell(text))
        said: str | Answer | None = None
        while not isinstance(said, Answer):
            left = until - time.monotonic()
            if left <= 0:
                raise CallError("no time was left")
            async with self._watched(left) as result, asyncio.timeout(min(left, self.service.timeout_s)):
                said = await anext(told)
                result.good = None if isinstance(said, str) else said.error is None
            yield said

    @asynccontextmanager
    async def _watched(self, left: float) -> AsyncIterator[SimpleNamespace]:
        """Note in the circuit how a call goes, of which the body sets `good`; CallError when it fails."""
        self.breaker.begin()
        result = SimpleNamespace(good=None)
        try:
            yield result
        except TimeoutError:
            # A request in a hurry says nothing about the expert.
            result.good = False if left >= self.service.timeout_s else None
            raise CallError(f"no answer within {min(left, self.service.timeout_s):.3g} s") from None
        except BackPressureError:
            raise CallError("it has too much to do") from None
        except (RayError, RayServeException) as error:
            result.good = False
            raise CallError(_reason(error)) from None
        finally:  # also when the client has gone
            self.breaker.end(good=result.good)


def _reason(error: Exception) -> str:
    """What went wrong, in one line without Ray's traceback."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, EngineError):
        return str(error.cause)
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
