"""Generators whose requests are in work side by side: behind a URL, or in vLLM's batch.

They show no states: the encoder of texts gives their answers' vectors.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from anyio.from_thread import BlockingPortal

from actors.engines.base import Completion, Engine, Hear, Request
from actors.experts.base import Answer
from actors.experts.prompting import Pieces, answer_of, request_of
from configs.schema.expert import GeneratorModel
from configs.schema.plm import Sampling

Found = TypeVar("Found")


class AsyncEngine(Engine, Protocol):
    """An engine that answers requests side by side, on event loops."""

    portal: BlockingPortal
    """Runs coroutines of the engine for callers without an event loop."""
    close: Callable[[], Any]
    """Ends what it holds."""

    async def run(self, task: Callable[..., Awaitable[Found]], *args: Any) -> Found:  # noqa: ANN401
        """Await what asks the engine, for a caller on any event loop."""
        ...

    async def write(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """As `generate`, within `run` or `portal`."""
        ...

    async def stream(self, request: Request, sampling: Sampling, hear: Hear) -> Completion:
        """As `write` for one request, and `hear` gets the text piece by piece."""
        ...


class RemoteGenerator:
    """A language model that works elsewhere; seeds come from the run, the expert and the text."""

    light = False

    def __init__(self, spec: GeneratorModel, engine: AsyncEngine, name: str, seed: int) -> None:
        self._spec, self._name, self._seed = spec, name, seed
        self._engine = engine
        self.close = engine.close

    def answer(self, texts: Sequence[str]) -> list[Answer]:
        """Have an answer written to each text, many at a time; one that fails gets an error."""
        return self._engine.portal.call(self._answers, texts)

    async def reply(self, texts: Sequence[str]) -> list[Answer]:
        """The same on an event loop; cancelling it ends the requests."""
        return await self._engine.run(self._answers, texts)

    async def tell(self, text: str, hear: Hear) -> Answer:
        """The answer to one text; what is heard is that answer's text, in pieces."""
        return await self._engine.run(self._told, text, hear)

    async def _told(self, text: str, hear: Hear) -> Answer:
        request = request_of(self._spec, self._name, self._seed, text)
        pieces = Pieces(self._spec.sampling.stop, hear)
        written = await self._engine.stream(request, self._spec.sampling, pieces.add)
        answer = answer_of(self._spec, written, None)
        pieces.end(answer.text)
        return answer

    async def _answers(self, texts: Sequence[str]) -> list[Answer]:
        requests = [request_of(self._spec, self._name, self._seed, text) for text in texts]
        written = await self._engine.write(requests, self._spec.sampling)
        return [answer_of(self._spec, completion, None) for completion in written]

    def describe(self) -> dict[str, str]:
        """Return what the engine says of itself."""
        return {**self._engine.describe(), "kind": "generator"}
