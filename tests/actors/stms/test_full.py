import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from actors.stms import StmError, create, load
from actors.stms.base import softmax
from actors.stms.tokens import Tokens
from configs.schema.stm import FullStm

LABELS = ("positive", "negative")
GOOD = ["a fine warm film", "fine acting and a warm heart", "what a joy this film is", "joy and fine music"]
BAD = ["a dull cold film", "dull acting and a cold heart", "what a bore this film is", "bore and dull music"]
TEXTS = [f"{text}, said the {who}" for who in ("critic", "cat") for text in GOOD + BAD]
Y = np.array(([0] * 4 + [1] * 4) * 2)
QUICK = {"epochs": 2, "learning_rate": 3e-4, "batch_size": 4, "max_length": 32, "dtype": "float32"}


def trained(y=Y, weights=None, labels=LABELS, seed=0, **settings):
    model = create(FullStm(**{**QUICK, **settings}), labels, seed)
    encoded = model.encode(TEXTS, learn=True)
    return model.fit(encoded, y, weights), encoded


@pytest.fixture(scope="module")
def fitted():
    return trained(epochs=4)


def test_learns_what_its_texts_say(fitted):
    model, encoded = fitted
    assert (model.predict_proba(encoded).argmax(axis=1) == Y).all()
    unseen = model.predict_proba(model.encode(["such fine joy", "such a dull bore"]))
    assert unseen[0, 0] > 0.5 and unseen[1, 1] > 0.5
    np.testing.assert_allclose(unseen.sum(axis=1), 1)


@pytest.mark.parametrize("dropout", [False, True])
def test_same_seed_same_bits_whatever_ran_before(dropout):
    model, encoded = trained(dropout=dropout)
    first = model.predict_proba(encoded)
    state = torch.random.get_rng_state()
    model.fit(encoded, 1 - Y)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    np.testing.assert_array_equal(model.fit(encoded, Y).predict_proba(encoded), first)
    assert (trained(seed=1, dropout=dropout)[0].predict_proba(encoded) != first).any()


def test_samples_of_weight_zero_change_nothing():
    model, encoded = trained()
    keep = np.flatnonzero(np.arange(16) % 5 != 0)
    weights = np.zeros(16)
    weights[keep] = 1
    y = np.where(weights > 0, Y, 1 - Y)
    ignored = model.fit(encoded, y, weights).predict_proba(encoded)
    absent = model.fit(encoded.take(keep), Y[keep]).predict_proba(encoded)
    np.testing.assert_array_equal(ignored, absent)


def test_weights_decide_between_contradicting_halves():
    y = np.concatenate([Y[:8], 1 - Y[8:]])
    for heavy in (0, 1):
        weights = np.where(np.arange(16) // 8 == heavy, 1.0, 1e-3)
        model, encoded = trained(y=y, weights=weights, epochs=4)
        right = (model.predict_proba(encoded).argmax(axis=1) == y)[weights == 1]
        assert right.mean() > 0.8


def test_features_and_last_layer_explain_the_probabilities(fitted):
    model, encoded = fitted
    weight, bias = model.last_layer()
    rows = model.features(encoded)
    assert rows.shape == (16, 384)
    np.testing.assert_allclose(softmax(rows @ weight.T + bias), model.predict_proba(encoded), atol=1e-5)


def test_probe_gives_gradients_of_the_same_network_twice(fitted):
    model, encoded = fitted
    network, logits_of = model.probe(encoded)
    before = model.predict_proba(encoded)
    logits = logits_of(np.array([3, 9]))
    np.testing.assert_allclose(softmax(logits.detach().double().numpy()), before[[3, 9]], atol=1e-5)
    parameters = list(network.parameters())
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
    gradient = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    squared = sum((part**2).sum() for part in gradient if part is not None)
    second = torch.autograd.grad(squared, parameters[5], allow_unused=True)[0]
    assert second is not None and second.abs().max() > 0
    np.testing.assert_array_equal(model.predict_proba(encoded), before)


def test_saved_model_loads_here_and_with_transformers(fitted, tmp_path):
    model, encoded = fitted
    model.save_pretrained(tmp_path, "# card")
    expected = model.predict_proba(encoded)
    copied = Path(shutil.copytree(tmp_path, tmp_path.with_name("copied")))
    again = load(copied)
    shutil.rmtree(copied)
    np.testing.assert_array_equal(again.predict_proba(again.encode(TEXTS, learn=True)), expected)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.config.id2label == {0: "positive", 1: "negative"}
    assert theirs.config.label2id == {"positive": 0, "negative": 1}
    with torch.inference_mode():
        logits = theirs(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    np.testing.assert_allclose(softmax(logits.double().numpy()), expected, atol=1e-5)
    assert (tmp_path / "README.md").read_text() == "# card"
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors", ".md", ".txt"}
    assert "site-packages" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))


def test_epochs_are_reported():
    seen = []
    model = create(FullStm(**QUICK), LABELS, 0)
    model.on_epoch = lambda epoch, loss: seen.append((epoch, loss))
    model.fit(model.encode(TEXTS, learn=True), Y)
    assert [epoch for epoch, _ in seen] == [1, 2]
    assert seen[1][1] < seen[0][1]


def test_a_class_without_texts_keeps_its_column():
    model, encoded = trained(labels=("positive", "missing", "negative"), y=Y * 2, epochs=1)
    assert model.predict_proba(encoded).shape == (16, 3)


def test_training_texts_are_cut_shorter_than_others():
    model = create(FullStm(max_length=8, eval_max_length=12), LABELS, 0)
    long = ["film " * 50]
    assert model.encode(long, learn=True).lengths == [8]
    assert model.encode(long).lengths == [12]


def test_every_text_is_in_one_batch_with_its_like():
    rng = np.random.default_rng(0)
    rows = np.empty(1000, dtype=object)
    rows[:] = [np.ones(length, dtype=np.int32) for length in rng.integers(5, 100, size=1000)]
    tokens = Tokens(rows, 0)
    batches = tokens.shuffled(16, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(1000))
    padded = sum(len(batch) * tokens.lengths[batch].max() for batch in batches)
    assert padded < 1.1 * tokens.lengths.sum()
    again = tokens.shuffled(16, np.random.default_rng(1))
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))
    assert (np.concatenate(batches) != np.concatenate(tokens.shuffled(16, np.random.default_rng(2)))).any()


@pytest.mark.parametrize("action", ["fit", "one class", "predict", "diverge"])
def test_errors_are_one_line(action, tmp_path):
    wrong = {"fit": {"model": str(tmp_path)}, "diverge": {"learning_rate": 1e30}}.get(action, {})
    model = create(FullStm(**{**QUICK, **wrong}), LABELS, 0)
    with pytest.raises(StmError) as caught:
        encoded = model.encode(TEXTS)
        if action == "predict":
            model.predict_proba(encoded)
        model.fit(encoded, Y * 0 if action == "one class" else Y)
    assert "\n" not in str(caught.value)


def test_unknown_model_and_folder_without_weights(tmp_path, fitted, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StmError, match="nobody/nothing"):
        create(FullStm(model="nobody/nothing"), LABELS, 0).encode(TEXTS)
    model, encoded = fitted
    model.save_pretrained(tmp_path, "")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(StmError, match="cannot load the model"):
        create(FullStm(model=str(tmp_path)), LABELS, 0).fit(encoded, Y)
    with pytest.raises(StmError, match="cannot load the model"):
        load(tmp_path)
