"""How the samples of a round look to the models trained on them."""

import pytest

from tests import corpus


@pytest.fixture
def diagnose(bench, trained):
    """Facts of the diagnosis of one round."""

    def build(**changes):
        params = trained(rounds=1)
        kept = {name: params[name] for name in ("chain", "models", "labels")}
        data = {**kept, "plms": list(corpus.PLMS), "held_out": 0.2}
        _, facts = bench.do("diagnosis:diagnose", data | changes, "diagnose")
        return facts

    return build


def test_it_describes_every_plm(diagnose):
    facts = diagnose()
    assert (
        set(facts["shares"]) == set(facts["diversity"]) == set(facts["label_agreement"]) == set(corpus.PLMS)
    )
    for shares in facts["shares"].values():
        assert sum(shares.values()) == pytest.approx(1)
    assert facts["pair_matrix"]["plms"] == list(corpus.PLMS)
    assert all(0 <= share <= 1 for row in facts["pair_matrix"]["accuracy"] for share in row)


def test_the_grump_agrees_least_with_the_label_asked_for(diagnose):
    agreement = diagnose()["label_agreement"]
    assert min(agreement, key=agreement.__getitem__) == "grump"


def test_without_models_there_is_nothing_to_compare(diagnose):
    facts = diagnose(models={})
    assert facts["shares"] == {} == facts["label_agreement"]
    assert facts["pair_matrix"] == {"plms": [], "accuracy": []}
