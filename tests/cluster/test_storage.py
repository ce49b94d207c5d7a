"""Run storage: atomic files, steps, refusal of other configurations, leases, non-local filesystems."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import storage
from cluster.storage import ResumeError, Run, Storage, StorageError

CONFIG = {"seed": 1, "samples": {"rounds": 4}}


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path):
    """An empty place on each kind of filesystem."""
    if request.param == "local":
        return str(tmp_path / "place")
    return request.getfixturevalue("bucket").format(tmp_path.name)


def opened(path, config=None, inputs=None):
    return Run.open(str(path), config or CONFIG, inputs or {}, "0")


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    files = Storage(str(tmp_path))
    files.write_bytes("a/b.txt", b"old")
    with pytest.raises(RuntimeError), files.writing("a/b.txt") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert files.read_bytes("a/b.txt") == b"old"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_files_that_are_being_written_are_not_listed(tmp_path):
    files = Storage(str(tmp_path))
    with files.writing("x.parquet") as stream:
        stream.write(b"1")
        assert files.names() == []
    assert files.names() == ["x.parquet"]


def test_missing_directory_has_no_names(place):
    assert Storage(place).names("nothing/here") == []


def test_table_survives_a_round_trip(place):
    files = Storage(place)
    table = pa.table({"text": ["ä", "b"], "n": [1, 2]})
    files.write_table("t.parquet", table)
    assert files.read_table("t.parquet").equals(table)
    assert files.read_table("t.parquet", ["n"]).column_names == ["n"]


def test_unreadable_files_are_one_clear_line(tmp_path):
    files = Storage(str(tmp_path))
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    (tmp_path / "bad.json").write_bytes(b"{")
    for read in (lambda: files.read_table("bad.parquet"), lambda: files.read_json("bad.json")):
        with pytest.raises(StorageError, match="not readable") as caught:
            read()
        assert "\n" not in str(caught.value)
    with pytest.raises(StorageError, match="cannot be read"):
        files.read_bytes("absent")


@pytest.mark.faults
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    files = Storage(str(tmp_path))

    class FullDisk(pafs.LocalFileSystem):
        def open_output_stream(self, path, *args, **kwargs):
            return super().open_output_stream("/dev/full", *args, **kwargs)

    files.fs = FullDisk()
    with pytest.raises(StorageError, match="No space left"):
        files.write_bytes("a.bin", b"x" * (1 << 20))
    assert files.names() == []


def test_step_is_done_when_its_manifest_exists(place):
    run = opened(place)
    step = run.step("train", {"a": 1})
    step.files.write_bytes("model.bin", b"1")
    assert step.manifest is None
    step.commit(n=3)
    assert run.step("train", {"a": 1}).manifest == {"key": step.key, "n": 3}
    assert run.step("train", {"a": 2}).manifest is None
    assert run.step("other", {"a": 1}).key != step.key


def test_the_order_of_keys_does_not_change_a_step(place):
    run = opened(place)
    assert run.step("s", {"a": 1, "b": 2}).key == run.step("s", {"b": 2, "a": 1}).key


def test_same_configuration_is_continued(place):
    opened(place, inputs={"f": "1"})
    assert opened(place, inputs={"f": "1"}).read_json("run.json")["config"] == CONFIG


def test_another_configuration_is_refused_with_its_keys(place):
    opened(place)
    with pytest.raises(ResumeError, match=r"samples\.rounds.*--fresh"):
        opened(place, {"seed": 1, "samples": {"rounds": 5}})
    with pytest.raises(ResumeError, match="seed"):
        opened(place, {"seed": 2, "samples": {"rounds": 4}})
    assert opened(place).read_json("run.json")["config"] == CONFIG


def test_changed_input_file_is_refused(place):
    opened(place, inputs={"eval.jsonl": "1"})
    with pytest.raises(ResumeError, match=r"eval\.jsonl \(content\)"):
        opened(place, inputs={"eval.jsonl": "2"})


def test_a_directory_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ResumeError, match="not a run"):
        opened(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_fresh_finds_a_new_name_and_deletes_nothing(place):
    assert storage.fresh(place) == place
    opened(place)
    opened(storage.fresh(place))
    path, mark, options = place.partition("?")
    assert storage.fresh(place) == f"{path}-3{mark}{options}"
    assert Run(place).exists("run.json")


def test_a_living_writer_is_respected_and_a_dead_one_is_not(tmp_path):
    run = opened(tmp_path / "run")
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        run.take_lease("first")
        lease = run.read_json("lease.json")
        run.write_json("lease.json", {**lease, "pid": sleeper.pid})
        with pytest.raises(ResumeError, match=str(sleeper.pid)):
            run.take_lease("second")
    finally:
        sleeper.kill()
        sleeper.wait()
    run.take_lease("second")
    assert run.read_json("lease.json")["owner"] == "second"
    run.drop_lease()
    assert not run.exists("lease.json")


def test_a_lease_on_another_machine_lasts_until_it_expires(tmp_path):
    run = opened(tmp_path / "run")
    run.take_lease("here")
    lease = run.read_json("lease.json")
    run.write_json("lease.json", {**lease, "owner": "there", "host": "elsewhere"})
    with pytest.raises(ResumeError, match="elsewhere"):
        run.take_lease("here")
    run.write_json("lease.json", {**lease, "owner": "there", "host": "elsewhere", "expires": 0})
    run.take_lease("here")


def test_an_interrupted_upload_leaves_the_old_file(bucket, tmp_path):
    """Object stores publish a file with a single PUT: no temporary names, no moves."""
    files = Storage(bucket.format(tmp_path.name))
    files.write_bytes("a.txt", b"old")
    with pytest.raises(RuntimeError), files.writing("a.txt") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert files.read_bytes("a.txt") == b"old"
    assert files.names() == ["a.txt"]


def test_a_folder_is_stored_and_found_again(place, tmp_path):
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "w.bin").write_bytes(b"7")
    (tmp_path / "model" / "deep" / "c.json").write_text("{}")
    files = Storage(place)
    files.put_folder("stm", tmp_path / "model")
    with files.folder("stm") as folder:
        assert (folder / "w.bin").read_bytes() == b"7"
        assert (folder / "deep" / "c.json").read_text() == "{}"


def test_a_lease_keeps_others_out_on_every_storage(place):
    run = opened(place)
    run.take_lease("first")
    run.write_json("lease.json", {**run.read_json("lease.json"), "host": "elsewhere"})
    with pytest.raises(ResumeError, match="elsewhere"):
        run.take_lease("second")
    run.renew_lease("first")
    run.drop_lease()


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_digest_depends_on_content_alone(value):
    assert storage.digest(value) == storage.digest(dict(reversed(value.items())))


def test_a_run_takes_over_what_it_lacks(tmp_path):
    other, mine = Run(str(tmp_path / "other")), Run(str(tmp_path / "mine"))
    step = other.step("answers", 1)
    step.files.write_bytes("answers/1", b"theirs")
    step.files.write_bytes("answers/.draft", b"unfinished")
    step.commit(n=1)
    mine.write_bytes(f"steps/{step.key}/answers/2", b"mine")
    mine.adopt(other, f"steps/{step.key}")
    mine.adopt(other, "nothing")
    assert mine.step("answers", 1).manifest == step.manifest
    assert mine.names(f"steps/{step.key}/answers") == ["1", "2"]
