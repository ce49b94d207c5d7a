"""Merging from Python: of folders without texts, and of models whose texts are known."""

import shutil

import pytest
import torch
from transformers import BertForSequenceClassification

from jobs import merge as job
from jobs.api import ConfigError, merge
from tests.actors.merging.conftest import reviews  # noqa: F401 - fixture
from tests.experts import LABELS, bert

pytestmark = [pytest.mark.ray, pytest.mark.long]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two tiny classifiers, named after voices of the small corpus."""
    folder = tmp_path_factory.mktemp("pair")
    return [bert(folder / name, LABELS, seed) for seed, name in enumerate(("critic", "fan"))]


@pytest.fixture(scope="module")
def averaged(ray_session, pair, tmp_path_factory):
    """Their average, in a run directory and copied."""
    folder = tmp_path_factory.mktemp("averaged")
    done = merge(pair, method="simple", run=folder / "run", out=folder / "out", progress=False)
    return done, folder


def test_an_average_is_loaded_by_transformers(averaged, pair):
    done, folder = averaged
    parents = [BertForSequenceClassification.from_pretrained(place) for place in pair]
    name = "bert.encoder.layer.0.output.dense.weight"
    weights = [model.state_dict()[name] for model in (*parents, done.model)]
    assert torch.allclose(weights[2], (weights[0] + weights[1]) / 2, atol=1e-6)
    assert done.tokenizer("a plain ending").input_ids
    assert set(done.classifier.predict(["The plot is a delight.", "The score is a bore."])) <= set(LABELS)
    assert done.summary["result"] == "simple" and done.methods.empty
    assert (folder / "out/model.safetensors").read_bytes() == (
        folder / "run/model/model.safetensors"
    ).read_bytes()


def test_a_finished_merge_is_read_and_copied_where_there_is_room(averaged, pair, tmp_path, monkeypatch):
    done, folder = averaged
    monkeypatch.setattr(job, "connect", lambda address: pytest.fail("nothing is to be started"))
    options = {"method": "simple", "run": folder / "run"}
    again = merge(pair, **options, out=folder / "out")
    assert again.summary == done.summary
    shutil.copytree(folder / "out", tmp_path / "other")
    (tmp_path / "other/config.json").write_text("{}")
    with pytest.raises(ConfigError, match="other: not empty; name another folder"):
        merge(pair, **options, out=tmp_path / "other")
    assert (tmp_path / "other/config.json").read_text() == "{}"


def test_models_are_measured_on_the_texts_of_their_names(ray_session, pair, reviews, tmp_path):  # noqa: F811
    settings = {"methods": ["simple", "regmean"], "statistics__sequences": 24, "statistics__max_length": 32}
    data = {"path": str(reviews), "train_limit": 40, "test_limit": 20}
    named = dict(zip(("critic", "fan"), pair, strict=True))
    done = merge(named, data=data, run=tmp_path / "run", progress=False, **settings)
    assert {"critic", "fan", "simple", "regmean", "ensemble"} <= set(done.methods.index)
    assert (
        done.methods.loc["regmean", "in_domain"]
        == done.summary["methods"]["regmean"]["in_domain"]["accuracy"]
    )
    assert 0 <= done.summary["objective_ratio"] <= 1 and "regmean" in str(done)


def test_what_cannot_be_merged_is_said(pair, tmp_path):
    with pytest.raises(ConfigError, match="regmean needs a domain of data"):
        merge(pair, run=tmp_path / "run")
    with pytest.raises(ConfigError, match="several have the same folder name"):
        merge([pair[0], pair[0]], run=tmp_path / "run")
    with pytest.raises(ConfigError, match="methods: slerp merges two models"):
        merge(dict.fromkeys("abc", pair[0]), method="slerp", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
