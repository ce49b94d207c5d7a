"""From a text to what a generator is asked about it, and from what it wrote to an answer."""

from collections.abc import Sequence

import numpy as np

from actors.engines.base import Completion, Hear, Request
from actors.experts.base import Answer
from actors.steps.data import seed_of
from configs.schema.expert import GeneratorModel


def prompt_of(spec: GeneratorModel, text: str) -> str:
    """What the model is asked about a text."""
    return spec.prompt.replace("{text}", text)


def request_of(spec: GeneratorModel, name: str, seed: int, text: str) -> Request:
    """The request about a text: its seed comes from the run's, the expert's name and the text."""
    own = seed_of(seed, "answer", name, text)
    return Request(text, prompt_of(spec, text), own, label=0, round=0, index=0, ordinal=0, zero_shot=True)


class Pieces:
    """Passes on what `answer_of` will make of a text, as far as that is sure while the text is written."""

    def __init__(self, stop: Sequence[str], hear: Hear) -> None:
        self._stop, self._hear = stop, hear
        self._text = ""
        self._told = 0

    def add(self, piece: str) -> None:
        """The next piece of the text."""
        self._text += piece
        text = _until(self._text, self._stop)
        if len(text) == len(self._text):  # its end may be where a string begins that ends it
            begun = (n for s in self._stop for n in range(1, len(s)) if text.endswith(s[:n]))
            text = text[: len(text) - max(begun, default=0)]
        self._tell(text.strip())

    def end(self, text: str | None) -> None:
        """What the answer's text turned out to be; None when there is none."""
        self._tell(text or "")

    def _tell(self, text: str) -> None:
        if len(text) > self._told:
            self._hear(text[self._told :])
            self._told = len(text)


def answer_of(spec: GeneratorModel, completion: Completion, vector: np.ndarray | None) -> Answer:
    """The answer in a completion, without the string that ended it."""
    if completion.error:
        return Answer(error=completion.error)
    if vector is not None and not np.isfinite(vector).all():
        return Answer(error="the model's states are not numbers")
    text = _until(completion.text, spec.sampling.stop).strip()
    return Answer(vector, text, completion.prompt_tokens, completion.completion_tokens)


def _until(text: str, stop: Sequence[str]) -> str:
    """A text up to the first of the strings that end it."""
    for string in stop:
        text = text.partition(string)[0]
    return text
