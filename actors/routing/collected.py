"""The step that collects a pool, and what is wrong or doubtful with it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from actors.routing import classifiers, generators, guards
from actors.routing.pool import Pool
from actors.steps.training import vector_cache
from actors.vectors import embed_once, read_vectors
from cluster.storage import Run, Step
from configs.schema.foe import DigitsExperts, FoeConfig, RecordedExperts

TEXTS = "texts.parquet"
ENCODERS = 2
"""Encoders at most that work side by side."""


def pool(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the pool of recorded experts, or of those on digits. `params`: the sections of a configuration
    that say what it is."""
    config = FoeConfig.model_validate({"job": "foe", **params})
    found = read(config, partial(_embedded, run, step, config))
    doubts = guards.doubts(config, found)
    found = replace(found, about=replace(found.about, warnings=(*found.about.warnings, *doubts)))
    found.write(step.files)
    return {
        "items": len(found),
        "experts": list(found.about.experts),
        "warnings": list(found.about.warnings),
        "vectors": found.vectors,
    }


def _embedded(run: Run, step: Step, config: FoeConfig, texts: Sequence[str]) -> generators.Floats:
    """Vectors (n, d) of texts, each computed once per run, by Ray Data."""
    step.files.write_table(TEXTS, pa.table({"text": list(texts)}))
    cache, spec = vector_cache(run), config.features.encoder
    embed_once(step.files.below(TEXTS).uri, cache, spec, ENCODERS)
    vectors, places = read_vectors(texts, cache, spec)
    assert vectors is not None  # noqa: S101 - they have just been computed
    found = np.empty((len(texts), vectors.shape[1]))
    found[places] = vectors
    return found


def read(config: FoeConfig, embed: generators.Embed | None = None) -> Pool:
    """The pool that a configuration names, with vectors if `embed` is given; ConfigError in one line."""
    spec = config.experts
    if isinstance(spec, DigitsExperts):
        return classifiers.digits(config, spec)
    assert isinstance(spec, RecordedExperts)  # noqa: S101 - live experts have steps of their own
    if config.answer == "expert":
        return generators.recorded(config, spec, embed)
    return classifiers.recorded(config, spec)
