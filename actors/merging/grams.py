"""Gram files: what a data owner publishes of a model's inputs, and all that a merge needs to know of them.

    grams.json              what was counted, by which model and on which texts
    STAGE.safetensors       for every group of the stage the upper triangle of S = sum x x^T (float32), its
                            rows and how many batches were left out

They hold second moments, no text; those of few rows may still give inputs away, which the manifest says.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from actors.merging.errors import CheckpointError
from cluster.storage import Storage, StorageError
from fusion.merging.gram import Gram

MANIFEST = "grams.json"
FORMAT = 1
ROWS, SKIPPED = "rows", "skipped"


def write_stage(files: Storage, stage: str, grams: Mapping[str, Gram]) -> None:
    """Publish the matrices of a stage."""
    tensors: dict[str, Tensor] = {}
    for name, gram in grams.items():
        tensors[f"{name}.S"] = gram.packed().float()
        tensors[f"{name}.{ROWS}"] = torch.tensor([gram.rows, gram.skipped])
    files.write_bytes(file_of(stage), save(tensors))


def read_stage(files: Storage, stage: str, widths: Mapping[str, int]) -> dict[str, Gram]:
    """Matrices by name of group; CheckpointError naming the file when one is absent or does not fit."""
    place = f"{files.uri}/{file_of(stage)}"
    wanted = [f"{name}.{part}" for name in widths for part in ("S", ROWS)]
    try:
        tensors = _read(files, file_of(stage), wanted)
    except (StorageError, SafetensorError, OSError) as error:
        raise CheckpointError(f"Gram file {place}: {' '.join(str(error).split())[:200]}") from None
    found = {}
    for name, width in widths.items():
        if f"{name}.S" not in tensors or f"{name}.{ROWS}" not in tensors:
            raise CheckpointError(f"Gram file {place}: the matrix of {name} is missing")
        triangle, counts = tensors[f"{name}.S"], tensors[f"{name}.{ROWS}"]
        if triangle.numel() != width * (width + 1) // 2:
            raise CheckpointError(f"Gram file {place}: the matrix of {name} is not one of {width} features")
        if not torch.isfinite(triangle).all():
            raise CheckpointError(
                f"Gram file {place}: the matrix of {name} holds numbers that are not finite"
            )
        gram = Gram.unpacked(triangle, int(counts[0]))
        gram.skipped = int(counts[1])
        found[name] = gram
    return found


def _read(files: Storage, file: str, wanted: Sequence[str]) -> dict[str, Tensor]:
    """Those of some tensors that are in a file."""
    if not files.local:
        return load(files.read_bytes(file))
    with safe_open(files.at(file), framework="pt") as stream:
        there = set(stream.keys())
        return {name: stream.get_tensor(name) for name in wanted if name in there}


def has_stage(files: Storage, stage: str) -> bool:
    """Whether a stage is published."""
    return files.exists(file_of(stage))


def write_manifest(files: Storage, facts: Mapping[str, Any]) -> None:
    """Publish what was counted, last."""
    files.write_json(MANIFEST, {"format": FORMAT, **facts})


def read_manifest(files: Storage) -> dict[str, Any]:
    """What was counted; CheckpointError when the folder is not whole or of another format."""
    if not files.exists(MANIFEST):
        raise CheckpointError(f"{files.uri}: no Gram files (it has no {MANIFEST})")
    try:
        facts: dict[str, Any] = files.read_json(MANIFEST)
    except (StorageError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{files.uri}: {error}") from None
    if facts.get("format") != FORMAT:
        raise CheckpointError(f"{files.uri}: format {facts.get('format')}; this version reads {FORMAT}")
    return facts


def file_of(stage: str) -> str:
    """Name of the file of a stage."""
    return f"{stage}.safetensors"
