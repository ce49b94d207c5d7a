"""Texts of several requests that come while a model works are answered together when it is free again.

Nobody waits for others to come: a text that finds the model free is answered at once. A model works in a
thread, so that its process can be reached meanwhile; one whose answers take less than a change of threads
works on the event loop.
"""

import asyncio
from collections.abc import Callable, Sequence

from actors.experts.base import Answer

Model = Callable[[Sequence[str]], list[Answer]]


class Batches:
    """Calls of one model, of up to `size` texts each."""

    def __init__(self, model: Model, size: int, *, threaded: bool = True) -> None:
        self.model, self.size, self.threaded = model, size, threaded
        self._waiting: list[tuple[str, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    async def answer(self, texts: Sequence[str]) -> list[Answer]:
        """Answers, in order."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answer]] = [loop.create_future() for _ in texts]
        self._waiting += zip(texts, futures, strict=True)
        if self._task is None:
            self._task = loop.create_task(self._work())  # behind whoever has come by then
        return [await future for future in futures]

    async def _work(self) -> None:
        """Answer those who have waited longest, and then those who have come meanwhile."""
        try:
            while some := self._next():
                try:
                    answers = await self._answered([text for text, _ in some])
                except Exception as error:  # a process boundary: those who wait must hear of it
                    for _, future in some:
                        _end(future, error)
                    continue
                for (_, future), answer in zip(some, answers, strict=True):
                    _end(future, answer)
        finally:
            self._task = None

    def _next(self) -> list[tuple[str, asyncio.Future[Answer]]]:
        """Up to `size` of those who still wait."""
        waiting = [(text, future) for text, future in self._waiting if not future.done()]
        some, self._waiting = waiting[: self.size], waiting[self.size :]
        return some

    async def _answered(self, texts: list[str]) -> list[Answer]:
        if self.threaded:
            return await asyncio.to_thread(self.model, texts)
        answers = self.model(texts)
        if self._waiting:
            await asyncio.sleep(0)  # others may come
        return answers


def _end(future: asyncio.Future[Answer], ending: Answer | Exception) -> None:
    if future.done():  # who asked has left
        return
    if isinstance(ending, Exception):
        future.set_exception(ending)
    else:
        future.set_result(ending)
