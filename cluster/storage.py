"""Run storage: one directory per run, on any filesystem that pyarrow opens, and the only state there is.

    run.json                 configuration, its hash, fingerprints of the input files, version
    lease.json               who is writing, renewed while it lives
    steps/<key>/<files>      what a step wrote, under names that its key fixes
    steps/<key>/manifest.json  written last: a step with a manifest is done

Every file is published atomically: on a local disk it is written under a temporary dot-name and renamed; on
an object store a single PUT is atomic, and is made when all is there. A step that was cut off leaves
files without a manifest; it is redone from nothing over the same names.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

LEASE_S = 30.0


class ResumeError(Exception):
    """A run directory that cannot be continued; the message says what differs and what to do."""


class StorageError(Exception):
    """Something could not be read or written; the message names the file."""


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: the form that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object, length: int = 12) -> str:
    """Hex digest of a JSON value."""
    return hashlib.blake2b(canonical(value).encode(), digest_size=32).hexdigest()[:length]


def bytes_digest(data: bytes | pa.Buffer) -> str:
    """Hex digest of the content of a file."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """Hex digest of a local file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Storage:
    """Files below one directory of a `pyarrow.fs` filesystem; paths are relative to it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        try:
            if "://" in uri:
                self.fs, self.root = pafs.FileSystem.from_uri(uri)
            else:
                self.fs, self.root = pafs.LocalFileSystem(), str(Path(uri).absolute())
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(f"{uri}: not a place to store files: {_reason(error)}") from None
        self.local = isinstance(self.fs, pafs.LocalFileSystem)

    def at(self, path: str) -> str:
        """Full path inside the filesystem."""
        return f"{self.root}/{path}" if path else self.root

    def below(self, path: str) -> "Storage":
        """The storage of a sub-directory."""
        place, mark, options = self.uri.partition("?")
        storage = object.__new__(Storage)
        storage.fs, storage.local = self.fs, self.local
        storage.uri = f"{place.rstrip('/')}/{path}{mark}{options}"
        storage.root = self.at(path)
        return storage

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory."""
        try:
            return bool(self.fs.get_file_info(self.at(path)).type != pafs.FileType.NotFound)
        except OSError as error:
            raise StorageError(f"{self.at(path)}: cannot be looked up: {_reason(error)}") from error

    def names(self, path: str = "") -> list[str]:
        """Sorted names of the published files in a directory; empty when it does not exist."""
        selector = pafs.FileSelector(self.at(path), allow_not_found=True)
        try:
            names = [info.base_name for info in self.fs.get_file_info(selector)]
        except OSError as error:
            raise StorageError(f"{self.at(path)}: cannot be listed: {_reason(error)}") from error
        return sorted(name for name in names if not name.startswith("."))

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[pa.NativeFile]:
        """A stream whose content appears under `path` all at once, or not at all."""
        try:
            with self._renamed(path) if self.local else self._put(path) as stream:
                yield stream
        except OSError as error:
            raise StorageError(f"{self.at(path)}: cannot be written: {_reason(error)}") from error

    @contextlib.contextmanager
    def _renamed(self, path: str) -> Iterator[pa.NativeFile]:
        folder, _, name = self.at(path).rpartition("/")
        draft = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}.tmp"
        self.fs.create_dir(folder, recursive=True)
        try:
            with self.fs.open_output_stream(draft) as stream:
                yield stream
            self.fs.move(draft, self.at(path))
        except BaseException:
            with contextlib.suppress(OSError):
                self.fs.delete_file(draft)
            raise

    @contextlib.contextmanager
    def _put(self, path: str) -> Iterator[pa.NativeFile]:
        """Closing a stream publishes it, after an error too: so nothing is sent before all is there."""
        buffer = pa.BufferOutputStream()
        yield buffer
        with self.fs.open_output_stream(self.at(path)) as stream:
            stream.write(buffer.getvalue())

    def write_bytes(self, path: str, data: bytes) -> None:
        """Publish a file."""
        with self.writing(path) as stream:
            stream.write(data)

    def read_bytes(self, path: str) -> bytes:
        """Content of a file; StorageError when it cannot be read."""
        try:
            with self.fs.open_input_stream(self.at(path)) as stream:
                return bytes(stream.read())
        except OSError as error:
            raise StorageError(f"{self.at(path)}: cannot be read: {_reason(error)}") from error

    def write_json(self, path: str, value: object) -> None:
        """Publish a JSON file for people: indented, keys in their given order."""
        self.write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def read_json(self, path: str) -> Any:  # noqa: ANN401
        """Value of a JSON file."""
        data = self.read_bytes(path)
        try:
            return json.loads(data)
        except ValueError as error:
            raise StorageError(f"{self.at(path)}: not readable as JSON: {error}") from None

    def write_table(self, path: str, table: pa.Table) -> None:
        """Publish a Parquet file."""
        with self.writing(path) as stream:
            pq.write_table(table, stream, compression="zstd")

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Table of a Parquet file."""
        try:
            with self.fs.open_input_file(self.at(path)) as stream:
                # Not `pq.read_table`, which imports pyarrow.dataset: a third of a second in every worker.
                table = pq.ParquetFile(stream, pre_buffer=True).read(columns)
                return table if columns is None else table.select(columns)
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            raise StorageError(f"{self.at(path)}: not readable as Parquet: {_reason(error)}") from error

    def put_folder(self, path: str, folder: Path) -> None:
        """Publish the files of a local folder, one by one, below `path`."""
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            with (
                self.writing(f"{path}/{file.relative_to(folder).as_posix()}") as stream,
                file.open("rb") as source,
            ):
                shutil.copyfileobj(source, stream)

    @contextlib.contextmanager
    def folder(self, path: str) -> Iterator[Path]:
        """A local folder with the files below `path`: the place itself, or a temporary copy."""
        if self.local:
            yield Path(self.at(path))
            return
        with tempfile.TemporaryDirectory() as copy:
            pafs.copy_files(self.at(path), copy, source_filesystem=self.fs)
            yield Path(copy)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())


class Step:
    """A unit of work of a run; done when its manifest exists."""

    def __init__(self, run: Storage, name: str, identity: object) -> None:
        self.key = f"{name}-{digest([name, identity])}"
        self.files = run.below(f"steps/{self.key}")

    @property
    def manifest(self) -> dict[str, Any] | None:
        """What was committed; None while the step is not done."""
        return self.files.read_json("manifest.json") if self.files.exists("manifest.json") else None

    def commit(self, **facts: Any) -> dict[str, Any]:  # noqa: ANN401
        """Declare the step done; call it after all its files are written."""
        manifest = {"key": self.key, **facts}
        self.files.write_json("manifest.json", manifest)
        return manifest


class Run(Storage):
    """A run directory that belongs to one configuration."""

    @classmethod
    def open(cls, uri: str, config: Mapping[str, Any], inputs: Mapping[str, str], version: str) -> "Run":
        """Create the run or continue it; ResumeError when it belongs to something else.

        `config` is the resolved configuration without what cannot change results; `inputs` are digests of
        the files it names.
        """
        run = cls(uri)
        mine = {"version": version, "hash": digest(config), "config": dict(config), "inputs": dict(inputs)}
        if not run.exists("run.json"):
            if run.names():
                raise ResumeError(f"{uri}: not empty and not a run; name another directory with --run")
            run.write_json("run.json", mine)
            return run
        theirs = run.read_json("run.json")
        changed = differences(theirs["config"], config)
        changed += ["version"] if theirs["version"] != version else []
        changed += [f"{path} (content)" for path in differences(theirs["inputs"], inputs)]
        if changed:
            raise ResumeError(
                f"{uri}: belongs to another configuration; it differs in {', '.join(changed[:5])}"
                f"{' …' if len(changed) > 5 else ''}; "
                "name another directory with --run, or start over with --fresh"
            )
        return run

    def step(self, name: str, identity: object) -> Step:
        """The step of a name and of everything it depends on."""
        return Step(self, name, identity)

    def adopt(self, other: Storage, path: str) -> None:
        """Take what is below a path of another run and absent here, manifests last: as links on one disk, as
        published files never change, else as copies."""
        selector = pafs.FileSelector(other.at(path), allow_not_found=True, recursive=True)
        files = [info.path for info in other.fs.get_file_info(selector) if info.type == pafs.FileType.File]
        names = [file.removeprefix(f"{other.root}/") for file in files]
        for name in sorted(names, key=lambda name: (name.endswith("/manifest.json"), name)):
            if not name.rpartition("/")[2].startswith(".") and not self.exists(name):
                self._take(other, name)

    def _take(self, other: Storage, name: str) -> None:
        if self.local and other.local:
            place = Path(self.at(name))
            place.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                place.hardlink_to(other.at(name))
                return
        self.write_bytes(name, other.read_bytes(name))

    def take_lease(self, owner: str) -> None:
        """Become the writer; ResumeError when another one is alive."""
        if self.exists("lease.json"):
            lease = self.read_json("lease.json")
            if lease["owner"] != owner and _alive(lease):
                raise ResumeError(
                    f"{self.uri}: process {lease['pid']} on {lease['host']} is writing this run; "
                    f"stop it, or wait {LEASE_S:.0f} seconds after it has gone"
                )
        self.renew_lease(owner)

    def renew_lease(self, owner: str) -> None:
        """Say that the writer still lives."""
        lease = {
            "owner": owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "expires": time.time() + LEASE_S,
        }
        self.write_json("lease.json", lease)

    def drop_lease(self) -> None:
        """Give the run back."""
        with contextlib.suppress(OSError):
            self.fs.delete_file(self.at("lease.json"))


def _alive(lease: Mapping[str, Any]) -> bool:
    if time.time() >= lease["expires"]:
        return False
    here = lease["host"] == socket.gethostname() and Path("/proc").exists()
    return Path(f"/proc/{lease['pid']}").exists() if here else True


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:  # noqa: ANN401
    """Dotted keys whose values differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            d for key in keys for d in differences(old.get(key), new.get(key), f"{prefix}.{key}".lstrip("."))
        ]
    return [] if canonical(old) == canonical(new) else [prefix or "everything"]


def fresh(uri: str) -> str:
    """A run directory that does not exist yet: the given one, or it with a number appended."""
    place, mark, options = uri.partition("?")
    candidate, number = uri, 2
    while Storage(candidate).exists(""):
        candidate, number = f"{place.rstrip('/')}-{number}{mark}{options}", number + 1
    return candidate
