"""Language models as classifiers: the probability that a model gives each label as the answer to a prompt."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from anyio.from_thread import BlockingPortal
from numpy.typing import NDArray

from actors.engines.base import EngineError, Hear
from actors.engines.likelihood import Continued
from actors.engines.texts import Texts
from actors.experts.base import Answer, Answerer, placed
from actors.stms.base import softmax
from configs.schema.expert import PromptedModel
from configs.schema.plm import VllmEngine

if TYPE_CHECKING:
    from actors.engines.hf import Transformers
    from actors.engines.vllm import Vllm

Floats = NDArray[np.float64]


def load_prompted(spec: PromptedModel, num_gpus: float, labels: Sequence[str]) -> Answerer:
    """Load a model for a task with these labels; `EngineError` in one line when that cannot work."""
    if isinstance(spec.engine, VllmEngine):
        from actors.engines.vllm import Vllm

        return RemotePrompted(spec, Vllm(spec.engine, num_gpus), labels)
    from actors.engines.hf import Transformers

    return Prompted(spec, Transformers(spec.engine), labels)


class Labels:
    """What a model is asked about a text, and the labels that it may answer, in its token ids."""

    def __init__(self, spec: PromptedModel, texts: Texts, limit: int | None, labels: Sequence[str]) -> None:
        unknown = sorted(set(spec.label_texts) - set(labels))
        if unknown:
            raise EngineError(
                f"label_texts: {unknown[0]!r} is no label of the task; allowed: {', '.join(labels)}"
            )
        self._spec, self._texts, self._limit, self._names = spec, texts, limit, labels
        space = "" if texts.chat or spec.prompt[-1:].isspace() else " "
        says = [spec.label_texts.get(name, space + name) for name in labels]
        self.ids = [texts.continuation(said) for said in says]
        self.longest = max(map(len, self.ids))
        if len({tuple(ids) for ids in self.ids}) < len(labels):
            raise EngineError("label_texts: two labels have the same text")

    def asked(self, text: str) -> list[int] | str:
        """The prompt about a text, cut to the length that is read; or what is wrong with it."""
        cut = self._texts.cut(text, self._spec.max_length)
        prompt = self._texts.ids(self._spec.prompt.replace("{text}", cut))
        if not prompt:
            return "the prompt is empty"
        if self._limit is not None and len(prompt) + self.longest > self._limit:
            return f"prompt of {len(prompt)} tokens and a label exceed the {self._limit} that the model reads"
        return prompt

    def pairs(self, prompts: Sequence[list[int]]) -> list[Continued]:
        """Every prompt with every label."""
        return [(prompt, label) for prompt in prompts for label in self.ids]

    def answers(self, asked: Sequence[list[int] | str], scores: Floats, neutral: Floats) -> list[Answer]:
        """Answers, given the log-probabilities (n * C,) of all labels after the prompts that are right."""
        logits = (scores.reshape(-1, len(self.ids)) - neutral) / self._spec.temperature
        read = np.array([len(prompt) for prompt in asked if not isinstance(prompt, str)])
        good = iter(placed(softmax(logits), np.arange(len(self.ids)), self._names, read))
        return [Answer(error=prompt) if isinstance(prompt, str) else next(good) for prompt in asked]

    def neutral(self, score: Callable[[list[Continued]], Floats]) -> Floats:
        """The log-probabilities (C,) of labels after the text that says nothing; 0 where there is none."""
        if self._spec.neutral is None:
            return np.zeros(len(self.ids))
        prompt = self.asked(self._spec.neutral)
        if isinstance(prompt, str):
            raise EngineError(f"neutral: {prompt}")
        return score(self.pairs([prompt]))


class Prompted:
    """A language model of the library transformers."""

    light = False

    def __init__(self, spec: PromptedModel, engine: "Transformers", labels: Sequence[str]) -> None:
        """Get ready for a task; `EngineError` in one line when that cannot work."""
        self._spec, self._engine = spec, engine
        self._labels = Labels(spec, engine.texts, engine.limit, labels)
        self._neutral = self._labels.neutral(self._scores)

    def answer(self, texts: Sequence[str]) -> list[Answer]:
        """Probabilities of the task's labels; texts whose prompt does not fit the context get errors."""
        asked = [self._labels.asked(text) for text in texts]
        right = [prompt for prompt in asked if not isinstance(prompt, str)]
        return self._labels.answers(asked, self._scores(self._labels.pairs(right)), self._neutral)

    def _scores(self, pairs: list[Continued]) -> Floats:
        return self._engine.likelihoods(pairs, self._labels.longest, self._spec.batch_size)

    def describe(self) -> dict[str, str]:
        """Return what the engine says of itself."""
        return {**self._engine.describe(), "kind": "prompted"}


class RemotePrompted:
    """The same of a model that vLLM runs: texts are answered side by side."""

    light = False

    def __init__(self, spec: PromptedModel, engine: "Vllm", labels: Sequence[str]) -> None:
        """As of `Prompted`."""
        self._engine, self.close = engine, engine.close
        self._portal: BlockingPortal = engine.portal
        self._labels = Labels(spec, engine.texts, engine.limit - 1, labels)  # vLLM writes a token more
        self._neutral = self._labels.neutral(lambda pairs: self._portal.call(engine.likelihoods, pairs))

    def answer(self, texts: Sequence[str]) -> list[Answer]:
        """As of `Prompted`."""
        return self._portal.call(self._answers, texts)

    async def reply(self, texts: Sequence[str]) -> list[Answer]:
        """The same on an event loop; cancelling it ends the requests."""
        return await self._engine.run(self._answers, texts)

    async def tell(self, text: str, hear: Hear) -> Answer:  # noqa: ARG002 - probabilities come at once
        """The answer to one text."""
        (answer,) = await self.reply([text])
        return answer

    async def _answers(self, texts: Sequence[str]) -> list[Answer]:
        asked = [self._labels.asked(text) for text in texts]
        right = [prompt for prompt in asked if not isinstance(prompt, str)]
        scores = await self._engine.likelihoods(self._labels.pairs(right))
        return self._labels.answers(asked, scores, self._neutral)

    def describe(self) -> dict[str, str]:
        """Return what the engine says of itself."""
        return {**self._engine.describe(), "kind": "prompted"}
