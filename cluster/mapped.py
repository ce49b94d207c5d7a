"""Files that the processes of a node read from one memory: mapped where they lie, or where a copy is.

A file of another storage is copied once per node, into a folder of the user's own for temporary files; those
used last are kept. Content is known by its digest, so that a copy that is not whole is made again.
"""

import os
import tempfile
from pathlib import Path

import pyarrow as pa

from cluster.storage import Storage, StorageError, file_digest

KEPT = 8
"""Copies that stay on a node."""


def mapped(files: Storage, name: str, digest: str) -> pa.Buffer:
    """The content of a file, which must not change; of a local one whatever it is now, of others what has
    this digest. StorageError when there is none."""
    try:
        path = Path(files.at(name)) if files.local else _copied(files, name, digest)
        with pa.memory_map(str(path)) as source:
            return source.read_buffer()
    except (OSError, StorageError) as error:
        if files.local:
            reason = getattr(error, "strerror", None) or error
            raise StorageError(f"{files.at(name)}: cannot be read: {reason}") from None
        return pa.py_buffer(files.read_bytes(name))  # no room on this node


def _copied(files: Storage, name: str, digest: str) -> Path:
    """The copy of a file on this node."""
    folder = Path(tempfile.gettempdir(), f"amalgam-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise PermissionError(f"{folder} belongs to others too")
    path = folder / digest
    if not path.is_file() or file_digest(path) != digest:
        Storage(str(folder)).write_bytes(digest, files.read_bytes(name))
    path.touch()
    published = [folder / one for one in Storage(str(folder)).names()]
    for old in sorted(published, key=lambda one: one.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path
