import numpy as np
import pytest

from actors.stms import StmError, create, load
from actors.stms.base import softmax
from configs.schema.stm import HeadStm

LABELS = ("sport", "money")
SPORT = [
    "the team won the match",
    "a goal in the last minute",
    "the runner broke a record",
    "fans filled the arena",
]
MONEY = [
    "the bank raised its rates",
    "shares fell on the market",
    "the firm reported profit",
    "investors sold bonds",
]
TEXTS = SPORT + MONEY
Y = np.array([0] * 4 + [1] * 4)


def trained(y=Y, weights=None, labels=LABELS, **settings):
    model = create(HeadStm(**settings), labels, seed=0)
    encoded = model.encode(TEXTS, learn=True)
    return model.fit(encoded, y, weights), encoded


def test_learns_topics():
    model, encoded = trained()
    assert (model.predict_proba(encoded).argmax(axis=1) == Y).all()
    unseen = model.predict_proba(model.encode(["the players lost the final", "the stock exchange closed"]))
    assert unseen[0, 0] > 0.5 and unseen[1, 1] > 0.5


def test_samples_of_weight_zero_change_nothing():
    model, encoded = trained()
    kept = np.arange(8) != 2
    alone = model.fit(encoded.take(np.flatnonzero(kept)), Y[kept]).predict_proba(encoded)
    wrong = Y.copy()
    wrong[2] = 1
    np.testing.assert_array_equal(model.fit(encoded, wrong, kept.astype(float)).predict_proba(encoded), alone)
    assert np.abs(model.fit(encoded, wrong).predict_proba(encoded) - alone).max() > 0.01


def test_last_layer_explains_the_probabilities():
    model, encoded = trained(labels=("sport", "missing", "money"), y=Y * 2, layer=3, pooling="first")
    weight, bias = model.last_layer()
    logits = model.features(encoded) @ weight.T + bias
    np.testing.assert_allclose(softmax(logits), model.predict_proba(encoded), rtol=1e-12)
    assert model.predict_proba(encoded)[:, 1].max() < 1e-10
    _, logits_of = model.probe(encoded)
    np.testing.assert_allclose(logits_of(np.array([5, 0])).detach().numpy(), logits[[5, 0]], rtol=1e-9)


def test_saved_model_predicts_the_same_bits(tmp_path):
    model, _ = trained()
    model.save_pretrained(tmp_path, "# card")
    again, unseen = load(tmp_path), ["a cup final", "a bank"]
    np.testing.assert_array_equal(
        again.predict_proba(again.encode(unseen)), model.predict_proba(model.encode(unseen))
    )
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "stm.json", "model.safetensors"}


def test_layers_differ():
    assert np.abs(trained(layer=2)[1].rows - trained()[1].rows).max() > 0.1


def test_not_a_number_is_named_in_one_line(monkeypatch):
    model, _ = trained()
    vectors = np.zeros((3, 384), dtype=np.float32)
    vectors[1, 7] = np.nan
    monkeypatch.setattr(model, "_vectors", lambda texts: vectors)
    with pytest.raises(StmError, match="text vectors: 1 of 3 rows are not finite numbers, first row 1"):
        model.encode(["a", "b", "c"], learn=True)


@pytest.mark.parametrize("change", [{"y": Y * 0}, {"layer": 9}, {"encoder": "no/such-folder"}])
def test_errors_are_one_line(change, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StmError) as caught:
        trained(**change)
    assert "\n" not in str(caught.value)


def test_needs_training_texts_first():
    with pytest.raises(StmError, match="learn=True"):
        create(HeadStm(), LABELS, 0).encode(TEXTS)
