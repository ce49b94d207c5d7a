"""Generators behind a URL. They show no states: the encoder of texts gives their answers' vectors."""

from collections.abc import Sequence
from concurrent.futures import Future

from actors.engines.base import Hear
from actors.engines.openai import Openai
from actors.experts.base import Answer
from actors.experts.prompting import Pieces, answer_of, request_of
from configs.schema.expert import GeneratorModel
from configs.schema.plm import OpenaiEngine


class RemoteGenerator:
    """A language model behind a URL; seeds come from the run, the expert and the text."""

    def __init__(self, spec: GeneratorModel, engine: OpenaiEngine, name: str, seed: int) -> None:
        """Get ready to ask; `EngineError` in one line when that cannot work."""
        self._spec, self._name, self._seed = spec, name, seed
        self._engine = Openai(engine)
        self.close = self._engine.close

    def answer(self, texts: Sequence[str]) -> list[Answer]:
        """Have an answer written to each text, many at a time; one that fails gets an error."""
        return self.submit(texts).result()

    def submit(self, texts: Sequence[str]) -> Future[list[Answer]]:
        """The same without waiting; cancelling it ends the requests."""
        return self._engine.portal.start_task_soon(self._answers, list(texts))

    def stream(self, text: str, hear: Hear) -> Future[Answer]:
        """The answer to one text; what is heard is that answer's text, in pieces."""
        return self._engine.portal.start_task_soon(self._told, text, hear)

    async def _told(self, text: str, hear: Hear) -> Answer:
        request = request_of(self._spec, self._name, self._seed, text)
        pieces = Pieces(self._spec.sampling.stop, hear)
        written = await self._engine.stream(request, self._spec.sampling, pieces.add)
        answer = answer_of(self._spec, written, None)
        pieces.end(answer.text)
        return answer

    async def _answers(self, texts: list[str]) -> list[Answer]:
        requests = [request_of(self._spec, self._name, self._seed, text) for text in texts]
        written = await self._engine.write(requests, self._spec.sampling)
        return [answer_of(self._spec, completion, None) for completion in written]

    def describe(self) -> dict[str, str]:
        """Return what the engine says of itself."""
        return {**self._engine.describe(), "kind": "generator"}
