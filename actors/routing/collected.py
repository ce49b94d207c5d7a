"""The step that collects a pool, and what is wrong or doubtful with it."""

from dataclasses import replace
from typing import Any

from actors.routing import classifiers, guards
from actors.routing.pool import Pool
from cluster.storage import Run, Step
from configs.schema.foe import DigitsExperts, FoeConfig, RecordedExperts


def pool(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Write the pool of recorded experts, or of those on digits. `params`: the sections of a configuration
    that say what it is."""
    config = FoeConfig.model_validate({"job": "foe", **params})
    found = read(config)
    doubts = guards.doubts(config, found)
    found = replace(found, about=replace(found.about, warnings=(*found.about.warnings, *doubts)))
    found.write(step.files)
    return {"items": len(found), "experts": list(found.about.experts), "warnings": list(found.about.warnings)}


def read(config: FoeConfig) -> Pool:
    """The pool that a configuration names; ConfigError in one line."""
    spec = config.experts
    if isinstance(spec, DigitsExperts):
        return classifiers.digits(config, spec)
    assert isinstance(spec, RecordedExperts)  # noqa: S101 - live experts have steps of their own
    return classifiers.recorded(config, spec)
