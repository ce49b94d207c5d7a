"""The data set and the model as users find them."""

import numpy as np
import pytest

from actors import stms
from actors.steps.data import read_kept
from tests import corpus

SCORE = {"accuracy": 0.9, "ci95": [0.8, 1.0], "n": 50}


@pytest.fixture
def publish(bench):
    """Publishes the samples of two rounds, weighted or not."""

    def run(*, weighted=True, final=SCORE):
        chain = bench.chain(rounds=2)
        weights = None
        if weighted:
            params = {"chain": chain, "plms": None, "weights": {"kind": "swa", "iterations": 2}}
            more = {"stm": {"kind": "linear", "c": 0.3}, "labels": list(corpus.LABELS), "seed": 1}
            weights = bench.do("weighting:weigh", {**params, **more})[0].key
        summary = {
            "final": final,
            "baselines": {"union": SCORE} if final else {},
            "samples": {"asked": 130, "plms": dict.fromkeys(corpus.PLMS, 40), "rejected": {"short": 10}},
        }
        params = {
            "chain": chain,
            "weights": weights,
            "model": bench.train(chain)[0].key,
            "labels": list(corpus.LABELS),
            "plms": list(corpus.PLMS),
            "task": "movies",
            "result": "fusegen",
            "summary": summary,
        }
        assert bench.do("publishing:publish", params, "publish")[1] == {"rows": 120}
        return chain

    return run


def test_the_data_set_has_all_samples_with_label_names_and_mean_weight_one(bench, publish):
    chain = publish()
    table = bench.run.read_table("dataset/train.parquet")
    assert table.column_names == ["id", "plm", "round", "label", "text", "label_name", "weight"]
    assert table.select(["id", "text"]).equals(read_kept(bench.run, chain, ["id", "text"]))
    names = [corpus.LABELS[i] for i in table.column("label").to_pylist()]
    assert table.column("label_name").to_pylist() == names
    assert table.column("weight").to_numpy().mean() == pytest.approx(1)
    assert table.column("weight").to_numpy().std() > 0


def test_without_weighting_all_weights_are_one(bench, publish):
    publish(weighted=False)
    assert np.all(bench.run.read_table("dataset/train.parquet").column("weight").to_numpy() == 1)


def test_the_model_loads_and_its_card_says_where_it_comes_from(bench, publish):
    publish()
    with bench.run.folder("stm") as folder:
        model = stms.load(folder)
        card = (folder / "README.md").read_text()
    assert model.labels == corpus.LABELS
    assert model.predict_proba(model.encode(["A lovely film."])).shape == (1, 2)
    for said in ("movies", "critic | 40", "0.9000", "0.8000 to 1.0000", "union", "10 short"):
        assert said in card
    assert "| fan | 40 |" in bench.run.read_bytes("dataset/README.md").decode()


def test_a_run_without_evaluation_says_so(bench, publish):
    publish(final={})
    assert b"No evaluation data was given." in bench.run.read_bytes("stm/README.md")


def test_publishing_twice_gives_the_same_bytes(bench, publish):
    files = []
    for _ in range(2):
        publish()
        names = ["dataset/train.parquet", "dataset/README.md", *[f"stm/{n}" for n in bench.run.names("stm")]]
        files.append({name: bench.run.read_bytes(name) for name in names})
    assert files[0] == files[1]
