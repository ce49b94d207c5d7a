"""Sample weights: written for every sample, the same every time."""

import numpy as np
import pytest

from actors.steps.data import read_kept, read_step
from tests import corpus

LABELS = list(corpus.LABELS)


def weigh(bench, chain, **changes):
    params = {
        "chain": chain,
        "plms": None,
        "weights": {"kind": "swa", "iterations": 4},
        "stm": {"kind": "linear", "c": 0.3},
        "labels": LABELS,
        "seed": 1,
    }
    step, facts = bench.do("weighting:weigh", {**params, **changes}, "weigh")
    return step, facts, read_step(bench.run, step.key, "weights.parquet")


def test_every_sample_gets_a_weight_and_the_sum_stays(bench):
    chain = bench.chain()
    _, facts, table = weigh(bench, chain)
    samples = read_kept(bench.run, chain)
    assert table.column_names == ["id", "plm", "label", "weight"]
    assert table.column("id").to_pylist() == samples.column("id").to_pylist()
    weights = table.column("weight").to_numpy()
    assert weights.sum() == pytest.approx(0.5 * len(weights))
    assert len(facts["history"]) == 4
    assert len(np.unique(weights)) > 1


def test_samples_that_were_never_wrong_have_the_largest_weight(bench):
    _, _, table = weigh(bench, bench.chain())
    weights = table.column("weight").to_numpy()
    assert (weights == weights.max()).mean() > 0.5


@pytest.mark.parametrize("rules", [{"kind": "swa", "iterations": 2}, {"kind": "sungen", "iterations": 3}])
def test_the_same_parameters_give_the_same_bytes(bench, rules):
    chain = bench.chain()
    first = weigh(bench, chain, weights=rules)[0].files.read_bytes("weights.parquet")
    assert weigh(bench, chain, weights=rules)[0].files.read_bytes("weights.parquet") == first


def test_patience_ends_early(bench):
    _, facts, _ = weigh(bench, bench.chain(), weights={"kind": "swa", "iterations": 20, "patience": 2})
    assert len(facts["history"]) < 20


def test_the_weights_of_some_plms_alone(bench):
    _, _, table = weigh(bench, bench.chain(), plms=["fan"])
    assert set(table.column("plm").to_pylist()) == {"fan"}
    assert table.num_rows == 20


def test_sungen_weights_are_between_zero_and_one(bench):
    _, facts, table = weigh(bench, bench.chain(), weights={"kind": "sungen", "iterations": 3})
    weights = table.column("weight").to_numpy()
    assert (weights > 0).all()
    assert (weights < 1).all()
    assert len(facts["history"]) == 3
