"""Classifiers as experts: labels by name, and answers that depend on the text alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from actors.engines.base import EngineError
from actors.experts.base import aligned, load_expert
from actors.stms import create
from configs.schema.expert import ExpertSpec
from configs.schema.stm import FullStm
from tests.experts import LABELS, bert, classifier, texts

TEXTS = [text for text, _ in texts(20)] + ["short", "", "words " * 200]


def load(folder: Path | str, labels=LABELS, **fields):
    return load_expert(ExpertSpec.model_validate(classifier("x", folder, **fields)), labels, 0)


def vectors(expert, given=TEXTS):
    answers = expert.answer(given)
    assert all(answer.error is None and answer.text is None for answer in answers)
    return np.stack([answer.vector for answer in answers])


@pytest.fixture(scope="module")
def ab(small):
    return load(small / "ab")


def test_gives_the_probabilities_of_a_plain_forward_pass(ab, small):
    model = AutoModelForSequenceClassification.from_pretrained(small / "ab").eval()
    tokenizer = AutoTokenizer.from_pretrained(small / "ab")
    for text in TEXTS[:4]:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            wanted = model(**inputs).logits.softmax(-1)[0]
        np.testing.assert_allclose(vectors(ab, [text])[0], wanted, atol=1e-6)
        assert ab.answer([text])[0].prompt_tokens == inputs["input_ids"].shape[1]


def test_models_that_order_their_labels_otherwise_agree(ab, small):
    np.testing.assert_array_equal(vectors(load(small / "ba")), vectors(ab))
    np.testing.assert_array_equal(vectors(load(small / "ab", labels=LABELS[::-1])), vectors(ab)[:, ::-1])


@pytest.mark.parametrize("kind", ["ab", "linear"])
def test_an_answer_depends_on_its_text_alone(small, kind):
    expert = load(small / kind)
    together = vectors(expert)
    np.testing.assert_array_equal(vectors(expert, TEXTS[::-1])[::-1], together)
    np.testing.assert_array_equal(
        np.concatenate([vectors(expert, [text]) for text in TEXTS[-5:]]), together[-5:]
    )
    np.testing.assert_allclose(together.sum(axis=1), 1)
    assert len(np.unique(together, axis=0)) > 20
    assert expert.answer([]) == []


def test_labels_that_a_model_lacks_have_no_probability(small):
    found = vectors(load(small / "linear", labels=("mixed", "positive", "negative")))
    assert (found[:, 0] == 0).all()
    np.testing.assert_array_equal(found[:, 1:], vectors(load(small / "linear"))[:, ::-1])


def test_several_labels_of_a_model_may_mean_one(tmp_path):
    folder = bert(tmp_path / "stars", ["one", "two", "three"], seed=4)
    plain = vectors(load(folder, labels=("one", "two", "three")))
    names = {"one": "negative", "two": "positive", "three": "positive"}
    found = vectors(load(folder, label_names=names))
    np.testing.assert_allclose(found, np.stack([plain[:, 0], plain[:, 1] + plain[:, 2]], axis=1))


@pytest.mark.parametrize("kind", ["ab", "linear"])
def test_a_high_temperature_makes_less_sure(small, kind):
    sure, less = vectors(load(small / kind)), vectors(load(small / kind, temperature=3))
    assert (less.max(axis=1) <= sure.max(axis=1)).all()
    np.testing.assert_array_equal(less.argmax(axis=1), sure.argmax(axis=1))
    logits = np.log(sure)
    np.testing.assert_allclose(less[:, 1] / less[:, 0], np.exp((logits[:, 1] - logits[:, 0]) / 3), rtol=1e-6)


def test_a_fine_tuned_small_task_model_is_read_as_what_it_is(small, tmp_path):
    spec = FullStm(model=str(small / "ab"), epochs=1, learning_rate=1e-3, max_length=48, dtype="float32")
    stm = create(spec, LABELS[::-1], seed=1)
    known = texts(16)
    stm.fit(stm.encode([t for t, _ in known], learn=True), [LABELS[::-1].index(label) for _, label in known])
    stm.save_pretrained(tmp_path / "stm", "# A card\n")
    found = vectors(load(tmp_path / "stm"))
    np.testing.assert_allclose(found[:, ::-1], stm.predict_proba(stm.encode(TEXTS)), atol=1e-5)


def test_padding_never_exceeds_the_positions_of_a_model(tmp_path):
    expert = load(bert(tmp_path / "odd", LABELS, seed=2, positions=50), max_length=512)
    assert expert.answer(["words " * 200])[0].prompt_tokens == 48


def test_names_align_labels():
    assert aligned(["b", "a"], {}, ["a", "b", "c"]).tolist() == [1, 0]
    assert aligned(["LABEL_0", "LABEL_1"], {"LABEL_0": "b", "LABEL_1": "a"}, ["a", "b"]).tolist() == [1, 0]


def test_labels_that_do_not_match_are_an_error_that_names_both(small):
    with pytest.raises(
        EngineError, match=r"ab: the model's labels are negative, positive; allowed: good, bad"
    ):
        load(small / "ab", labels=("good", "bad"))
    with pytest.raises(EngineError, match=r"linear: .* negative, positive; allowed: negative, neutral \(map"):
        load(small / "linear", labels=("negative", "neutral"))
    with pytest.raises(EngineError, match=r"the model has no label 'LABEL_0'; it has negative, positive"):
        load(small / "ab", label_names={"LABEL_0": "negative"})


def test_models_that_cannot_classify_are_refused_in_one_line(small, tmp_path):
    with pytest.raises(EngineError, match=r"^\./none: no such folder$"):
        load("./none")
    headless = shutil.copytree(small / "ab", tmp_path / "headless")
    model = AutoModelForSequenceClassification.from_pretrained(headless)
    model.bert.save_pretrained(headless)
    with pytest.raises(EngineError, match=r"headless: 2 weights are missing, the first is classifier.bias"):
        load(headless)
    several = shutil.copytree(small / "ab", tmp_path / "several")
    settings = json.loads((several / "config.json").read_text())
    settings["problem_type"] = "multi_label_classification"
    (several / "config.json").write_text(json.dumps(settings))
    with pytest.raises(EngineError, match="several: gives no probabilities of one label among several"):
        load(several)


def test_weights_that_are_not_numbers_are_errors_of_the_texts(small, tmp_path):
    folder = shutil.copytree(small / "ab", tmp_path / "nan")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.nn.init.constant_(model.classifier.bias, torch.nan)
    model.save_pretrained(folder)
    assert load(folder).answer(["a", "b"])[1].error == "the model's probabilities are not numbers"
