"""One classifier without a router: the small task model that a run of FuseGen ends with."""

from typing import Any

import pyarrow as pa

from actors.routing.artefact import Artefact
from actors.stms.base import DESCRIPTION
from cluster.storage import Storage, bytes_digest, digest
from configs.schema.expert import ClassifierModel, ExpertSpec
from fusion.routing.alone import Alone

MODEL = "stm"
"""Folder of a run's model, and its name among experts."""


def finished(run: Storage) -> bool:
    """Whether a run has such a model."""
    return run.exists(f"{MODEL}/{DESCRIPTION}")


def manifest_of(run: Storage) -> dict[str, Any]:
    """What the manifest of an artefact says, for a model alone."""
    described, summary = run.read_json(f"{MODEL}/{DESCRIPTION}"), run.read_json("summary.json")
    spec = ExpertSpec(name=MODEL, model=ClassifierModel(model=f"{run.uri}/{MODEL}"))
    weights = bytes_digest(run.read_bytes(f"{MODEL}/model.safetensors"))
    final = summary.get("final") or {}
    known = [{"lambda": 0.0, "accuracy": final["accuracy"], "cost": 0.0, "experts": 1.0}] if final else []
    return {
        "version": digest([described, weights], 16),
        "name": summary.get("name", MODEL),
        "kind": "single",
        "answer": "label",
        "classes": described["labels"],
        "classes_": list(range(len(described["labels"]))),
        "unit": "per call",
        "settings": {"seed": described["seed"]},
        "calibration": known,
        "distances": {},
        "rate": 0.0,
        "features": {},
        "stored": 0,
        "served": [spec.model_dump(mode="json")],
        "experts": [{"name": MODEL, "price": 0.0, "width": len(described["labels"]), "vector": None}],
    }


def single(run: Storage) -> Artefact:
    """An artefact of a model alone."""
    manifest = manifest_of(run)
    return Artefact(Alone(len(manifest["classes"])), manifest, pa.table({"item": []}))
