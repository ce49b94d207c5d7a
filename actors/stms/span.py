"""`span`: any Hugging Face model for extractive question answering, fine-tuned.

Texts are `context[SEP]question`, what is learnt are characters (start, end) of the context. Every token of
a context, read in windows, has two logits: for being the first of the answer, and the last. The loss of a
sample is the sum of two cross-entropies over all tokens of its context.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, log_softmax
from transformers import AutoModelForQuestionAnswering

from actors.stms.base import FloatArray, IntArray, StmError, check_finite, checked_weights
from actors.stms.finetuned import EVAL_BATCH, FineTuned, seen_by
from actors.stms.windows import MASKED, Windows, gathered
from configs.schema.stm import SpanStm
from fusion.generation.spans import best_span

ENDS = 2
"""First and last token: the outputs of the head."""


class SpanModel(FineTuned[Windows, SpanStm]):
    """A fine-tuned transformer that finds answers."""

    kind = "span"
    auto = AutoModelForQuestionAnswering

    def encode(self, texts: Sequence[str], *, learn: bool = False) -> Windows:  # noqa: ARG002
        """Tokenise into windows."""
        return Windows.of(texts, self._tokenizer, self.spec.max_length, self.spec.stride)

    def _checked(
        self, y: Sequence[Any] | IntArray, weights: FloatArray | None, n: int
    ) -> tuple[IntArray, FloatArray]:
        targets, positive = np.asarray(y, dtype=np.int64), checked_weights(weights, n)
        if targets.shape != (n, ENDS) or (targets[:, 0] >= targets[:, 1]).any() or (targets < 0).any():
            raise StmError(f"{n} texts need as many spans of at least one character")
        if not positive.any():
            raise StmError("training needs at least one text")
        return targets, positive

    def _fit(self, encoded: Windows, y: IntArray, weights: FloatArray) -> None:
        super()._fit(encoded, self.places(encoded, y), weights)

    def places(self, encoded: Windows, y: IntArray) -> IntArray:
        """First and last tokens (n, 2), among those of their contexts, of spans (n, 2) of characters."""
        places = [passage.tokens(span) for passage, span in zip(encoded.passages, y, strict=True)]
        return np.array(places, dtype=np.int64).reshape(-1, ENDS)

    def _losses(self, encoded: Windows, batch: IntArray, targets: torch.Tensor) -> torch.Tensor:
        logits = self._logits(encoded, batch)
        return (
            cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").reshape(-1, ENDS).sum(1)
        )

    def _logits(self, encoded: Windows, batch: IntArray) -> torch.Tensor:
        inputs, where = encoded.padded(batch, self._device)
        with self._autocast():
            return _of_contexts(self._model(**inputs), where)

    def predict(self, encoded: Windows) -> list[FloatArray]:
        """Of each context log-probabilities (2, T) that a token is the first and the last of the answer."""
        found: list[Any] = [None] * len(encoded)
        with torch.inference_mode():
            for batch in encoded.by_length(EVAL_BATCH):
                rows = log_softmax(self._logits(encoded, batch).double(), dim=-1).cpu().numpy()
                for i, row in zip(batch, rows, strict=True):
                    found[i] = row[:, : len(encoded.passages[i].offsets)]
                    check_finite(found[i], "log-probabilities")
        return found

    def answers(self, encoded: Windows, predicted: Sequence[FloatArray]) -> IntArray:
        """The likeliest spans (n, 2) of at most `max_answer` tokens, in characters of their contexts."""
        spans = [
            passage.characters(*best_span(row[0], row[1], self.spec.max_answer))
            for passage, row in zip(encoded.passages, predicted, strict=True)
        ]
        return np.array(spans, dtype=np.int64).reshape(-1, ENDS)

    def gradients(self, encoded: Windows, y: IntArray) -> FloatArray:
        """Gradients (n, 2, d) of both cross-entropies in the rows of the last layer: the mean state of the
        tokens of the context under the prediction, minus the state of the right one."""
        layer, places = self._last_linear(ENDS), self.places(encoded, y)
        found = np.zeros((len(encoded), ENDS, layer.in_features))
        with seen_by(layer) as seen, torch.inference_mode():
            for batch in encoded.by_length(EVAL_BATCH):
                p = log_softmax(self._logits(encoded, batch).double(), dim=-1).exp()
                states = gathered(seen.pop(), encoded.padded(batch, self._device)[1], 0.0).double()
                right = states[torch.arange(len(batch))[:, None], self._tensor(places[batch])]
                found[batch] = (p @ states - right).cpu().numpy()
        check_finite(found, "gradients")
        return found

    def probe(self, encoded: Windows) -> tuple[torch.nn.Module, Callable[[IntArray], torch.Tensor]]:
        """Return a float32 copy of the network, and its logits (m, 2, tokens)."""
        network = self._twice_differentiable()

        def logits(indices: IntArray) -> torch.Tensor:
            inputs, where = encoded.padded(indices, self._device)
            return _of_contexts(network(**inputs), where)

        return network, logits


def _of_contexts(output: Any, where: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    """Logits (m, 2, tokens) of the tokens of the contexts."""
    both = torch.stack([output.start_logits, output.end_logits], dim=-1).float()
    return gathered(both, where, MASKED).transpose(1, 2)
