import json

import numpy as np
import pytest

from actors.routing.curves import Curve
from actors.routing.judging import along, mixture
from cluster.storage import Run
from configs.schema.base import ConfigError
from jobs import report
from tests.actors.routing.conftest import config_of

FEW = {"rates": [0, 0.005, 0.02, 1], "neighbours": 9}


@pytest.fixture
def summary_of(fused):
    """The summary of a job with few rates."""
    count = iter(range(9))
    return lambda config: fused(config, f"run{next(count)}")[0]


def test_classifiers_are_fused_and_asked_frugally(services, fused):
    summary, run = fused(config_of(services, policy=FEW))
    methods = summary["methods"]
    assert {"foe_knn", "foe_logistic", "foe_mlp", "foe_trees", "frugal_knn", "frugal_trees"} <= set(methods)
    assert {"frugalml", "cascade", "ensemble", "majority", "max_softmax", "any_correct"} <= set(methods)
    assert methods["best_single"]["accuracy"] == methods["single/dear"]["accuracy"]
    assert methods["foe_logistic"]["accuracy"] > methods["best_single"]["accuracy"]
    assert methods["any_correct"]["accuracy"] >= max(m["accuracy"] for m in methods.values())
    assert methods["foe_knn"]["cost"] == pytest.approx(14.5)
    assert [point["lambda"] for point in summary["frugal"]] == FEW["rates"]
    last = summary["frugal"][-1]
    assert (last["experts"], last["cost"]) == (1, 0.5)
    assert summary["frugal"][0]["accuracy"] > methods["best_single"]["accuracy"]
    assert all({"accuracy", "cost", "experts", "aiq", "ci95"} <= set(point) for point in summary["frugal"])
    assert summary["items"] == {"fit": 150, "test": 150, "left_out": 0}
    assert summary["status"] == "done"
    assert json.loads(run.read_bytes("summary.json")) == summary


def test_the_same_configuration_gives_the_same_bytes(services, fused):
    def files(name):
        run = fused(config_of(services, policy=FEW), name)[1]
        names = [f"artefact/{file}" for file in run.names("artefact")]
        summary = {k: v for k, v in run.read_json("summary.json").items() if k != "seconds"}
        return {name: run.read_bytes(name) for name in [*names, "report.json"]} | {"summary": summary}

    assert files("one") == files("two")


def test_language_models_are_routed_by_their_prompts(llms, fused, monkeypatch):
    from actors.routing import collected
    from tests.actors.routing.test_generators import vectors_of

    monkeypatch.setattr(collected, "_embedded", lambda run, step, config, texts: vectors_of(texts))
    config = config_of(llms, answer="expert", split={"column": "split"}, policy={"rates": [0, 0.001, 1]})
    summary, run = fused(config)
    methods = summary["methods"]
    assert {"foe_knn", "foe_logistic", "foe_trees", "frugal_knn", "frugal_logistic", "input_knn"} <= set(
        methods
    )
    assert "frugalml" not in methods
    assert methods["best_single"]["accuracy"] == methods["single/good"]["accuracy"]
    cheaper = summary["frugal"][1]
    assert cheaper["accuracy"] > methods["single/small"]["accuracy"]
    assert cheaper["cost"] < methods["single/good"]["cost"]
    assert summary["frugal"][-1]["experts"] == 1
    assert run.read_json("report.json")["domains"][0]["domain"] == "names"


def test_one_expert_and_few_items_are_fused_too(services, summary_of):
    one = {"kind": "recorded", "path": str(services), "names": ["middle"]}
    summary = summary_of(config_of(services, experts=one, policy=FEW))
    assert {point["experts"] for point in summary["frugal"]} == {1}
    few = summary_of(config_of(services, split={"limit": 12}, policy={"rates": [0, 1], "sample": 30}))
    assert few["items"]["fit"] + few["items"]["test"] == 12


def test_the_reference_compatibility_asks_two_at_least(services, summary_of):
    reference = {"compat": "reference", "fusers": ["knn"], "rates": [0.02]}
    assert summary_of(config_of(services, policy=reference))["frugal"][0]["experts"] >= 2


def test_a_budget_is_never_passed(services, fused):
    _, run = fused(config_of(services, policy={**FEW, "budget": 5.0, "fusers": ["knn"]}))
    (key,) = [name for name in run.names("steps") if name.startswith("policy-")]
    assert Curve.read(run.below(f"steps/{key}")).cost.max() <= 5


def curve(costs, worths):
    """A curve over two items that are worth the same."""
    worth = np.repeat(np.array(worths, float)[:, None], 2, axis=1)
    cost = np.repeat(np.array(costs, float)[:, None], 2, axis=1)
    return Curve(np.arange(len(costs), dtype=float), worth, cost, cost.astype(int), cost.astype(int))


def test_curves_are_compared_at_equal_prices():
    steep, flat = curve([1, 3], [0.5, 0.9]), curve([2, 4], [0.4, 0.6])
    assert mixture(steep, 2.0) == pytest.approx([0.7, 0.7])
    assert mixture(steep, 0.5) is None
    assert mixture(steep, 9.0) == pytest.approx([0.9, 0.9])
    found = along(steep, flat, seed=0)
    assert found[0] == {"cost": 2, "difference": 0.3, "ci95": [0.3, 0.3]}
    assert found[-1]["difference"] == pytest.approx(0.3)


def test_policies_know_a_shortlist_and_its_artefact_decides_alike(llms, fused, monkeypatch):
    from actors.routing import artefact, collected
    from tests.actors.routing.test_generators import vectors_of

    monkeypatch.setattr(collected, "_embedded", lambda run, step, config, texts: vectors_of(texts))
    policy = {"rates": [0, 0.001], "shortlist": 2, "fusers": ["logistic"]}
    config = config_of(llms, answer="expert", split={"column": "split"}, policy=policy)
    _, run = fused(config)
    loaded = artefact.read(run.below("artefact"))
    assert loaded.experts == ["good", "small"]
    assert loaded.manifest["contexts"] == 1
    pool = collected.read(config, vectors_of).only([0, 1])
    x = np.concatenate([block[pool.rows("test")] for block in pool.seen(numbers=False)], axis=1)
    (key,) = [name for name in run.names("steps") if name.startswith("policy-")]
    kept = artefact.load(run.read_bytes(f"steps/{key}/walks.safetensors"))
    for number, walk in enumerate(loaded.policy.sweep(x, [0, 0.001])):
        assert (walk.answers == kept[f"answers.{number}"]).all()
        assert (walk.order == kept[f"order.{number}"]).all()
    places = run.read_json("report.json")["sequences"][0]["places"]
    assert set(places) == {"good", "small"}


def test_a_run_says_where_it_stands(services, fused, tmp_path, monkeypatch):
    from actors.routing import judging

    def fails(run, step, params):
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(judging, "judge", fails)
        with pytest.raises(OSError, match="no space"):
            fused(config_of(services, policy=FEW))
    run = Run(str(tmp_path / "run"))
    summary = run.read_json("summary.json")
    assert (summary["status"], summary["stage"], summary["items"]["fit"]) == ("running", "judging", 150)
    with pytest.raises(ConfigError, match="running while judging; nothing is judged yet"):
        report.write(run.uri, None)
    assert fused(config_of(services, policy=FEW))[0]["status"] == "done"
