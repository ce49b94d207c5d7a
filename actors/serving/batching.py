"""Texts of several requests that come while a model works are answered together when it is free again.

Nobody waits for others to come: a text that finds the model free is answered at once. The model runs on the
event loop of its replica, which Serve keeps apart from the replica's own.
"""

import asyncio
from collections.abc import Callable, Sequence

from actors.experts.base import Answer

Model = Callable[[Sequence[str]], list[Answer]]


class Batches:
    """Calls of one model, of up to `size` texts each."""

    def __init__(self, model: Model, size: int) -> None:
        self.model, self.size = model, size
        self._waiting: list[tuple[str, asyncio.Future[Answer]]] = []

    async def answer(self, texts: Sequence[str]) -> list[Answer]:
        """Answers, in order."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answer]] = [loop.create_future() for _ in texts]
        if not self._waiting:
            loop.call_soon(self._work)  # behind whoever has come by then
        self._waiting += zip(texts, futures, strict=True)
        return [await future for future in futures]

    def _work(self) -> None:
        """Answer those who have waited longest, and let others come."""
        self._waiting = [(text, future) for text, future in self._waiting if not future.done()]
        some, self._waiting = self._waiting[: self.size], self._waiting[self.size :]
        if not some:
            return
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._work)
        try:
            answers = self.model([text for text, _ in some])
        except Exception as error:  # a process boundary: those who wait must hear of it
            for _, future in some:
                future.set_exception(error)
            return
        for (_, future), answer in zip(some, answers, strict=True):
            future.set_result(answer)
