"""Files that processes of a node read from one memory."""

import os
import stat
import tempfile
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from cluster import mapped as module
from cluster.mapped import mapped
from cluster.storage import Storage, StorageError, bytes_digest

CONTENT = b"outputs of experts" * 1000


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The folder for temporary files of this node."""
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    return tmp_path / "node"


@pytest.fixture
def remote(tmp_path) -> Storage:
    """A storage that is not of this machine, as far as anybody can tell."""
    files = Storage(str(tmp_path / "bucket"))
    files.write_bytes("stored", CONTENT)
    files.fs, files.local = pafs.SubTreeFileSystem("/", pafs.LocalFileSystem()), False
    return files


def test_a_local_file_is_mapped_where_it_is(tmp_path, temporary):
    files = Storage(str(tmp_path / "run"))
    files.write_bytes("stored", CONTENT)
    content = mapped(files, "stored", bytes_digest(CONTENT))
    assert content.to_pybytes() == CONTENT
    assert str(tmp_path / "run/stored") in Path("/proc/self/maps").read_text()
    assert not list(temporary.iterdir())
    with pytest.raises(StorageError, match=r"run/gone: cannot be read: .*No such file"):
        mapped(files, "gone", "")


def test_a_remote_file_is_copied_to_the_node_once(remote, temporary, monkeypatch):
    known, asked = bytes_digest(CONTENT), []
    read = Storage.read_bytes
    monkeypatch.setattr(Storage, "read_bytes", lambda files, name: asked.append(name) or read(files, name))
    several = [mapped(remote, "stored", known) for _ in range(3)]
    assert {one.to_pybytes() for one in several} == {CONTENT}
    assert asked == ["stored"]
    (folder,) = temporary.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / known).write_bytes(CONTENT[:100])  # a copy that is not whole
    assert mapped(remote, "stored", known).to_pybytes() == CONTENT
    assert asked == ["stored"] * 2


def test_copies_used_last_are_kept(remote, temporary, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    for number in range(3):
        remote.local = True
        remote.write_bytes(str(number), CONTENT + bytes([number]))
        remote.local = False
        content = mapped(remote, str(number), bytes_digest(CONTENT + bytes([number])))
        os.utime(next(temporary.iterdir()) / bytes_digest(CONTENT + bytes([number])), (number, number))
    assert content.to_pybytes()[-1] == 2
    assert len(list(next(temporary.iterdir()).iterdir())) == 2


def test_without_room_for_a_copy_each_process_reads_its_own(remote, temporary, monkeypatch):
    def full(files, name, content):
        raise StorageError(f"{name}: cannot be written: No space left on device")

    monkeypatch.setattr(Storage, "write_bytes", full)
    assert mapped(remote, "stored", bytes_digest(CONTENT)).to_pybytes() == CONTENT
    with pytest.raises(StorageError, match="gone"):
        mapped(remote, "gone", "")


def test_what_another_process_is_writing_is_left_alone(remote, temporary, monkeypatch):
    mapped(remote, "stored", bytes_digest(CONTENT))
    (folder,) = temporary.iterdir()
    (folder / ".draft.tmp").write_bytes(b"half")
    os.utime(folder / ".draft.tmp", (0, 0))
    monkeypatch.setattr(module, "KEPT", 1)
    mapped(remote, "stored", bytes_digest(CONTENT))
    assert (folder / ".draft.tmp").exists()


def test_a_folder_that_others_may_write_to_is_not_used(remote, temporary):
    folder = temporary / f"amalgam-{os.getuid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    assert mapped(remote, "stored", bytes_digest(CONTENT)).to_pybytes() == CONTENT
    assert not list(folder.iterdir())
