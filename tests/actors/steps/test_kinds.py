"""What models say of samples, as numbers that mean the same for all kinds of tasks."""

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from actors.steps.kinds import KINDS, Scores, kind_of
from actors.stms import create
from configs.schema.stm import SpanStm
from tests import questions


class Sure:
    """A model of labels that always says the same."""

    def predict_proba(self, encoded):
        return np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])


def test_scores_of_labels():
    scores = KINDS["label"].scores(Sure(), None, np.array([0, 1, 1]))
    assert_allclose(scores.asked, [0.9, 0.4, 0.8])
    assert_allclose(scores.error, [0.1, 0.6, 0.2])
    assert scores.right.tolist() == [True, False, True]


@pytest.fixture(scope="module")
def finder(tmp_path_factory):
    """A model of spans, its samples, and where their answers are."""
    folder = tmp_path_factory.mktemp("bert")
    spec = SpanStm(**{**questions.SPAN, "model": questions.small_bert(folder), "dtype": "float32"})
    rows = questions.contexts(8)
    samples = pa.table(
        {
            "id": [str(i) for i in range(8)],
            "text": [f"{row['sentence']}[SEP]When was that?" for row in rows],
            "answer": [row["year"] for row in rows],
            "answer_start": [row["sentence"].index(row["year"]) for row in rows],
        }
    )
    model = create(spec, ["question"], 0)
    targets = KINDS["span"].targets(samples)
    encoded = model.encode(samples.column("text").to_pylist())
    return model.fit(encoded, targets), encoded, samples, targets


def test_scores_of_spans_are_products_and_sums_of_both_ends(finder):
    model, encoded, _, targets = finder
    scores = KINDS["span"].scores(model, encoded, targets)
    places = model.places(encoded, targets)
    ends = [
        np.exp([row[0, i], row[1, j]]) for row, (i, j) in zip(model.predict(encoded), places, strict=True)
    ]
    assert_allclose(scores.each, ends)
    assert_allclose(scores.asked, scores.each[:, 0] * scores.each[:, 1])
    assert_allclose(scores.error, 2 - scores.each.sum(axis=1))
    answered = model.answers(encoded, model.predict(encoded))
    assert_array_equal(scores.right, (answered == targets).all(axis=1))


def test_scores_of_spans_are_read_as_they_were_written(finder, bench):
    model, encoded, samples, targets = finder
    scores = KINDS["span"].scores(model, encoded, targets)
    key = bench.commit("train", {"probabilities.parquet": KINDS["span"].table(samples.column("id"), scores)})
    read = KINDS["span"].read(bench.run, key, targets)
    for name in ("each", "asked", "error", "right"):
        assert_array_equal(getattr(read, name), getattr(scores, name))


def test_answers_to_real_questions_are_texts_and_say_how_right_they_are(finder):
    model, _, samples, _ = finder
    table = pa.table(
        {
            "text": samples.column("text"),
            "answers": [[f"the {year}", "no"] for year in samples.column("answer").to_pylist()],
            "found": [True] * 8,
        }
    )
    rows = KINDS["span"].answers(model, table).to_pylist()
    for row, sample in zip(rows, samples.to_pylist(), strict=True):
        assert row["predicted"] in sample["text"].partition("[SEP]")[0]
        assert row["exact"] == (row["predicted"] == sample["answer"])
        assert row["exact"] <= row["f1"] <= 1
        assert 0 < row["confidence"] <= 1


def test_several_models_are_right_together_by_their_sum_or_by_half_of_them():
    def scores(each, right):
        return Scores(np.array(each), np.zeros(2), np.zeros(2), np.array(right))

    labels = [scores([[0.9, 0.1], [0.4, 0.6]], []), scores([[0.2, 0.8], [0.3, 0.7]], [])]
    assert KINDS["label"].together(labels, np.array([0, 0])).tolist() == [True, False]
    spans = [scores([], [True, False]), scores([], [False, False])]
    assert KINDS["span"].together(spans, np.zeros((2, 2))).tolist() == [True, False]


def test_a_step_that_is_told_nothing_has_labels():
    assert kind_of({"labels": ["a", "b"]}) is KINDS["label"]
    assert kind_of({"labels": ["question"], "kind": "span"}) is KINDS["span"]
    assert KINDS["label"].lacking(np.zeros(3)) == "fewer than two labels among its samples"
    assert KINDS["span"].lacking(np.zeros((1, 2))) is None
    assert KINDS["span"].lacking(np.zeros((0, 2))) == "no samples"
