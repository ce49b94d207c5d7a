"""Training of small task models: who learns from what, and what is left behind."""

import numpy as np
import pyarrow as pa
import pytest

from actors.steps.data import held_out, read_kept
from actors.steps.kinds import KINDS
from actors.steps.training import load_model, stm_spec
from actors.stms import StmError
from configs.schema.stm import HeadStm
from tests import corpus


def accuracy(bench, key, chain):
    table = read_kept(bench.run, chain)
    model = load_model(bench.run, key)
    proba = model.predict_proba(model.encode(table.column("text").to_pylist()))
    return (proba.argmax(axis=1) == table.column("label").to_numpy()).mean()


def test_a_model_learns_from_the_samples_of_the_plms_named(bench):
    chain = bench.chain()
    step, facts = bench.train(chain, plms=["critic"])
    assert facts == {"n": 20, "n_all": 60}
    assert accuracy(bench, step.key, chain) > 0.7
    assert bench.train(chain)[1]["n"] == 60


def test_held_out_samples_are_not_trained_on(bench):
    assert bench.train(bench.chain(), plms=["critic"], held_out=0.2)[1]["n"] == 16


def test_the_same_parameters_give_the_same_bytes(bench, tmp_path):
    chain = bench.chain()
    files = []
    for _ in range(2):
        step, _ = bench.train(chain, score=True)
        names = ["probabilities.parquet", *[f"model/{name}" for name in step.files.names("model")]]
        files.append({name: step.files.read_bytes(name) for name in names})
    assert files[0] == files[1]
    assert {"model/model.safetensors", "model/README.md", "model/stm.json"} <= set(files[0])


def test_scores_cover_all_samples_in_their_order(bench):
    chain = bench.chain(rounds=2)
    step, _ = bench.train(chain, plms=["fan"], held_out=0.2, score=True)
    proba = KINDS["label"].read(bench.run, step.key, np.zeros(120, dtype=int)).each
    assert proba.shape == (120, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    model = load_model(bench.run, step.key)
    texts = read_kept(bench.run, chain).column("text").to_pylist()
    np.testing.assert_array_equal(model.predict_proba(model.encode(texts)), proba)


def test_weights_are_found_by_id_whatever_their_order(bench):
    chain = bench.chain()
    ids = read_kept(bench.run, chain).column("id").to_pylist()
    rng = np.random.default_rng(0)
    weights, order = rng.random(len(ids)), rng.permutation(len(ids))
    files = []
    for number, rows in enumerate((np.arange(len(ids)), order)):
        table = pa.table({"id": [ids[i] for i in rows], "weight": weights[rows]})
        key = bench.commit("weigh", {"weights.parquet": table}, number=number)
        files.append(bench.train(chain, weights=key)[0].files.read_bytes("model/model.safetensors"))
    assert files[0] == files[1]
    assert files[0] != bench.train(chain)[0].files.read_bytes("model/model.safetensors")


def test_a_sample_without_a_weight_is_an_error(bench):
    chain = bench.chain()
    key = bench.commit("weigh", {"weights.parquet": pa.table({"id": ["unknown"], "weight": [1.0]})})
    with pytest.raises(ValueError, match="60 samples have no weight"):
        bench.train(chain, weights=key)


def test_samples_of_one_label_train_no_model(bench):
    rows = [row for row in read_kept(bench.run, bench.chain()).to_pylist() if row["label"] == 0]
    key = bench.commit("one", {"kept.parquet": pa.Table.from_pylist(rows)})
    step, facts = bench.train([key])
    assert "fewer than two labels" in facts["skipped"]
    assert step.files.names() == ["manifest.json"]


def test_a_damaged_model_is_one_line(bench):
    step, _ = bench.train(bench.chain())
    step.files.write_bytes("model/model.safetensors", b"damaged")
    with pytest.raises(StmError) as caught:
        load_model(bench.run, step.key)
    assert "\n" not in str(caught.value)


def test_the_kind_of_model_is_read_from_its_json_form():
    assert stm_spec({"kind": "head", "layer": 3}) == HeadStm(layer=3)


def test_the_held_out_share_is_that_of_the_selection(bench):
    table = read_kept(bench.run, bench.chain())
    mask = held_out(table.column("id").to_pylist(), table.column("plm").to_pylist(), 0.2)
    assert mask.sum() == 4 * len(corpus.PLMS)
