"""Any Hugging Face sequence classifier as an expert.

Forward passes have fixed shapes, as those of `actors.encoder`: so not even the last bit of an answer depends
on what else is in a block.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from actors.encoder import WIDTH, fixed_batches
from actors.engines.base import DeviceLostError, EngineError
from actors.experts.base import Answer, aligned, placed
from actors.stms.base import softmax
from actors.stms.pretrained import quiet
from actors.stms.tokens import Tokens
from configs.schema.expert import ClassifierModel

ROBERTA = 2
"""Positions that models of RoBERTa's kind keep for themselves."""
UNLIMITED = 1_000_000
Floats = NDArray[np.float64]


class SequenceClassifier:
    """A transformer with a classification head."""

    light = False

    def __init__(self, spec: ClassifierModel, source: str, labels: Sequence[str]) -> None:
        """Load it onto the GPU, if this process has one."""
        self._spec, self._labels = spec, labels
        options: dict[str, Any] = {"revision": spec.revision, "trust_remote_code": False}
        self._tokenizer = AutoTokenizer.from_pretrained(source, **options)
        with quiet():
            loaded: Any = AutoModelForSequenceClassification.from_pretrained(
                source, **options, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        model, report = loaded
        missing = sorted(report["missing_keys"])
        if missing:
            raise EngineError(f"{spec.model}: {len(missing)} weights are missing, the first is {missing[0]}")
        names = [str(model.config.id2label[index]) for index in range(model.config.num_labels)]
        if len(names) < 2 or model.config.problem_type == "multi_label_classification":
            raise EngineError(f"{spec.model}: gives no probabilities of one label among several")
        try:
            self._places = aligned(names, spec.label_names, labels)
        except EngineError as error:
            raise EngineError(f"{spec.model}: {error}") from None
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.to(self._device).eval()
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        if self._model.config.pad_token_id is None:  # which is how decoders find the last token
            self._model.config.pad_token_id = self._tokenizer.pad_token_id
        self._length = min(spec.max_length, _limit(self._tokenizer, model.config))

    def answer(self, texts: Sequence[str]) -> list[Answer]:
        """Probabilities of the task's labels; those that the model does not know have none."""
        if not texts:
            return []
        tokens = Tokens.of(texts, self._tokenizer, self._length)
        logits = np.zeros((len(texts), len(self._places)))
        for batch in fixed_batches(tokens.lengths, self._spec.batch_size):
            filled = np.resize(batch, self._spec.batch_size)
            inputs = tokens.padded(filled, self._device, multiple=WIDTH)
            logits[batch] = self._logits(inputs)[: len(batch)]
        return placed(softmax(logits / self._spec.temperature), self._places, self._labels, tokens.lengths)

    @torch.inference_mode()
    def _logits(self, inputs: dict[str, torch.Tensor]) -> Floats:
        try:
            logits: Floats = self._model(**inputs).logits.double().cpu().numpy()
        except torch.AcceleratorError as error:
            raise DeviceLostError(str(error).partition("\n")[0]) from None
        return logits

    def describe(self) -> dict[str, str]:
        """Return the model and its revision."""
        revision = getattr(self._model.config, "_commit_hash", None) or self._spec.revision or ""
        device = self._device.type
        return {"kind": "classifier", "model": self._spec.model, "revision": revision, "device": device}


def _limit(tokenizer: Any, config: Any) -> int:  # noqa: ANN401
    """Tokens that a model can read, so many that padding to a multiple of `WIDTH` fits too."""
    known = tokenizer.model_max_length
    positions = getattr(config, "max_position_embeddings", None) or UNLIMITED
    limit = int(known) if known and known < UNLIMITED else max(1, positions - ROBERTA)
    padded = -(-limit // WIDTH) * WIDTH
    return limit if padded <= positions or limit < WIDTH else limit - limit % WIDTH
