"""Small task models that FuseGen trained as experts; `linear` ones need no transformer library.

They are asked text by text, so that not even the last bit of an answer depends on what else is in a block.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from actors import stms
from actors.engines.base import EngineError
from actors.experts.base import Answer, aligned, placed
from actors.stms.base import softmax
from configs.schema.expert import ClassifierModel


class SmallClassifier:
    """A small task model of kind `linear` or `head`."""

    def __init__(self, spec: ClassifierModel, model: stms.Stm[Any, Any], labels: Sequence[str]) -> None:
        self._spec, self._model, self._labels = spec, model, labels
        self.light = model.kind == "linear"
        try:
            self._places = aligned(model.labels, spec.label_names, labels)
        except EngineError as error:
            raise EngineError(f"{spec.model}: {error}") from None

    def answer(self, texts: Sequence[str]) -> list[Answer]:
        """As `SequenceClassifier.answer`; tokens are words."""
        if not texts:
            return []
        encoded = self._model.encode(texts)
        alone = [encoded.take(np.array([row])) for row in range(len(texts))] if len(texts) > 1 else [encoded]
        proba = np.concatenate([self._model.predict_proba(one) for one in alone])
        if self._spec.temperature != 1:
            proba = softmax(np.log(np.maximum(proba, np.finfo(float).tiny)) / self._spec.temperature)
        words = np.array([len(text.split()) for text in texts])
        return placed(proba, self._places, self._labels, words)

    def describe(self) -> dict[str, str]:
        """Return the folder and the kind."""
        return {"kind": f"small task model ({self._model.kind})", "model": self._spec.model}
