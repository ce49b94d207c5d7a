"""What pins down the files of a model without reading all of them."""

from hashlib import blake2b
from pathlib import Path

from cluster.storage import Storage
from configs.load import locate

SLICES, SLICE = 64, 1 << 14


def fingerprint(model: str) -> str | None:
    """Digest of the files of a model's folder: names, sizes, and slices of their content.

    None for a hub id, which its revision pins down. Small files are read whole.
    """
    if "://" not in model and not locate(model).is_dir():
        return None
    files = Storage(model if "://" in model else str(locate(model)))
    digest = blake2b(digest_size=12)
    for name in files.names():
        if Path(name).suffix in {".safetensors", ".json", ".txt", ".model", ".jinja"}:
            _add(digest, files, name)
    return digest.hexdigest()


def _add(digest: blake2b, files: Storage, name: str) -> None:
    with files.fs.open_input_file(files.at(name)) as stream:
        size = stream.size()
        digest.update(f"{name} {size} ".encode())
        step = max(SLICE, size // SLICES)
        for start in range(0, size, step):
            digest.update(stream.read_at(min(SLICE, size - start), start))
