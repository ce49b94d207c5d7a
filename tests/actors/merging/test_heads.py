"""Heads of models with different labels: aligned by name, by position, or kept."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from actors.merging.checkpoints import Checkpoint
from actors.merging.errors import CheckpointError
from actors.merging.heads import heads_of
from configs.schema.merge import MergeConfig
from tests.actors.merging.conftest import merge
from tests.experts import bert

SETS = {
    "critic": ("positive", "mixed", "negative"),
    "fan": ("negative", "positive"),
    "grump": ("negative", "dull"),
}
WEIGHT, BIAS = "classifier.weight", "classifier.bias"


def models(folder, sets=SETS):
    """A tiny BERT per voice, with labels of its own."""
    return [bert(folder / name, labels, seed=number) for number, (name, labels) in enumerate(sets.items())]


def checkpoints(folder, sets):
    return [Checkpoint(place, place.name) for place in models(folder, sets)]


@pytest.fixture(scope="module")
def union(reviews, tmp_path_factory):
    """A merge of three models that share some labels."""
    folder = tmp_path_factory.mktemp("union")
    job = {
        "job": "merge",
        "models": [{"name": p.name, "model": str(p), "domain": p.name} for p in models(folder)],
        "data": {"path": str(reviews), "train_limit": 40, "test_limit": 20},
        "base": str(folder / "critic"),
        "methods": ["simple", "fisher", "regmean", "regmean_pp", "ties"],
        "statistics": {"sequences": 24, "max_length": 32, "batch_size": 8, "fisher_samples": 4},
    }
    summary, run = merge(MergeConfig.model_validate(job), folder / "run")
    return summary, run, [Checkpoint(folder / name) for name in SETS]


def test_the_merged_head_has_the_labels_of_all(union):
    summary, run, sources = union
    config = run.read_json("model/config.json")
    assert config["id2label"] == {"0": "positive", "1": "mixed", "2": "negative", "3": "dull"}
    assert config["label2id"] == {"positive": 0, "mixed": 1, "negative": 2, "dull": 3}
    merged = load_file(run.at("model/model.safetensors"))
    assert merged[WEIGHT].shape == (4, 16) and merged[BIAS].shape == (4,)
    assert torch.equal(merged[WEIGHT][1], sources[0][WEIGHT][1]), "a row of one model is copied"
    shared = torch.stack([sources[0][BIAS][2], sources[1][BIAS][0], sources[2][BIAS][0]])
    assert torch.allclose(merged[BIAS][2], shared.mean())
    assert not (run.below("model/heads")).names()
    assert set(summary["methods"]["regmean"]) >= {"critic", "fan", "grump", "in_domain"}
    reasons = run.read_json("report.json")["tensors"]
    assert reasons[WEIGHT]["reason"].startswith("by label") and len(reasons[WEIGHT]["diagnostics"]) == 2


def test_every_method_aligns_labels(union):
    _, run, sources = union
    heads = []
    for key in run.names("steps"):
        if key.startswith(("assemble-", "rival-")):
            merged = Checkpoint(Path(run.at(f"steps/{key}/model")))
            assert merged.shapes[WEIGHT] == (4, 16), key
            heads.append(merged[WEIGHT])
    assert len(heads) == 5
    assert all(torch.equal(a[1], b[1]) for a, b in pairwise(heads))
    average = (sources[0][WEIGHT][0] + sources[1][WEIGHT][1]) / 2
    assert sum(torch.allclose(head[0], average, atol=1e-6) for head in heads) == 3, "all but RegMean's two"


def test_labels_that_have_nothing_in_common_stay_apart(reviews, tmp_path):
    sets = {"critic": ("negative", "positive"), "fan": ("joy", "anger", "fear")}
    job = {
        "job": "merge",
        "models": [{"name": p.name, "model": str(p), "domain": p.name} for p in models(tmp_path, sets)],
        "data": {"path": str(reviews), "train_limit": 40, "test_limit": 20},
        "statistics": {"sequences": 24, "max_length": 32},
    }
    summary, run = merge(MergeConfig.model_validate(job), tmp_path / "run")
    assert summary["methods"] == {} and run.below("model/heads").names() == ["critic", "fan"]
    own = load_file(run.at("model/heads/fan/head.safetensors"))
    assert torch.equal(own[WEIGHT], Checkpoint(tmp_path / "fan")[WEIGHT])
    named = json.loads(run.read_bytes("model/heads/fan/labels.json"))
    assert named["id2label"] == {"0": "joy", "1": "anger", "2": "fear"}
    assert load_file(run.at("model/model.safetensors"))[WEIGHT].shape == (2, 16)


def test_what_heads_become(tmp_path):
    def kind(how="names", **sets):
        return heads_of(checkpoints(tmp_path / str(len(list(tmp_path.iterdir()))), sets), how).kind

    assert kind(a=("x", "y"), b=("x", "y")) == "same"
    assert kind(a=("x", "y"), b=("y", "x")) == "union"
    assert kind(a=("x", "y"), b=("z", "u")) == "own"
    assert kind(a=("x", "y"), b=("z", "u"), c=("y", "z")) == "union", "connected by the third"
    assert kind(a=("x", "y"), b=("LABEL_0", "LABEL_1")) == "own"
    assert kind("own", a=("x", "y"), b=("x", "y")) == "own"
    assert kind("positions", a=("x", "y"), b=("LABEL_0", "LABEL_1")) == "same"
    found = heads_of(checkpoints(tmp_path / "more", {"a": ("x", "y"), "b": ("p", "q", "r")}), "positions")
    assert found.space.labels == ("p", "q", "r") and found.space.rows == ((0, 0), (1, 1), (None, 2))
    with pytest.raises(CheckpointError, match="a and b call their labels 0 and so on"):
        kind(a=("0", "1"), b=("0", "1"))
