"""Hugging Face checkpoints: their tensors are read one by one when asked for, and written in shards.

Only safetensors are read. Nothing of a checkpoint is executed.
"""

import errno
import json
import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from actors.merging.errors import CheckpointError
from cluster.storage import StorageError, digest, file_digest
from configs.load import locate

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
BESIDE = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files that a merged checkpoint takes over from the first model."""
Piece = tuple[str, Tensor, int]
"""Name, tensor, and the first of its rows: a large one comes in parts."""
GIB = 1 << 30
ALIGNED = 8
"""Contents of a file of safetensors begin at a multiple of so many bytes."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def fetch(model: str, revision: str | None = None) -> Path:
    """The folder of a model: a local one, or what the hub has, downloaded."""
    if locate(model).is_dir():
        return locate(model)
    if model.startswith(("/", ".", "~")):
        raise CheckpointError(f"{model}: no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        line = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{model}: neither a folder nor to be had from the hub: {line}") from None


class Checkpoint(Mapping[str, Tensor]):
    """The tensors of a folder by name; each is read when it is asked for, and not kept."""

    def __init__(self, folder: Path, name: str = "") -> None:
        """CheckpointError when files are missing or broken; no tensor is read yet."""
        self.folder, self.name = folder, name or str(folder)
        if not (folder / CONFIG).is_file():
            raise CheckpointError(f"{self.name}: {folder}: no checkpoint (it has no {CONFIG})")
        self.config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        self._files = self._places()

    def _places(self) -> dict[str, str]:
        """Which file holds which tensor."""
        if (self.folder / INDEX).is_file():
            known: dict[str, str] = json.loads((self.folder / INDEX).read_text())["weight_map"]
            missing = sorted({file for file in known.values() if not (self.folder / file).is_file()})
            if missing:
                raise CheckpointError(f"{self.name}: {missing[0]} is missing, which {INDEX} names")
            return known
        if not (self.folder / SINGLE).is_file():
            raise CheckpointError(f"{self.name}: no {SINGLE} and no {INDEX}; other formats are not read")
        return dict.fromkeys(header(self.folder / SINGLE, self.name), SINGLE)

    @cached_property
    def headers(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of every tensor."""
        found = {}
        for file in sorted(set(self._files.values())):
            for name, about in header(self.folder / file, self.name).items():
                if self._files.get(name) == file:
                    found[name] = (about["dtype"], tuple(about["shape"]))
        lacking = sorted(set(self._files) - set(found))
        if lacking:
            raise CheckpointError(f"{self.name}: tensor {lacking[0]} is not in {self._files[lacking[0]]}")
        return found

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor."""
        return {name: shape for name, (_, shape) in self.headers.items()}

    @property
    def bytes(self) -> int:
        """Size of all tensors."""
        return sum(size_of(dtype, shape) for dtype, shape in self.headers.values())

    def meta(self) -> dict[str, Tensor]:
        """All tensors without contents."""
        return {
            name: torch.empty(shape, dtype=DTYPES[dtype], device="meta")
            for name, (dtype, shape) in self.headers.items()
        }

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._files:
            raise KeyError(name)
        try:
            with safe_open(self.folder / self._files[name], framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            place = self._files[name]
            raise CheckpointError(f"{self.name}: {place}: tensor {name} cannot be read: {error}") from None
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def fingerprint(self) -> str:
        """Digest of everything that is merged; all tensors are read."""
        files = sorted({CONFIG, *self._files.values()})
        return str(digest([file_digest(self.folder / file) for file in files]))


def header(file: Path, owner: str) -> dict[str, Any]:
    """What a file of safetensors says of its tensors, checked against its size."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            about: dict[str, Any] = json.loads(stream.read(length))
        about.pop("__metadata__", None)
        end = max((one["data_offsets"][1] for one in about.values()), default=0)
    except (OSError, ValueError, struct.error, KeyError, MemoryError) as error:
        raise CheckpointError(f"{owner}: {file.name} cannot be read: {type(error).__name__}") from None
    if file.stat().st_size != 8 + length + end:
        raise CheckpointError(f"{owner}: {file.name} is incomplete: {file.stat().st_size} bytes")
    strange = sorted({one["dtype"] for one in about.values()} - set(DTYPES))
    if strange:
        raise CheckpointError(f"{owner}: {file.name} holds {strange[0]} tensors; dequantise them first")
    return about


def size_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor."""
    return DTYPES[dtype].itemsize * torch.Size(shape).numel()


class Shards:
    """Writes tensors into their places, in files of a limited size, as they come: none is kept."""

    def __init__(self, folder: Path, planned: Mapping[str, tuple[str, tuple[int, ...]]], limit: int) -> None:
        """Make the files for tensors of known types and shapes, in the order of their names."""
        self._places: dict[str, tuple[Path, int, int]] = {}
        self._missing: dict[str, int] = {}
        parts: list[dict[str, int]] = [{}]
        for name, (dtype, shape) in sorted(planned.items()):
            size = size_of(dtype, shape)
            if parts[-1] and sum(parts[-1].values()) + size > limit:
                parts.append({})
            parts[-1][name] = size
        names = [f"model-{n:05}-of-{len(parts):05}.safetensors" for n in range(1, len(parts) + 1)]
        for file, part in zip(names if len(parts) > 1 else [SINGLE], parts, strict=True):
            self._make(folder / file, part, planned)
        if len(parts) > 1:
            places = {tensor: place.name for tensor, (place, _, _) in self._places.items()}
            total = sum(sum(part.values()) for part in parts)
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
            (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def _make(
        self, file: Path, sizes: Mapping[str, int], planned: Mapping[str, tuple[str, tuple[int, ...]]]
    ) -> None:
        about: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, size in sizes.items():
            dtype, shape = planned[name]
            about[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
            end += size
        head = json.dumps(about, separators=(",", ":")).encode()
        head += b" " * (-len(head) % ALIGNED)
        with file.open("wb") as stream:
            stream.write(struct.pack("<Q", len(head)) + head)
            stream.truncate(8 + len(head) + end)
            stream.flush()
            _reserve(stream.fileno(), file, 8 + len(head) + end)
        for name, size in sizes.items():
            self._places[name] = file, 8 + len(head) + about[name]["data_offsets"][0], size
            self._missing[name] = size

    def add(self, name: str, tensor: Tensor, start: int = 0) -> None:
        """Write a tensor, or those of its rows that begin at `start`."""
        file, offset, size = self._places[name]
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        before = start * content.nbytes // len(tensor) if start else 0
        if before + content.nbytes > size:
            raise CheckpointError(f"tensor {name} has {before + content.nbytes} bytes, {size} were expected")
        with file.open("r+b") as stream:
            stream.seek(offset + before)
            stream.write(content)
        self._missing[name] -= content.nbytes

    def close(self) -> None:
        """Check that all tensors came, and each whole."""
        lacking = sorted(name for name, size in self._missing.items() if size)
        if lacking:
            raise CheckpointError(f"tensor {lacking[0]} was not merged")


def _reserve(stream: int, file: Path, size: int) -> None:
    """Claim the disk for a file before anything is merged; StorageError where there is not so much."""
    try:
        os.posix_fallocate(stream, 0, size)
    except AttributeError:  # this system cannot
        return
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return
        os.ftruncate(stream, 0)
        free = shutil.disk_usage(file.parent).free
        raise StorageError(
            f"{file}: cannot be written: no space left on the disk, {free / GIB:.2f} GiB for a file of "
            f"{size / GIB:.2f} GiB; make room"
        ) from None


def write(
    folder: Path,
    tensors: Iterable[Piece],
    like: Checkpoint,
    *,
    dtype: str | None = None,
    card: str = "",
    shard_bytes: int = 5_000_000_000,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint into an empty folder, with the tensors, configuration and tokenizer of `like`, but
    for the `shapes` of some tensors and the entries `about` of the configuration. `dtype`, such as bfloat16,
    is that of all floating-point tensors; their own when empty."""
    wanted = next((code for code, one in DTYPES.items() if dtype and one == getattr(torch, dtype)), None)
    planned = {
        name: (wanted if wanted and DTYPES[own].is_floating_point else own, (shapes or {}).get(name, shape))
        for name, (own, shape) in like.headers.items()
    }
    shards = Shards(folder, planned, shard_bytes)
    for name, tensor, start in tensors:
        shards.add(name, tensor.to(DTYPES[planned[name][0]]), start)
    shards.close()
    for name in BESIDE:
        if (like.folder / name).is_file():
            shutil.copyfile(like.folder / name, folder / name)
    (folder / "README.md").write_text(card)
    config = {**like.config, **(about or {}), **({"dtype": dtype} if dtype else {})}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
