"""One classifier without a router: what a run of FuseGen or of a merge ends with."""

from typing import Any

import pyarrow as pa

from actors.routing.artefact import Artefact, ArtefactError
from actors.stms.base import DESCRIPTION
from cluster.storage import Storage, bytes_digest, digest
from configs.schema.expert import ClassifierModel, ExpertSpec
from fusion.routing.alone import Alone

STM, MERGED = "stm", "model"
"""Folders of the models of both kinds of runs, and their names among experts."""
CONFIG = "config.json"


def finished(run: Storage) -> bool:
    """Whether a run has such a model."""
    return run.exists(f"{STM}/{DESCRIPTION}") or run.exists(f"{MERGED}/{CONFIG}")


def manifest_of(run: Storage) -> dict[str, Any]:
    """What the manifest of an artefact says, for a model alone."""
    summary = run.read_json("summary.json")
    if run.exists(f"{STM}/{DESCRIPTION}"):
        described = run.read_json(f"{STM}/{DESCRIPTION}")
        weights = bytes_digest(run.read_bytes(f"{STM}/model.safetensors"))
        score = (summary.get("final") or {}).get("accuracy")
        return _manifest(run, STM, described["labels"], score, digest([described, weights], 16))
    config = run.read_json(f"{MERGED}/{CONFIG}")
    if not any("SequenceClassification" in name for name in config.get("architectures") or []):
        raise ArtefactError(
            f"{run.uri}: {MERGED}/ is no classifier; serve language models by their own server"
        )
    labels = [config["id2label"][key] for key in sorted(config["id2label"], key=int)]
    result = summary.get("methods", {}).get(summary.get("result"), {})
    score = result.get("in_domain", {}).get("accuracy")
    record = run.read_json("run.json")  # equal configurations and inputs give equal bytes
    return _manifest(run, MERGED, labels, score, digest([record, config], 16))


def single(run: Storage) -> Artefact:
    """An artefact of a model alone."""
    manifest = manifest_of(run)
    return Artefact(Alone(len(manifest["classes"])), manifest, pa.table({"item": []}))


def _manifest(
    run: Storage, name: str, labels: list[str], score: float | None, version: str
) -> dict[str, Any]:
    spec = ExpertSpec(name=name, model=ClassifierModel(model=f"{run.uri}/{name}"))
    known = [] if score is None else [{"lambda": 0.0, "accuracy": score, "cost": 0.0, "experts": 1.0}]
    return {
        "version": version,
        "name": run.read_json("summary.json").get("name", name),
        "kind": "single",
        "answer": "label",
        "classes": labels,
        "classes_": list(range(len(labels))),
        "unit": "per call",
        "settings": {"seed": 0},
        "calibration": known,
        "distances": {},
        "rate": 0.0,
        "features": {},
        "stored": 0,
        "served": [spec.model_dump(mode="json")],
        "experts": [{"name": name, "price": 0.0, "width": len(labels), "vector": None}],
    }
