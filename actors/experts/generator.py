"""Generators: language models that write an answer, and the states that they wrote it in."""

from collections.abc import Sequence

import numpy as np

from actors.engines.base import Completion, Request
from actors.engines.hf import Transformers
from actors.experts.base import Answer
from actors.steps.data import seed_of
from configs.schema.expert import GeneratorModel


def prompt_of(spec: GeneratorModel, text: str) -> str:
    """What the model is asked about a text."""
    return spec.prompt.replace("{text}", text)


class Generator:
    """A language model of the library transformers; seeds come from the run, the expert and the text."""

    def __init__(self, spec: GeneratorModel, name: str, seed: int) -> None:
        """Load the model; `EngineError` in one line when that cannot work."""
        self._spec, self._name, self._seed = spec, name, seed
        self._engine = Transformers(spec.engine)

    def answer(self, texts: Sequence[str]) -> list[Answer]:
        """Write an answer to each text; those whose prompt does not fit the context get errors."""
        size = self._spec.batch_size
        batches = (texts[start : start + size] for start in range(0, len(texts), size))
        return [answer for batch in batches for answer in self._batch(batch)]

    def _batch(self, texts: Sequence[str]) -> list[Answer]:
        written = self._engine.written([self._request(text) for text in texts], self._spec.sampling)
        good = [place for place, (completion, _) in enumerate(written) if not completion.error]
        states = self._engine.states(
            [written[place][1] for place in good], self._spec.pooling, self._spec.batch_size
        )
        vectors = {} if states is None else dict(zip(good, states, strict=True))
        return [self._answer(completion, vectors.get(place)) for place, (completion, _) in enumerate(written)]

    def _answer(self, completion: Completion, vector: np.ndarray | None) -> Answer:
        if completion.error:
            return Answer(error=completion.error)
        if vector is not None and not np.isfinite(vector).all():
            return Answer(error="the model's states are not numbers")
        text = completion.text
        for string in self._spec.sampling.stop:
            text = text.partition(string)[0]
        return Answer(vector, text.strip(), completion.prompt_tokens, completion.completion_tokens)

    def _request(self, text: str) -> Request:
        seed = seed_of(self._seed, "answer", self._name, text)
        prompt = prompt_of(self._spec, text)
        return Request(text, prompt, seed, label=0, round=0, index=0, ordinal=0, zero_shot=True)

    def describe(self) -> dict[str, str]:
        """Return what the engine says of itself, and the pooling."""
        return {**self._engine.describe(), "kind": "generator", "pooling": self._spec.pooling}
