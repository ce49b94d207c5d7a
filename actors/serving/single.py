"""What runs end with that needs no router: one classifier, or several whose answers are averaged."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from actors.routing.artefact import Artefact, ArtefactError
from actors.stms.base import DESCRIPTION
from cluster.storage import Storage, bytes_digest, digest
from configs.schema.expert import ClassifierModel, ExpertSpec
from fusion.routing.averaging import Averaging

STM, MERGED = "stm", "model"
"""Folders of the models of both kinds of runs, and their names among experts."""
ENSEMBLE = "ensemble.json"
"""File of a run whose result is an ensemble: `labels`, and `models` by name, below the run or anywhere."""
CONFIG = "config.json"
UNSERVED = "models that find answers are not served: open it with AutoModelForQuestionAnswering"
HERE = "run:"
"""Begins the path of a model that is below the run."""


def finished(run: Storage) -> bool:
    """Whether a run has such a result."""
    return any(run.exists(name) for name in (f"{STM}/{DESCRIPTION}", f"{MERGED}/{CONFIG}", ENSEMBLE))


def manifest_of(run: Storage) -> dict[str, Any]:
    """What the manifest of an artefact says, for models without a router."""
    summary = run.read_json("summary.json")
    score = (summary.get("final") or {}).get("accuracy")
    if run.exists(ENSEMBLE):
        about = run.read_json(ENSEMBLE)
        version = digest([run.read_json("run.json"), about], 16)
        return _manifest(run, about["models"], about["labels"], score, version)
    if run.exists(f"{STM}/{DESCRIPTION}"):
        described = run.read_json(f"{STM}/{DESCRIPTION}")
        if described["spec"]["kind"] == "span":
            raise ArtefactError(f"{run.uri}: {STM}/ is no classifier; {UNSERVED}")
        weights = bytes_digest(run.read_bytes(f"{STM}/model.safetensors"))
        version = digest([described, weights], 16)
        return _manifest(run, {STM: HERE + STM}, described["labels"], score, version)
    config = run.read_json(f"{MERGED}/{CONFIG}")
    if not any("SequenceClassification" in name for name in config.get("architectures") or []):
        raise ArtefactError(
            f"{run.uri}: {MERGED}/ is no classifier; serve language models by their own server"
        )
    labels = [config["id2label"][key] for key in sorted(config["id2label"], key=int)]
    result = summary.get("methods", {}).get(summary.get("result"), {})
    score = result.get("in_domain", {}).get("accuracy")
    record = run.read_json("run.json")  # equal configurations and inputs give equal bytes
    return _manifest(run, {MERGED: HERE + MERGED}, labels, score, digest([record, config], 16))


def single(run: Storage) -> Artefact:
    """An artefact without a router."""
    manifest = manifest_of(run)
    policy = Averaging(len(manifest["classes"]), [expert["price"] for expert in manifest["experts"]])
    return Artefact(policy, manifest, pa.table({"item": []}))


def placed(model: str, run: str) -> str:
    """Where a model is, given the run that its path may begin from."""
    return f"{run}/{model.removeprefix(HERE)}" if model.startswith(HERE) else model


def _manifest(
    run: Storage, models: Mapping[str, str], labels: list[str], score: float | None, version: str
) -> dict[str, Any]:
    specs = [
        ExpertSpec(name=name, model=ClassifierModel(model=placed(model, run.uri)))
        for name, model in models.items()
    ]
    known = {"lambda": 0.0, "accuracy": score, "cost": 0.0, "experts": float(len(specs))}
    return {
        "version": version,
        "name": run.read_json("summary.json").get("name", next(iter(models))),
        "kind": "single" if len(specs) == 1 else "ensemble",
        "answer": "label",
        "classes": labels,
        "classes_": list(range(len(labels))),
        "unit": "per call",
        "settings": {"seed": 0},
        "calibration": [] if score is None else [known],
        "distances": {},
        "rate": 0.0,
        "features": {},
        "stored": 0,
        "served": [spec.model_dump(mode="json") for spec in specs],
        "experts": [{"name": n, "price": 0.0, "width": len(labels), "vector": None} for n in models],
    }
