"""A cache of text vectors in Parquet, so that no text is embedded twice.

There is a folder per encoder. Each call of `embed_once` writes its vectors into a new sub-folder and then,
last, a JSON file of the same name: readers look only into sub-folders that have one. This module imports
no torch, because Ray starts processes that only look up hashes.
"""

import json
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from numpy.typing import NDArray
from pyarrow import fs

from configs.schema.stm import HeadStm

Vectors = NDArray[np.float32]
ROWS = 512
"""Texts that Ray Data hands to an encoder at once."""


def text_hash(text: str) -> str:
    """Return the cache key of a text: 128 bits of BLAKE2b, in hexadecimal."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def cache_folder(cache: str, spec: HeadStm) -> str:
    """Return the sub-folder of `cache` that belongs to the encoder, layer and pooling of `spec`."""
    chosen = spec.model_dump(include={"encoder", "layer", "pooling", "max_length"})
    return f"{cache}/{blake2b(json.dumps(chosen).encode(), digest_size=8).hexdigest()}"


class Embedding:
    """`actors.encoder.Encoder`, whose imports, which take seconds, are left to the processes that embed."""

    def __init__(self, spec: HeadStm) -> None:
        from actors.encoder import Encoder

        self._encoder = Encoder(spec)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """As the encoder."""
        return self._encoder(batch)


def embed_once(texts: str | list[str], cache: str, spec: HeadStm, workers: int = 1) -> int:
    """Embed the texts (Parquet, column `text`) that `cache` lacks; return how many that were.

    A text that occurs in several batches may be embedded more than once, with the same result.
    """
    import ray.data

    # Ray Data's newer reader starts 32 processes to look at the footers of our few files.
    ray.data.DataContext.get_current().use_datasource_v2 = False
    filesystem, folder = _open(cache_folder(cache, spec))
    only_new = partial(_only_new, known=_hashes(filesystem, folder))
    new = (
        ray.data.read_parquet(texts)
        .select_columns(["text"])
        .map_batches(only_new, batch_size=ROWS, batch_format="pyarrow", num_cpus=0.25)
        .materialize()  # so that no encoder starts when all texts are known
    )
    if not new.count():
        return 0
    name = uuid4().hex
    (
        new.map_batches(
            Embedding,
            fn_constructor_args=(spec,),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
            batch_size=ROWS,
            batch_format="pyarrow",
            **_resources(spec),
        )
        .select_columns(["hash", "vector"])
        .write_parquet(f"{folder}/{name}", filesystem=filesystem)
    )
    return _commit(filesystem, folder, name)


def _resources(spec: HeadStm) -> dict[str, Any]:
    if spec.num_gpus:
        return {"num_gpus": spec.num_gpus, "accelerator_type": spec.accelerator_type}
    return {"num_cpus": spec.num_cpus}


def _only_new(batch: pa.Table, known: frozenset[str]) -> pa.Table:
    """Add the column `hash` and drop repeated texts and those whose hash is `known`."""
    hashes = [text_hash(text) for text in batch["text"].to_pylist()]
    first = {key: place for place, key in reversed(list(enumerate(hashes))) if key not in known}
    rows = pa.array(sorted(first.values()), pa.int64())
    return batch.append_column("hash", pa.array(hashes, pa.string())).take(rows)


def read_vectors(texts: Sequence[str], cache: str, spec: HeadStm) -> tuple[Vectors | None, NDArray[np.int64]]:
    """Return the cached vectors (m, d) and the indices (m,) of the texts they belong to."""
    filesystem, folder = _open(cache_folder(cache, spec))
    wanted: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        wanted.setdefault(text_hash(text), []).append(place)
    found = _committed(filesystem, folder)
    if found is None:
        return None, np.empty(0, dtype=np.int64)
    table = found.to_table(filter=pc.field("hash").isin(list(wanted)))
    rows = {key: row for row, key in enumerate(table["hash"].to_pylist())}
    pairs = [(place, row) for key, row in rows.items() for place in wanted[key]]
    places, chosen = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    column = table["vector"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(table), column.type.list_size)[chosen], places


def _open(uri: str) -> tuple[fs.FileSystem, str]:
    if "://" in uri:
        filesystem, path = fs.FileSystem.from_uri(uri)
        return filesystem, path
    return fs.LocalFileSystem(), str(uri)


def _committed(filesystem: fs.FileSystem, folder: str) -> pds.Dataset | None:
    """Return the vectors of all finished calls, None when there are none."""
    entries = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    names = sorted(entry.path.removesuffix(".json") for entry in entries if entry.path.endswith(".json"))
    parts = [file for name in names for file in _parquet(filesystem, name)]
    return pds.dataset(parts, filesystem=filesystem, format="parquet") if parts else None


def _parquet(filesystem: fs.FileSystem, folder: str) -> list[str]:
    entries = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    return sorted(entry.path for entry in entries if entry.path.endswith(".parquet"))


def _hashes(filesystem: fs.FileSystem, folder: str) -> frozenset[str]:
    found = _committed(filesystem, folder)
    return frozenset() if found is None else frozenset(found.to_table(columns=["hash"])["hash"].to_pylist())


def _commit(filesystem: fs.FileSystem, folder: str, name: str) -> int:
    """Write the JSON file that makes the vectors of one call visible; return their number."""
    count = int(pds.dataset(_parquet(filesystem, f"{folder}/{name}"), filesystem=filesystem).count_rows())
    with filesystem.open_output_stream(f"{folder}/{name}.json") as stream:
        stream.write(json.dumps({"rows": count}).encode())
    return count
