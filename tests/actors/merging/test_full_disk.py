"""A disk that is full: one line, nothing half-written, and the run goes on when there is room again."""

import contextlib
import errno
import os

import pytest

from actors.merging import checkpoints
from cluster.storage import Storage, StorageError
from tests.actors.merging.conftest import config, merge


class Disk:
    """Room for so many more files, in place of that of the system."""

    def __init__(self, monkeypatch):
        self.left: dict[str, int] = {}
        renamed, reserve = Storage._renamed, os.posix_fallocate

        @contextlib.contextmanager
        def published(storage, path):
            with renamed(storage, path) as stream:
                yield stream
                self.take("published", storage.at(path))

        def reserved(stream, start, size):
            self.take("reserved", "")
            reserve(stream, start, size)

        monkeypatch.setattr(Storage, "_renamed", published)
        monkeypatch.setattr(checkpoints.os, "posix_fallocate", reserved)

    def take(self, kind, path):
        if "steps/" not in path and kind == "published":
            return
        if kind in self.left:
            self.left[kind] -= 1
            if self.left[kind] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def whole(reviews, base, tmp_path_factory):
    """The bytes of a run on a disk that is large enough."""
    small = config(reviews, base, methods=["simple", "regmean"], alphas=[])
    return small, merge(small, tmp_path_factory.mktemp("whole") / "run")[1].read_bytes(
        "model/model.safetensors"
    )


@pytest.mark.parametrize("place", [{"published": 14}, {"reserved": 1}])
def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(whole, tmp_path, monkeypatch, place):
    small, wanted = whole
    disk = Disk(monkeypatch)
    disk.left = dict(place)
    with pytest.raises(StorageError, match=r"(?i)cannot be written: .*no space left on") as error:
        merge(small, tmp_path / "run")
    assert "\n" not in str(error.value)
    steps = tmp_path / "run/steps"
    assert not [path for path in (tmp_path / "run").rglob(".*") if path.is_file()], "no drafts stay"
    done = {path.parent.name: path.stat().st_mtime_ns for path in steps.glob("*/manifest.json")}
    half = [path for path in steps.glob("[ar][si]*/model") if path.parent.name not in done]
    assert done and not half, "no checkpoint that is not whole"
    disk.left = {}
    _, run = merge(small, tmp_path / "run")
    assert run.read_bytes("model/model.safetensors") == wanted
    kept = {path.parent.name: path.stat().st_mtime_ns for path in steps.glob("*/manifest.json")}
    assert done.items() <= kept.items(), "what was committed is not done again"
