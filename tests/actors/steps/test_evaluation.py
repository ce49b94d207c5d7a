"""The only steps that see real labels."""

import json

import numpy as np
import pyarrow as pa
import pytest

from actors.steps.data import read_step
from actors.steps.measures import measures
from configs.schema.base import ConfigError
from tests import corpus

LABELS = list(corpus.LABELS)


@pytest.fixture
def labelled(tmp_path):
    """An evaluation file."""
    path = tmp_path / "eval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in corpus.evaluation(20)))
    return {"path": str(path)}


def predict(bench, key, source):
    return bench.do("evaluation:predict", {"model": key, "eval": source, "labels": LABELS}, "predict")


def answers(bench, right, labels=(0, 1) * 10):
    labels = np.array(labels)
    predicted = np.where(right, labels, 1 - labels)
    table = pa.table({"label": labels, "predicted": predicted, "confidence": np.ones(len(labels))})
    return bench.commit("predict", {"predictions.parquet": table}, right=list(map(bool, right)))


def compare(bench, **keys):
    params = {"predictions": keys, "result": "mine", "seed": 1, "n_labels": 2}
    return bench.do("evaluation:compare", params, "compare")[1]["models"]


def test_predictions_cover_the_evaluation_set_in_order(bench, labelled):
    model, _ = bench.train(bench.chain())
    step, facts = predict(bench, model.key, labelled)
    table = read_step(bench.run, step.key, "predictions.parquet")
    assert facts == {"n": 20}
    assert table.column("label").to_pylist() == [0, 1] * 10
    assert set(table.column("predicted").to_pylist()) <= {0, 1}
    assert min(table.column("confidence").to_pylist()) >= 0.5


def test_an_evaluation_file_with_other_labels_is_one_line(bench, tmp_path):
    model, _ = bench.train(bench.chain())
    (tmp_path / "other.jsonl").write_text('{"text": "a", "label_name": "sports"}\n')
    with pytest.raises(ConfigError, match="'sports' is no label of the task; allowed: positive, negative"):
        predict(bench, model.key, {"path": str(tmp_path / "other.jsonl")})


def test_accuracy_interval_and_paired_difference(bench):
    mine = np.ones(20, bool)
    mine[:2] = False
    other = mine.copy()
    other[10:16] = False
    models = compare(bench, mine=answers(bench, mine), other=answers(bench, other))
    assert models["mine"]["accuracy"] == 0.9
    assert models["mine"]["n"] == 20
    low, high = models["mine"]["ci95"]
    assert low < 0.9 < high
    assert "against_result" not in models["mine"]
    against = models["other"]["against_result"]
    assert against["difference"] == 0.3
    assert against["ci95"][0] > 0
    assert against["p_value"] == 0.03125  # six discordant pairs, all one way: 2 / 2**6


def test_equal_models_do_not_differ(bench):
    right = np.arange(20) % 3 > 0
    other = answers(bench, right)
    against = compare(bench, mine=answers(bench, right), other=other)["other"]["against_result"]
    assert (against["difference"], against["p_value"]) == (0.0, 1.0)


def test_measures_of_a_model_that_says_one_label_only():
    score = measures(np.array([0, 1] * 10), np.zeros(20, int), 2, 1)
    assert score["accuracy"] == 0.5
    assert score["macro_f1"] == pytest.approx(1 / 3, abs=1e-6)


def found(bench, exact, f1, in_context=None):
    columns = {
        "exact": list(map(bool, exact)),
        "f1": list(map(float, f1)),
        "found": in_context or [True] * len(f1),
    }
    return bench.commit("predict", {"predictions.parquet": pa.table(columns)}, right=columns)


def test_f1_and_exact_match_of_answers(bench):
    mine = found(bench, [1, 1, 0, 0] * 5, [1, 1, 0.5, 0] * 5, [True] * 19 + [False])
    other = found(bench, [1, 0, 0, 0] * 5, [1, 0.5, 0.5, 0] * 5)
    params = {"predictions": {"mine": mine, "other": other}, "result": "mine", "seed": 1, "n_labels": 1}
    models = bench.do("evaluation:compare", {**params, "kind": "span"}, "compare")[1]["models"]
    assert {name: models["mine"][name] for name in ("f1", "exact_match", "n", "not_in_context")} == {
        "f1": 0.625,
        "exact_match": 0.5,
        "n": 20,
        "not_in_context": 1,
    }
    low, high = models["mine"]["ci95"]
    assert low < 0.625 < high
    against = models["other"]["against_result"]
    assert against["difference"] == 0.125
    assert against["p_value"] == pytest.approx(2 / 2**5, abs=0.03)  # five differences, all one way
