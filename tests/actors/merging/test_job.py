"""The merging job from texts to checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from actors.board import Board
from actors.merging import solving
from actors.merging.checkpoints import Checkpoint
from actors.merging.errors import CheckpointError
from actors.merging.grams import read_manifest
from actors.merging.job import MergeJob
from actors.steps.runner import StepError, Steps
from cluster.session import Session
from cluster.storage import Run, Storage
from configs.schema.base import identity
from configs.schema.merge import MergeConfig
from tests.actors.merging.conftest import config, merge
from tests.docs.blocks import undocumented


def step(run, name):
    """Keys of the steps of a name."""
    return [key for key in run.names("steps") if key.startswith(f"{name}-")]


def checkpoints(run, kind):
    """Folders of the checkpoints that steps of a kind have written."""
    return [Checkpoint(run_folder(run, key)) for key in step(run, kind)]


def run_folder(run, key):
    return Path(run.at(f"steps/{key}/model"))


def published(run):
    """By name, the folders of each model and of its Gram files."""
    known = {
        run.read_json(f"steps/{key}/grams.json")["fingerprint"]: key for key in step(run, "collect-grams")
    }
    models = {Checkpoint(run_folder(run, key)).fingerprint(): key for key in step(run, "tune")}
    return {
        run.read_json(f"steps/{known[one]}/grams.json")["model"]: (
            run.at(f"steps/{models[one]}/model"),
            run.at(f"steps/{known[one]}"),
        )
        for one in models
    }


def test_every_method_is_judged_in_its_domains_and_elsewhere(merged):
    summary, _ = merged
    assert summary["status"] == "done" and summary["result"] == "regmean"
    assert undocumented("merge", summary) == set()
    names = {"simple", "fisher", "regmean", "regmean@0.5", "regmean_pp"}
    names |= {"task_arithmetic", "ties", "dare", "slerp"}
    assert set(summary["methods"]) == {*names, "critic", "fan", "ensemble", "own_expert"}
    for name in (*names, "ensemble"):
        one = summary["methods"][name]
        assert {"critic", "fan", "grump", "in_domain", "held_out"} <= set(one)
        assert 0 <= one["in_domain"]["accuracy"] <= 1 and one["in_domain"]["n"] == 40
        mean = (one["critic"]["accuracy"] + one["fan"]["accuracy"]) / 2
        assert one["in_domain"]["accuracy"] == pytest.approx(mean, abs=1e-6)
    assert "against_result" in summary["methods"]["simple"]
    assert 0 < summary["objective_ratio"] < 1
    assert set(summary["tensors"]) == {"regmean", "average"}


def test_the_result_loads_and_runs(merged):
    _, run = merged
    model = AutoModelForSequenceClassification.from_pretrained(run.at("model"))
    tokenizer = AutoTokenizer.from_pretrained(run.at("model"))
    logits = model(**tokenizer("We watched it and the plot is a delight", return_tensors="pt")).logits
    assert logits.shape == (1, 2) and torch.isfinite(logits).all()
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert "| critic |" in (run_folder(run, step(run, "assemble")[0]) / "README.md").read_text()


def test_tensors_are_what_the_methods_say(merged):
    _, run = merged
    sources = checkpoints(run, "tune")
    rivals, name = checkpoints(run, "rival"), "bert.encoder.layer.0.attention.self.query.weight"
    tensors = [one[name] for one in rivals]
    averages = [t for t in tensors if torch.allclose(t, (sources[0][name] + sources[1][name]) / 2, atol=1e-7)]
    assert len(averages) == 1, "the simple average, and no other"
    assert all(not torch.equal(a, b) for i, a in enumerate(tensors) for b in tensors[:i])
    report = run.read_json(f"steps/{step(run, 'assemble')[0]}/tensors.json")
    assert report[name]["kind"] == "regmean" and report[name]["diagnostics"][0]["solver"] == "cholesky"
    assert report["bert.embeddings.word_embeddings.weight"]["kind"] == "average"


@pytest.mark.ray
def test_a_run_on_ray_is_the_one_without_byte_for_byte(merged, reviews, base, ray_session, tmp_path):
    small = config(reviews, base, methods=["regmean"], alphas=[])
    _, here = merge(small, tmp_path / "here")
    there = Run.open(str(tmp_path / "there"), identity(small), {}, "0")
    session = Session(local=False, cpus=0, gpus=0)
    MergeJob(small, session, there, Steps(there, lambda: False), Board()).run()
    for name in ("model.safetensors", "config.json"):
        assert here.read_bytes(f"model/{name}") == there.read_bytes(f"model/{name}")


def test_layers_solved_in_parts_are_those_solved_whole(reviews, base, tmp_path, monkeypatch):
    small = config(reviews, base, methods=["regmean"], alphas=[])
    _, whole = merge(small, tmp_path / "whole")
    monkeypatch.setattr(solving, "LARGE", 300)
    _, parts = merge(small, tmp_path / "parts")
    mine, theirs = (load_file(one.at("model/model.safetensors")) for one in (whole, parts))
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.allclose(tensor, theirs[name], atol=1e-6), name


def test_what_was_published_of_a_dead_solution_through_merged_layers_is_used(reviews, base, tmp_path):
    small = config(reviews, base, methods=["regmean_pp"], result="regmean_pp", alphas=[])
    _, whole = merge(small, tmp_path / "run")
    wanted = whole.read_bytes("model/model.safetensors")
    (key,) = step(whole, "solve-pp")
    folder = tmp_path / "run/steps" / key
    for name in ("manifest.json", "diagnostics.json", "1.json", "part-1-0.safetensors", "2.json"):
        (folder / name).unlink()
    (assembled,) = step(whole, "assemble")
    (tmp_path / "run/steps" / assembled / "manifest.json").unlink()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("part-0-*")}
    _, again = merge(small, tmp_path / "run")
    assert again.read_bytes("model/model.safetensors") == wanted
    assert kept and all(path.stat().st_mtime_ns == before for path, before in kept.items())


def test_what_was_published_of_a_dead_collection_is_used(reviews, base, tmp_path):
    small = config(reviews, base, methods=["regmean"], alphas=[])
    _, whole = merge(small, tmp_path / "run")
    wanted = whole.read_bytes("model/model.safetensors")
    for key in step(whole, "collect-grams"):
        files = Storage(whole.at(f"steps/{key}"))
        (run_folder(whole, key).parent / "manifest.json").unlink()
        (run_folder(whole, key).parent / "bert.encoder.layer.1.safetensors").unlink()
        assert files.exists("bert.encoder.layer.0.safetensors")
    for name in ("solve", "assemble"):
        for key in step(whole, name):
            (run_folder(whole, key).parent / "manifest.json").unlink()
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "run/steps").glob("collect*/bert.encoder.layer.0.*")}
    _, again = merge(small, tmp_path / "run")
    assert again.read_bytes("model/model.safetensors") == wanted
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())


def test_a_merger_that_sees_only_weights_and_gram_files(merged, base, tmp_path):
    _, run = merged
    places = published(run)
    for _, grams in places.values():
        about = read_manifest(Storage(grams))
        assert about["masked"] and about["sequences"] == 24
        assert "plot" not in json.dumps(about), "no text is published"
    apart = {
        "job": "merge",
        "models": [{"name": n, "model": m, "grams": g} for n, (m, g) in sorted(places.items())],
        "methods": ["regmean"],
    }
    summary, other = merge(MergeConfig.model_validate(apart), tmp_path / "apart")
    assert summary["methods"] == {}
    assert other.read_bytes("model/model.safetensors") == run.read_bytes("model/model.safetensors")


def test_an_owner_of_one_model_collects_what_others_merge(merged, reviews, tmp_path):
    _, run = merged
    ((name, (model, grams)), *_) = published(run).items()
    alone = {
        "job": "merge",
        "models": [{"name": name, "model": model, "domain": name}],
        "methods": ["regmean"],
        "data": run.read_json("run.json")["config"]["data"],
        "statistics": run.read_json("run.json")["config"]["statistics"],
    }
    summary, own = merge(MergeConfig.model_validate(alone), tmp_path / "alone")
    assert summary["status"] == "done" and summary["methods"] == {}
    there = {path.name: path.read_bytes() for path in Path(own.at("grams")).glob("*.safetensors")}
    assert there == {path.name: path.read_bytes() for path in Path(grams).glob("*.safetensors")}
    assert read_manifest(Storage(own.at("grams"))) == read_manifest(Storage(grams))
    assert not own.exists("model")


def test_models_that_are_given_are_judged_in_their_own_domains(merged, reviews, tmp_path):
    _, run = merged
    models = [{"name": f"on-{n}", "model": m, "domain": n} for n, (m, _) in sorted(published(run).items())]
    data = {"path": str(reviews), "count": 1, "train_limit": 40, "test_limit": 20}
    given = {"job": "merge", "methods": ["simple"], "result": "simple", "models": models, "data": data}
    summary, _ = merge(MergeConfig.model_validate(given), tmp_path / "run")
    assert {"critic", "fan", "grump"} <= set(summary["methods"]["simple"])
    assert {"on-critic", "on-fan", "ensemble", "own_expert"} < set(summary["methods"])


def test_gram_files_of_other_weights_are_refused(merged, tmp_path):
    _, run = merged
    (first, grams), (second, _) = published(run).values()
    models = [{"name": name, "model": one, "grams": grams} for name, one in (("a", first), ("b", second))]
    apart = MergeConfig.model_validate({"job": "merge", "methods": ["regmean"], "models": models})
    with pytest.raises((CheckpointError, StepError), match="were collected from other weights"):
        merge(apart, tmp_path / "run")


def test_gram_files_that_do_not_fit_are_named(merged, base, tmp_path):
    _, run = merged
    (mine, grams), (other, others) = published(run).values()
    broken = shutil.copytree(grams, tmp_path / "grams")
    file = broken / "bert.encoder.layer.0.safetensors"
    apart = {
        "job": "merge",
        "methods": ["regmean"],
        "models": [
            {"name": "a", "model": mine, "grams": str(broken)},
            {"name": "b", "model": other, "grams": others},
        ],
    }
    tensors = load_file(file)
    some = next(name for name in tensors if name.endswith(".S"))
    damages = {
        "nan": lambda: save_file({**tensors, some: tensors[some] * float("nan")}, file),
        "short": lambda: save_file({**tensors, some: tensors[some][:-1].clone()}, file),
        "missing": lambda: save_file({n: t for n, t in tensors.items() if n != some}, file),
        "cut": lambda: file.write_bytes(file.read_bytes()[:-9]),
    }
    for number, (kind, damage) in enumerate(damages.items()):
        damage()
        with pytest.raises(
            (CheckpointError, StepError), match=r"bert\.encoder\.layer\.0\.safetensors"
        ) as error:
            merge(MergeConfig.model_validate(apart), tmp_path / f"run{number}")
        assert "\n" not in str(error.value), kind
        save_file(tensors, file)
