"""What experts say about requests: known already as arrays, or asked for when somebody wants to hear it."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actors.engines.base import EngineError
from actors.experts.base import Answerer, load_expert
from actors.routing.assembling import label_rows
from configs.schema.base import ConfigError
from configs.schema.expert import ExpertSpec
from fusion.routing.features import one_hot

Floats = NDArray[np.float64]
Expert = Callable[[Any], ArrayLike]
"""From some of the inputs (a list, or rows of their array) to what it says of each: see `Asked`."""
Requests = Mapping[str, ArrayLike] | Sequence[Any] | NDArray[Any]
"""Outputs by expert, or inputs that `experts` are asked about."""


class Asked:
    """Blocks (m, d_k) of what experts say about m requests.

    Of each an expert says probabilities (m, C) of the classes in their order, any other numbers (m, d), or a
    label (m,). ConfigError where it is something else, names the expert.
    """

    def __init__(self, requests: Requests, experts: Mapping[str, Expert] | None) -> None:
        if isinstance(requests, str):
            raise ConfigError("requests: a list of texts is needed, not one text")
        known = isinstance(requests, Mapping)
        if known == (experts is not None):
            raise ConfigError(
                "give the outputs of experts by name, or inputs and experts=, callables by name"
            )
        self.known: dict[str, NDArray[Any]] = {}
        self.inputs: Any = None
        self.experts = experts or {}
        if isinstance(requests, Mapping):
            self.known = {str(name): np.asarray(said) for name, said in requests.items()}
        else:
            self.inputs = requests if isinstance(requests, np.ndarray) else list(requests)
        self.names = list(self.known) or list(self.experts)
        sizes = {name: len(said) for name, said in self.known.items()} or {"inputs": len(self.inputs)}
        if len(set(sizes.values())) > 1:
            raise ConfigError(f"experts answer about different numbers of requests: {sizes}")
        if not self.names or not max(sizes.values()):
            raise ConfigError("one expert and one request at least are needed")
        self.size = max(sizes.values())

    def block(self, name: str, classes: Sequence[str], rows: NDArray[np.intp] | None = None) -> Floats:
        """What an expert says (m, d) about all requests, or some."""
        if name not in self.names:
            raise ConfigError(f"no expert {name!r}; there are {', '.join(self.names)}")
        rows = np.arange(self.size) if rows is None else rows
        said = self.known[name][rows] if name in self.known else self._ask(name, rows)
        return _columns(name, said, classes)

    def _ask(self, name: str, rows: NDArray[np.intp]) -> NDArray[Any]:
        array = isinstance(self.inputs, np.ndarray)
        said = np.asarray(self.experts[name](self.inputs[rows] if array else [self.inputs[r] for r in rows]))
        if len(said) != len(rows):
            raise ConfigError(f"expert {name}: was asked about {len(rows)} inputs, and answered {len(said)}")
        return said


def _columns(name: str, said: NDArray[Any], classes: Sequence[str]) -> Floats:
    if said.ndim == 1:
        places = {label: place for place, label in enumerate(classes)}
        strange = next((label for label in map(str, said.tolist()) if label not in places), None)
        if strange is not None:
            raise ConfigError(f"expert {name}: {strange} is no label; allowed: {', '.join(classes)}")
        labels = [places[label] for label in map(str, said.tolist())]
        return one_hot(labels, np.ones(len(labels)), len(classes))
    if said.ndim != 2 or said.dtype.kind not in "fiub" or not np.isfinite(said).all():
        raise ConfigError(
            f"expert {name}: says {said.dtype} of shape {said.shape}; "
            "probabilities (m, C), other finite numbers (m, d) or labels (m,) are needed"
        )
    return said.astype(np.float64)


def live(specs: Sequence[Mapping[str, Any]], classes: Sequence[str], seed: int) -> dict[str, Expert]:
    """The experts of a run as callables on texts; each is loaded when it is asked first."""
    return {str(spec["name"]): _live(ExpertSpec.model_validate(spec), classes, seed) for spec in specs}


def _live(spec: ExpertSpec, classes: Sequence[str], seed: int) -> Expert:
    @cache
    def model() -> Answerer:
        return load_expert(spec, classes, seed)

    def ask(texts: Sequence[str]) -> Floats:
        answers = model().answer(texts)
        failed = next((answer.error for answer in answers if answer.error is not None), None)
        if failed is not None:
            raise EngineError(f"expert {spec.name}: {failed}")
        return label_rows(spec, answers, classes)

    return ask
