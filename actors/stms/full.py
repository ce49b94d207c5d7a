"""`full`: any Hugging Face sequence classifier, fine-tuned."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification

from actors.stms.base import Classifier, FloatArray, IntArray, check_finite, softmax
from actors.stms.finetuned import EVAL_BATCH, FineTuned, seen_by
from actors.stms.tokens import Tokens
from configs.schema.stm import FullStm


class FullModel(FineTuned[Tokens, FullStm], Classifier[Tokens, FullStm]):
    """A fine-tuned transformer with a classification head."""

    kind = "full"
    auto = AutoModelForSequenceClassification

    def encode(self, texts: Sequence[str], *, learn: bool = False) -> Tokens:
        """Tokenise; `learn` cuts texts to the training length, otherwise the prediction length holds."""
        length = self.spec.max_length
        return Tokens.of(texts, self._tokenizer, length if learn else self.spec.eval_max_length or length)

    def _settings(self) -> dict[str, Any]:
        names = dict(enumerate(self.labels))
        return {"id2label": names, "label2id": {label: index for index, label in names.items()}}

    def _losses(self, encoded: Tokens, batch: IntArray, targets: torch.Tensor) -> torch.Tensor:
        return cross_entropy(self._logits(encoded, batch), targets, reduction="none")

    def _logits(self, encoded: Tokens, batch: IntArray) -> torch.Tensor:
        with self._autocast():
            logits: torch.Tensor = self._model(**encoded.padded(batch, self._device)).logits
        return logits.float()

    def predict_proba(self, encoded: Tokens) -> FloatArray:
        """Return (n, C) class probabilities."""
        logits = np.zeros((len(encoded), len(self.labels)))
        with torch.inference_mode():
            for batch in encoded.by_length(EVAL_BATCH):
                logits[batch] = self._logits(encoded, batch).cpu().numpy()
        check_finite(logits, "logits")
        return softmax(logits)

    def features(self, encoded: Tokens) -> FloatArray:
        """Return what the classification head's last layer reads (n, d); W h + b to bfloat16's precision."""
        layer = self._last_linear(len(self.labels))
        rows = np.zeros((len(encoded), layer.in_features))
        with seen_by(layer) as seen, torch.inference_mode():
            for batch in encoded.by_length(EVAL_BATCH):
                self._logits(encoded, batch)
                rows[batch] = seen.pop().float().cpu().numpy()
        check_finite(rows, "features")
        return rows

    def last_layer(self) -> tuple[FloatArray, FloatArray]:
        """Return W (C, d) and b (C,)."""
        layer = self._last_linear(len(self.labels))
        weight = layer.weight.detach().double().cpu().numpy()
        bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().cpu().numpy()
        return weight, bias

    def probe(self, encoded: Tokens) -> tuple[torch.nn.Module, Callable[[IntArray], torch.Tensor]]:
        """Return a float32 copy of the network; its attention can be differentiated twice."""
        network = self._twice_differentiable()
        return network, lambda indices: network(**encoded.padded(indices, self._device)).logits
