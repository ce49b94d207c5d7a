import numpy as np
import pytest

from actors.stms import StmError, create, load
from actors.stms.base import softmax
from actors.stms.linear import LinearModel
from configs.schema.stm import LinearStm

LABELS = ("positive", "negative")
GOOD = ["a fine warm film", "fine acting and a warm heart", "what a joy this film is", "joy and fine music"]
BAD = ["a dull cold film", "dull acting and a cold heart", "what a bore this film is", "bore and dull music"]
TEXTS = GOOD + BAD
Y = np.array([0] * 4 + [1] * 4)


def trained(y=Y, weights=None, labels=LABELS, texts=TEXTS, **settings):
    model = create(LinearStm(**settings), labels, seed=0)
    encoded = model.encode(texts, learn=True)
    return model.fit(encoded, y, weights), encoded


def test_learns_what_its_texts_say():
    model, encoded = trained()
    assert (model.predict_proba(encoded).argmax(axis=1) == Y).all()
    unseen = model.predict_proba(model.encode(["fine joy", "dull bore", "words never seen"]))
    assert unseen.shape == (3, 2)
    assert unseen[0, 0] > 0.7 and unseen[1, 1] > 0.7
    np.testing.assert_allclose(unseen.sum(axis=1), 1)


def test_samples_of_weight_zero_change_nothing():
    model, encoded = trained()
    kept = np.arange(8) != 2
    alone = model.fit(encoded.take(np.flatnonzero(kept)), Y[kept]).predict_proba(encoded)
    wrong = Y.copy()
    wrong[2] = 1
    np.testing.assert_array_equal(model.fit(encoded, wrong, kept.astype(float)).predict_proba(encoded), alone)
    assert np.abs(model.fit(encoded, wrong).predict_proba(encoded) - alone).max() > 0.05


def test_weight_two_is_a_duplicate():
    model, encoded = trained()
    twice = np.r_[np.arange(8), 1]
    weights = np.ones(8)
    weights[1] = 2
    weighted = model.fit(encoded, Y, weights).predict_proba(encoded)
    repeated = model.fit(encoded.take(twice), Y[twice]).predict_proba(encoded)
    np.testing.assert_allclose(weighted, repeated, atol=1e-3)


def test_tiny_and_equal_weights_are_harmless():
    model, encoded = trained()
    tiny = np.where(np.arange(8) == 3, 1e-17, 1.0)
    assert np.isfinite(model.fit(encoded, Y, tiny).predict_proba(encoded)).all()
    equal = model.fit(encoded, Y, np.full(8, 1.0)).predict_proba(encoded)
    np.testing.assert_array_equal(equal, model.fit(encoded, Y).predict_proba(encoded))


def test_refit_starts_from_nothing():
    model, encoded = trained()
    first = model.predict_proba(encoded)
    model.fit(encoded, 1 - Y)
    np.testing.assert_array_equal(model.fit(encoded, Y).predict_proba(encoded), first)


def test_a_class_without_texts_keeps_its_column():
    model, encoded = trained(labels=("positive", "missing", "negative"), y=Y * 2)
    probabilities = model.predict_proba(encoded)
    assert probabilities.shape == (8, 3)
    assert 0 < probabilities[:, 1].max() < 1e-10
    np.testing.assert_array_equal(probabilities.argmax(axis=1), Y * 2)


def test_last_layer_explains_the_probabilities():
    for labels, y in ((LABELS, Y), (("a", "b", "c"), np.arange(8) % 3)):
        model, encoded = trained(labels=labels, y=y)
        weight, bias = model.last_layer()
        logits = model.features(encoded) @ weight.T + bias
        np.testing.assert_allclose(softmax(logits), model.predict_proba(encoded), rtol=1e-12)
        _, logits_of = model.probe(encoded)
        np.testing.assert_allclose(logits_of(np.array([5, 0])).detach().numpy(), logits[[5, 0]], rtol=1e-9)


def test_saved_model_predicts_the_same_bits(tmp_path):
    model, _ = trained(max_features=20, ngrams=(1, 1))
    model.save_pretrained(tmp_path / "stm", "# card")
    unseen = ["a fine but cold film", "dull", ""]
    for again in (load(tmp_path / "stm"), LinearModel.from_pretrained(tmp_path / "stm")):
        assert again.labels == LABELS and again.kind == "linear"
        np.testing.assert_array_equal(
            again.predict_proba(again.encode(unseen)), model.predict_proba(model.encode(unseen))
        )
    assert (tmp_path / "stm" / "README.md").read_text() == "# card"
    names = {path.name for path in (tmp_path / "stm").iterdir()}
    assert names == {"README.md", "stm.json", "vocabulary.json", "model.safetensors"}


def test_same_texts_same_files(tmp_path):
    for name in ("a", "b"):
        trained()[0].save_pretrained(tmp_path / name, "")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(8, dtype=int)}, r"at least two labels, got \['positive'\] among 8 texts"),
        ({"weights": (Y == 0).astype(float)}, "at least two labels"),
        ({"y": Y + 1}, r"label indices must lie in 0\.\.1, got 1\.\.2"),
        ({"y": Y[:5]}, "8 texts need as many labels, not 5"),
        ({"weights": np.full(8, np.nan)}, "finite, non-negative weights"),
        ({"weights": np.full(8, -1.0)}, "finite, non-negative weights"),
        ({"labels": ("one",)}, "at least two distinct labels"),
        ({"min_count": 9}, "no word n-gram occurs in 9 of the 8 training texts"),
    ],
)
def test_unusable_training_sets_are_named_in_one_line(change, message):
    with pytest.raises(StmError, match=message) as caught:
        trained(**change)
    assert "\n" not in str(caught.value)


def test_needs_a_vocabulary_before_it_reads_texts():
    with pytest.raises(StmError, match="learn=True"):
        create(LinearStm(), LABELS, 0).encode(TEXTS)


def test_no_texts_no_rows():
    model, _ = trained()
    assert model.predict_proba(model.encode([])).shape == (0, 2)


def test_folders_that_hold_no_model(tmp_path):
    with pytest.raises(StmError, match=r"stm\.json is missing"):
        load(tmp_path)
    (tmp_path / "stm.json").write_text('{"spec": {"kind": "oak"}, "labels": ["a", "b"], "seed": 0}')
    with pytest.raises(StmError, match="does not describe a small task model"):
        load(tmp_path)
    trained()[0].save_pretrained(tmp_path, "")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(StmError, match="no complete small task model"):
        load(tmp_path)
