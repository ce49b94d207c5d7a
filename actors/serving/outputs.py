"""From what experts answer to what a policy sees: the same columns as in the stored items.

Labels are probabilities. Responses are a code (equal answers to a text have equal codes) and components of a
vector: the model's own states, or an encoder's of prompt and answer. Texts themselves are a context.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import numpy as np

from actors.experts.base import Answer
from actors.routing.artefact import Artefact
from actors.routing.assembling import both, gists, label_rows
from actors.routing.generators import RESPONSE, SIZED, block_of
from actors.routing.pool import INPUTS
from configs.schema.expert import ExpertSpec
from fusion.routing.answers import SHORT
from fusion.routing.neighbours import Floats, Ints
from fusion.routing.projection import Projection

Embed = Callable[[Sequence[str]], Awaitable[Floats]]
"""Vectors (n, d) of texts."""


class Outputs(Protocol):
    """What is heard about the texts of one request."""

    async def of(self, expert: int, rows: Ints, texts: Sequence[str], answers: Sequence[Answer]) -> Floats:
        """What a policy sees (len(rows), d_k) of an expert's good answers to some of the texts."""

    async def context(self, texts: Sequence[str]) -> Floats:
        """What it sees (n, d) of texts themselves."""


class Labels:
    """Probabilities of labels."""

    def __init__(self, specs: Sequence[ExpertSpec], classes: Sequence[str]) -> None:
        self.specs, self.classes = specs, classes

    async def of(self, expert: int, rows: Ints, texts: Sequence[str], answers: Sequence[Answer]) -> Floats:  # noqa: ARG002
        """Probabilities (len(rows), C)."""
        return label_rows(self.specs[expert], answers, self.classes)

    async def context(self, texts: Sequence[str]) -> Floats:
        """There is none."""
        raise NotImplementedError


class Responses:
    """Codes and components of responses to the texts of one request."""

    def __init__(self, artefact: Artefact, specs: Sequence[ExpertSpec], embed: Embed) -> None:
        self.artefact, self.specs, self.embed = artefact, specs, embed
        self.said: dict[int, dict[str, float]] = {}

    async def of(self, expert: int, rows: Ints, texts: Sequence[str], answers: Sequence[Answer]) -> Floats:
        """A code and components (len(rows), 1 + dimensions)."""
        about, spec = self.artefact.manifest["experts"][expert], self.specs[expert]
        classes = self.artefact.manifest["classes"]
        if not self.artefact.manifest["features"]["responses"]:
            codes = np.full((len(rows), 1), -1.0)
        else:
            says = gists(spec, answers, classes)
            codes = np.array([[self._code(row, said)] for row, said in zip(rows.tolist(), says, strict=True)])
        if about["vector"] == "labels":
            return np.hstack([codes, label_rows(spec, answers, classes)])
        projection = self.artefact.projections.get(about["name"])
        if about["vector"] in {RESPONSE, SIZED}:
            texts = [answer.text or "" for answer in answers]
            components = None if projection is None else await self._components(projection, texts)
            return block_of(texts, codes, about["vector"], components)
        if projection is None:
            return codes
        if about["vector"] == "encoder":
            vectors = await self.embed([both(spec, t, a) for t, a in zip(texts, answers, strict=True)])
        else:
            vectors = np.stack([answer.vector for answer in answers if answer.vector is not None])
        return np.hstack([codes, projection.transform(vectors)])

    async def _components(self, projection: Projection, said: Sequence[str]) -> Floats:
        """Components (n, dimensions) of what was said; the code of a short text says all, its vector is 0."""
        long = [row for row, text in enumerate(said) if len(text) > SHORT]
        vectors = np.zeros((len(said), projection.n_features_in_))
        if long:
            vectors[long] = await self.embed([said[row] for row in long])
        return projection.transform(vectors)

    async def context(self, texts: Sequence[str]) -> Floats:
        """Components (n, dimensions) of the texts' vectors."""
        return np.asarray(self.artefact.projections[INPUTS].transform(await self.embed(texts)))

    def _code(self, row: int, said: str) -> float:
        known = self.said.setdefault(row, {})
        return float(known.setdefault(said, len(known))) if said else -1.0
