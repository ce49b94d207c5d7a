"""The classifier that a run ended with, on this machine."""

from collections.abc import Sequence
from functools import cached_property
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.engines.base import EngineError
from actors.experts.base import Answerer, load_expert
from actors.serving import single
from cluster.storage import Run
from configs.schema.base import ConfigError
from configs.schema.expert import ExpertSpec

Floats = NDArray[np.float64]


class Classifier:
    """Answers texts as `jobs serve` does, without a server; loaded when it is first asked.

    >>> Classifier("runs/mine").predict(["A clever, warm film."])
    array(['positive'], dtype='<U8')
    """

    def __init__(self, run: str | PathLike[str]) -> None:
        """Look into a run of `jobs fusegen`, `merge` or `compare`; ConfigError when it has no classifier."""
        files = Run(fspath(run))
        if not single.finished(files):
            raise ConfigError(f"{files.uri}: holds no finished classifier")
        manifest = single.manifest_of(files)
        self.labels: tuple[str, ...] = tuple(manifest["classes"])
        """Names of the labels, in the order of the columns of `predict_proba`."""
        self._specs = [ExpertSpec.model_validate(spec) for spec in manifest["served"]]

    @cached_property
    def _models(self) -> list[Answerer]:
        return [load_expert(spec, self.labels, 0) for spec in self._specs]

    def predict(self, texts: Sequence[str]) -> NDArray[Any]:
        """Label names (n,)."""
        return np.array([self.labels[label] for label in self.predict_proba(texts).argmax(axis=1)])

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """Probabilities (n, C), averaged where several models answer; EngineError when one cannot."""
        if isinstance(texts, str):
            raise ConfigError("texts: a list is needed, not one text")
        found = np.zeros((len(texts), len(self.labels)))
        for model in self._models:
            for row, answer in enumerate(model.answer(list(texts))):
                if answer.vector is None:
                    raise EngineError(f"text {row}: {answer.error}")
                found[row] += answer.vector / len(self._models)
        return found

    def score(self, texts: Sequence[str], labels: Sequence[str]) -> float:
        """Share of the texts whose label name is predicted."""
        return float((self.predict(texts) == np.asarray(labels)).mean())
