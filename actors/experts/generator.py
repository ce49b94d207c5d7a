"""Generators: language models that write an answer, and the states that they wrote it in."""

from collections.abc import Sequence

from actors.engines.hf import Transformers
from actors.experts.base import Answer
from actors.experts.prompting import answer_of, request_of
from configs.schema.expert import GeneratorModel
from configs.schema.plm import TransformersEngine


class Generator:
    """A language model of the library transformers; seeds come from the run, the expert and the text."""

    light = False

    def __init__(self, spec: GeneratorModel, engine: TransformersEngine, name: str, seed: int) -> None:
        """Load the model; `EngineError` in one line when that cannot work."""
        self._spec, self._name, self._seed = spec, name, seed
        self._engine = Transformers(engine)

    def answer(self, texts: Sequence[str]) -> list[Answer]:
        """Write an answer to each text; those whose prompt does not fit the context get errors."""
        size = self._spec.batch_size
        batches = (texts[start : start + size] for start in range(0, len(texts), size))
        return [answer for batch in batches for answer in self._batch(batch)]

    def _batch(self, texts: Sequence[str]) -> list[Answer]:
        requests = [request_of(self._spec, self._name, self._seed, text) for text in texts]
        written = self._engine.written(requests, self._spec.sampling)
        good = [place for place, (completion, _) in enumerate(written) if not completion.error]
        states = self._engine.states(
            [written[place][1] for place in good], self._spec.pooling, self._spec.batch_size
        )
        vectors = {} if states is None else dict(zip(good, states, strict=True))
        return [
            answer_of(self._spec, completion, vectors.get(place))
            for place, (completion, _) in enumerate(written)
        ]

    def describe(self) -> dict[str, str]:
        """Return what the engine says of itself, and the pooling."""
        return {**self._engine.describe(), "kind": "generator", "pooling": self._spec.pooling}
