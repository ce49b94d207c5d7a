"""The merging job as a person starts it: plans, tables, and what is refused before anything starts."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from actors.merging.checking import planned, short_of
from actors.merging.errors import CheckpointError
from actors.merging.estimating import estimate, gram_work
from actors.merging.texts import limited, read
from jobs import merge, report
from tests.actors.merging.conftest import base, config, merged, reviews  # noqa: F401 - fixtures
from tests.experts import bert as tiny
from tests.fusion.merging.families import make


@pytest.fixture
def pair(tmp_path):
    """Two models on disk, and a job that merges them."""
    for name in "ab":
        make("llama", seed=ord(name), spread=0.1).float().save_pretrained(tmp_path / name)
        (tmp_path / name / "tokenizer.json").write_text("{}")
    models = [{"name": name, "model": str(tmp_path / name)} for name in "ab"]
    job = {"job": "merge", "models": models, "methods": ["simple"], "result": "simple"}
    (tmp_path / "merge.yaml").write_text(yaml.safe_dump(job))
    return tmp_path


def start(folder, **changes):
    options = {"plan": True, "start_over": False, "address": "local", **changes}
    merge.main(str(folder / "merge.yaml"), [], str(folder / "run"), **options)


def test_a_plan_says_what_will_be_done_and_starts_nothing(pair, capsys):
    (pair / "b/tokenizer.json").write_text('{"other": 1}')
    start(pair)
    said = capsys.readouterr().out
    assert "models    2 x 0.00 GiB, llama" in said
    assert re.search(r"tensors   \d+ average, \d+ regmean", said)
    assert "warning: the models' tokenizer.json differ; the result has that of a" in said
    assert re.search(r"disk      0.00 GiB: 0.00 merged models", said) and "memory    0." in said
    assert not (pair / "run").exists()


def test_a_plan_counts_what_will_be_written_and_multiplied(merged, reviews, base, tmp_path, capsys):  # noqa: F811
    _, run = merged
    small = config(reviews, base)
    plans = planned(small, [], ["critic", "fan"])
    needs = estimate(small, plans, limited(read(small.data, small.seed), small.data, small.seed))
    kinds = {
        "fine-tuned models": "tune-*/model/*.safetensors",
        "Gram matrices": "collect-grams-*/*.safetensors",
        "Fisher information": "collect-fisher-*/*.safetensors",
        "solved layers": "solve-*/*.safetensors",
        "merged models": "[ar][si]*/model/*.safetensors",
    }
    assert needs.disk.keys() == kinds.keys()
    for kind, pattern in kinds.items():
        written = sum(path.stat().st_size for path in Path(run.at("steps")).glob(pattern))
        assert needs.disk[kind] == pytest.approx(written, rel=0.25), kind
    assert needs.work.keys() == {"fine-tuning", "collecting", "solving", "judging"}
    twice = config(reviews, base, statistics={**small.statistics.model_dump(), "sequences": 12})
    less = estimate(twice, plans, limited(read(small.data, small.seed), small.data, small.seed))
    assert (
        less.work["collecting"] < needs.work["collecting"] and less.work["solving"] == needs.work["solving"]
    )


def test_the_work_of_a_gram_matrix_is_that_of_its_panels():
    assert gram_work(384) == 2 * 384**2  # one product
    assert gram_work(2048) == 2048**2 * 17 / 16  # the panels above its diagonal, sixteen of them


def test_a_full_disk_is_warned_of(tmp_path):
    assert short_of(str(tmp_path / "runs/new"), 0) == []
    (said,) = short_of(str(tmp_path / "runs/new"), 1 << 60)
    assert said.startswith("1073741824.00 GiB will be written, ") and said.endswith(f"free at {tmp_path}")


def damaged(folder, kind):
    weights = folder / "b/model.safetensors"
    tensors = load_file(weights)
    if kind == "missing tensor":
        save_file({n: t for n, t in tensors.items() if n != "model.norm.weight"}, weights)
    elif kind == "shape":
        save_file({**tensors, "model.norm.weight": torch.ones(7)}, weights)
    elif kind == "vocabulary":
        save_file({**tensors, "model.embed_tokens.weight": torch.ones(5, 32)}, weights)
    elif kind == "cut":
        weights.write_bytes(weights.read_bytes()[:-3])
    elif kind == "family":
        config = json.loads((folder / "b/config.json").read_text())
        (folder / "b/config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    elif kind == "folder":
        for file in (folder / "b").iterdir():
            file.unlink()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing tensor", "b: tensor model.norm.weight is missing"),
        ("shape", r"b: tensor model.norm.weight has shape \(7,\), in a \(32,\)"),
        ("vocabulary", "vocabularies differ"),
        ("cut", "b: model.safetensors is incomplete"),
        ("family", "b: models of type mamba cannot be merged; allowed: "),
        ("folder", "no checkpoint"),
    ],
)
def test_models_that_do_not_fit_are_refused_before_anything_starts(pair, kind, words):
    damaged(pair, kind)
    with pytest.raises(CheckpointError, match=words) as error:
        start(pair, plan=False)
    assert "\n" not in str(error.value) and not (pair / "run").exists()


def test_strangers_are_warned_of(pair, capsys):
    make("llama", seed=3, spread=9.0).float().save_pretrained(pair / "b")
    start(pair)
    said = capsys.readouterr().out
    assert "warning: b does not seem to descend from the same model as a: the cosine of their model" in said


def classifiers(folder, reviews, **changes):  # noqa: F811
    """Two classifiers whose labels are mere numbers, and a job that merges them."""
    models = []
    for name in "ab":
        tiny(folder / name, ("LABEL_0", "LABEL_1"), seed=1)
        models.append(
            {"name": name, "model": str(folder / name), "domain": {"a": "critic", "b": "fan"}[name]}
        )
    job = {
        "job": "merge",
        "models": models,
        "methods": ["regmean"],
        "data": {"path": str(reviews)},
        **changes,
    }
    (folder / "merge.yaml").write_text(yaml.safe_dump(job))
    return folder


def test_labels_that_mean_nothing_are_not_merged_silently(tmp_path, reviews):  # noqa: F811
    with pytest.raises(CheckpointError, match="a and b call their labels LABEL_0 and so on, which may mean"):
        start(classifiers(tmp_path, reviews))
    for how in ("positions", "own"):
        start(classifiers(tmp_path, reviews, heads=how))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alpha": 1}, "a: bert.pooler.dense: 20 rows for 16 input features are too few for alpha = 1"),
        ({"alphas": [0.5, 1]}, "bert.pooler.dense: 20 rows"),
        (
            {"overrides": {"bert.encoder": 1}, "statistics": {"sequences": 2}},
            "bert.encoder.layer.0.output.dense: 50 rows",
        ),
        ({"alphas": [1], "statistics": {"sequences": 40}}, None),
        ({"alphas": [1], "overrides": {"bert.pooler": 0.5, "classifier": 0.5}}, None),
        ({"alphas": [1], "average": ["bert.pooler", "classifier"]}, None),
    ],
)
def test_unshrunk_solutions_need_rows(tmp_path, reviews, changes, words):  # noqa: F811
    folder = classifiers(tmp_path, reviews, heads="positions", **{"statistics": {"sequences": 20}, **changes})
    if words is None:
        start(folder)
        return
    with pytest.raises(CheckpointError, match=words):
        start(folder)


def test_the_result_is_a_table_and_a_page(merged):  # noqa: F811
    summary, run = merged
    table = merge.result_table(summary)
    assert "regmean@0.5" in table and "known without data" in table and "held out" in table
    assert report.write(run.uri, None).endswith("report.html")
    text = run.read_bytes("report.html").decode()
    assert "tensors" in text and "<svg" in text and "own model" in text
    assert text == report.render(summary, run.read_json("report.json"), run.read_json("run.json"))


def test_gram_files_are_inspected(merged, capsys):  # noqa: F811
    _, run = merged
    (key, _) = (k for k in run.names("steps") if k.startswith("collect-grams"))
    merge.inspect(run.at(f"steps/{key}"))
    said = capsys.readouterr().out
    assert "sequences        24" in said and re.search(r"matrices +10, of 24 to [\d,]+ rows", said)
