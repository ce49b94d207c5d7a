"""Checkpoints are read lazily, written in shards, and refused in one line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from actors.merging.checkpoints import INDEX, SINGLE, Checkpoint, fetch, write
from actors.merging.errors import CheckpointError

TENSORS = {f"t{i}": torch.arange(100, dtype=torch.float32) + i for i in range(5)}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    save_file(TENSORS, place / SINGLE)
    (place / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    (place / "tokenizer.json").write_text("{}")
    return place


def test_tensors_are_read_when_asked_for(folder):
    found = Checkpoint(folder, "mine")
    assert set(found) == set(TENSORS) and len(found) == 5
    assert torch.equal(found["t3"], TENSORS["t3"])
    assert found.headers["t0"] == ("F32", (100,)) and found.bytes == 5 * 400
    assert found.meta()["t1"].device.type == "meta"


@pytest.mark.parametrize(("limit", "files"), [(10_000, 1), (900, 3), (1, 5)])
def test_shards_hold_what_was_written_in_any_order(folder, tmp_path, limit, files):
    target = tmp_path / "out"
    target.mkdir()
    like = Checkpoint(folder)
    backwards = [
        piece for name, t in reversed(TENSORS.items()) for piece in ((name, t[60:], 60), (name, t[:60], 0))
    ]
    write(target, backwards, like, card="# Card\n", shard_bytes=limit)
    assert len(list(target.glob("*.safetensors"))) == files
    assert (target / INDEX).exists() == (files > 1)
    again = Checkpoint(target)
    assert again.config == like.config and (target / "tokenizer.json").exists()
    assert all(torch.equal(again[name], tensor) for name, tensor in TENSORS.items())
    assert all(
        torch.equal(load_file(file)[n], TENSORS[n])
        for file in target.glob("*.safetensors")
        for n in load_file(file)
    )
    if files > 1:
        assert json.loads((target / INDEX).read_text())["metadata"]["total_size"] == 2000


def test_another_number_format(folder, tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", [(n, t, 0) for n, t in TENSORS.items()], Checkpoint(folder), dtype="bfloat16")
    again = Checkpoint(tmp_path / "out")
    assert again["t2"].dtype == torch.bfloat16 and again.config["dtype"] == "bfloat16"


def test_a_checkpoint_that_lacks_a_tensor_is_not_finished(folder, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="tensor t4 was not merged"):
        write(tmp_path / "out", [(n, t, 0) for n, t in TENSORS.items() if n != "t4"], Checkpoint(folder))
    assert not (tmp_path / "out/config.json").exists()


def damage(folder, kind):
    weights = folder / SINGLE
    if kind == "cut":
        weights.write_bytes(weights.read_bytes()[:-5])
    elif kind == "nonsense":
        weights.write_bytes(b"nonsense")
    elif kind == "no weights":
        weights.unlink()
    elif kind == "missing shard":
        weights.rename(folder / "model-00001-of-00002.safetensors")
        places = {"t0": "model-00001-of-00002.safetensors", "t1": "model-00002-of-00002.safetensors"}
        (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    elif kind == "no config":
        (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("cut", "model.safetensors is incomplete"),
        ("nonsense", "model.safetensors cannot be read"),
        ("no weights", "other formats are not read"),
        ("missing shard", "model-00002-of-00002.safetensors is missing"),
        ("no config", "it has no config.json"),
    ],
)
def test_broken_folders_are_named(folder, kind, words):
    damage(folder, kind)
    with pytest.raises(CheckpointError, match=words) as error:
        Checkpoint(folder, "mine").headers  # noqa: B018
    assert "mine" in str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_not_asked_of_the_hub():
    with pytest.raises(CheckpointError, match="no such folder"):
        fetch("/nowhere/at/all")
