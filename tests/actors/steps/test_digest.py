"""What the report shows of a data set."""

import json

import pytest

from tests import corpus


@pytest.fixture
def digest(bench, trained):
    """The digest of two rounds with weights and one selection."""

    def build(**changes):
        params = trained(rounds=2)
        select, _ = bench.do("selection:select", params, "select")
        weigh, _ = bench.do(
            "weighting:weigh",
            {
                "chain": params["chain"],
                "plms": None,
                "weights": {"kind": "swa", "iterations": 2},
                "stm": {"kind": "linear"},
                "labels": params["labels"],
                "seed": 1,
            },
        )
        data = {
            "chain": params["chain"],
            "plms": list(corpus.PLMS),
            "models": params["models"],
            "weights": weigh.key,
            "selections": [select.key, None],
            "labels": params["labels"],
            "seed": 1,
        }
        step, _ = bench.do("digest:digest", data | changes, "digest")
        return json.loads(step.files.read_bytes("digest.json"))

    return build


def test_it_holds_what_the_report_draws(digest):
    value = digest()
    assert len(value["points"]) == 120
    assert sum(map(sum, value["weights"]["counts"].values())) == 120
    assert value["records"]["plms"] == {plm: {"kept": 40} for plm in corpus.PLMS}
    assert list(value["records"]["rounds"]) == ["0", "1"]
    assert len(value["diversity"]) == 2


def test_shots_that_all_plms_share_are_shown_once(digest):
    (shown,) = digest()["shots"]
    assert shown["round"] == 0
    (group,) = shown["sets"]
    assert group["for"] == list(corpus.PLMS)
    assert len(group["shots"]) == 3


def test_examples_carry_their_provenance(digest):
    examples = digest()["examples"]
    assert {"kept", "rejected", "heaviest", "lightest"} == set(examples)
    assert {row["plm"] for row in examples["kept"]} == set(corpus.PLMS)
    assert {"id", "prompt_hash", "shot_ids", "seed", "raw"} <= set(examples["kept"][0])
    assert examples["heaviest"][0]["weight"] >= 1 >= examples["lightest"][0]["weight"]


def test_without_weights_and_with_one_model_those_parts_are_absent(digest, bench):
    value = digest(weights=None, models={})
    assert value["weights"] is None
    assert value["points"] == []
    assert set(value["examples"]) == {"kept", "rejected"}


def test_it_is_the_same_every_time(digest):
    assert digest() == digest()
