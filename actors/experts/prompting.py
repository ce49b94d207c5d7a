"""From a text to what a generator is asked about it, and from what it wrote to an answer."""

import numpy as np

from actors.engines.base import Completion, Request
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


def answer_of(spec: GeneratorModel, completion: Completion, vector: np.ndarray | None) -> Answer:
    """The answer in a completion, without the string that ended it."""
    if completion.error:
        return Answer(error=completion.error)
    if vector is not None and not np.isfinite(vector).all():
        return Answer(error="the model's states are not numbers")
    text = completion.text
    for string in spec.sampling.stop:
        text = text.partition(string)[0]
    return Answer(vector, text.strip(), completion.prompt_tokens, completion.completion_tokens)
