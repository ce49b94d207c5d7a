"""Models answer the test texts of domains; answers become accuracies with intervals and paired tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from actors.experts.classifier import SequenceClassifier
from actors.merging.collecting import opened
from actors.merging.texts import part_of
from actors.steps.measures import measures, paired
from cluster.storage import Run, Step
from configs.schema.expert import ClassifierModel

ANSWERS = "answers.safetensors"
Floats = NDArray[np.float64]
RESAMPLES = 2000
ENSEMBLE, BEST = "ensemble", "own_expert"
"""Baselines that are no checkpoint: the mean of all models' probabilities, and each domain's own model."""


def answer(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write probabilities (n, C) by domain. `params`: source, texts (by domain), labels, max_length."""
    checkpoint = opened(run, params["source"])
    spec = ClassifierModel(model=str(checkpoint.folder), max_length=params["max_length"])
    model = SequenceClassifier(spec, str(checkpoint.folder), params["labels"])
    found = {}
    for domain, own in params["texts"].items():
        texts, _ = part_of(run, own, "test")
        answers = model.answer(texts)
        found[domain] = np.stack([one.vector for one in answers if one.vector is not None])
    step.files.write_bytes(ANSWERS, save(found))
    return {"texts": sum(map(len, found.values()))}


def judge(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Facts: methods {name: {domain: measures, mean, in_domain, held_out}}. `params`: answers {name: key},
    sources (names), models (the same by domain), texts, domains, held_out, labels, result, seed."""
    proba = {name: load(run.read_bytes(f"steps/{key}/{ANSWERS}")) for name, key in params["answers"].items()}
    models: dict[str, str] = params["models"]
    every = [*params["domains"], *params["held_out"]]
    proba[ENSEMBLE] = {d: np.mean([proba[name][d] for name in params["sources"]], axis=0) for d in every}
    labels = {d: _ids(part_of(run, params["texts"][d], "test")[1], params["labels"]) for d in every}
    found = {name: _measured(of, labels, params, [d for d in every if d in of]) for name, of in proba.items()}
    own = {d: proba[models[d]][d] for d in params["domains"]}
    found[BEST] = _measured(own, labels, params, params["domains"])
    right = {name: _right(of, labels, every) for name, of in proba.items()}
    for name, mine in right.items():
        if name != params["result"]:
            found[name]["against_result"] = paired(right[params["result"]], mine, params["seed"])
    return {"methods": found}


def _ids(names: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
    return np.array([labels.index(name) for name in names])


def _right(of: Mapping[str, Floats], labels: Mapping[str, Any], domains: Sequence[str]) -> NDArray[np.bool_]:
    return np.concatenate([of[d].argmax(axis=1) == labels[d] for d in domains])


def _measured(
    of: Mapping[str, Floats], labels: Mapping[str, Any], params: Mapping[str, Any], domains: Sequence[str]
) -> dict[str, Any]:
    """Measures by domain, and their means."""
    found: dict[str, Any] = {
        d: measures(labels[d], of[d].argmax(axis=1), len(params["labels"]), params["seed"]) for d in domains
    }
    for name, some in (("in_domain", params["domains"]), ("held_out", params["held_out"])):
        known = [d for d in some if d in of]
        if known:
            found[name] = _mean([of[d].argmax(axis=1) == labels[d] for d in known], params["seed"])
    return found


def _mean(right: Sequence[NDArray[np.bool_]], seed: int) -> dict[str, Any]:
    """Mean of the domains' accuracies, with an interval that resamples within domains."""
    rng = np.random.default_rng(seed)
    draws = np.mean(
        [one[rng.integers(0, len(one), (RESAMPLES, len(one)))].mean(axis=1) for one in right], axis=0
    )
    low, high = np.quantile(draws, [0.025, 0.975])
    accuracy = float(np.mean([one.mean() for one in right]))
    return {
        "accuracy": round(accuracy, 6),
        "ci95": [round(float(low), 6), round(float(high), 6)],
        "n": sum(map(len, right)),
    }
