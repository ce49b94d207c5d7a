"""A router in this process: fitted on arrays, asked with arrays, callables and texts, kept and explained."""

import dataclasses

import numpy as np
import pytest

from actors.routing.artefact import ArtefactError
from jobs.__main__ import app
from jobs.api import ConfigError, FusionOfExperts, Router
from tests.actors.conftest import small  # noqa: F401 - fixture
from tests.actors.serving.conftest import published  # noqa: F401 - fixture
from tests.corpus import evaluation

PRICES = {"cheap": 1, "middle": 3, "dear": 10}
SKILL = {"cheap": 0.6, "middle": 0.75, "dear": 0.85}
NAMES = np.array(["bad", "fair", "good"])


def said(truth, skill, rng):
    """Probabilities of an expert that is surer when it is right."""
    right = rng.random(len(truth)) < skill
    label = np.where(right, truth, (truth + rng.integers(1, 3, len(truth))) % 3)
    sure = np.where(right, rng.uniform(0.5, 1, len(truth)), rng.uniform(0.4, 0.9, len(truth)))
    return np.where(np.eye(3, dtype=bool)[label], sure[:, None], (1 - sure[:, None]) / 2)


@pytest.fixture(scope="module")
def items():
    """Outputs of three experts for 300 items, and the items' labels."""
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 300)
    return {name: said(truth, skill, rng) for name, skill in SKILL.items()}, truth


def part(items, start, stop):
    return {name: of[start:stop] for name, of in items[0].items()}


@pytest.fixture(scope="module")
def learner():
    return FusionOfExperts(prices=PRICES, unit="cents", policy__fusers=["knn"], policy__neighbours=9)


@pytest.fixture(scope="module")
def router(items, learner):
    return learner.fit(part(items, 0, 200), NAMES[items[1][:200]])


def test_a_router_pays_for_what_helps(router, items):
    new, truth = part(items, 200, 300), NAMES[items[1][200:]]
    dear, cheap = router.decide(new, rate=0), router.decide(new, rate=1)
    assert (cheap.cost == 1).all() and cheap.experts.map(len).max() == 1
    assert (router.predict(new, rate=0) == truth).mean() > (cheap.label == truth).mean() + 0.1
    between = router.decide(new, rate=router.rate_for(cost=6))
    assert cheap.cost.mean() < between.cost.mean() < dear.cost.mean()
    paid = between.experts.map(lambda names: sum(PRICES[name] for name in names))
    assert np.allclose(paid, between.cost)
    assert (router.decide(new, rate=0, max_cost=4).cost <= 4).all()


def test_callables_are_asked_no_more_than_it_pays(router, items):
    new, asked = part(items, 200, 300), dict.fromkeys(PRICES, 0)

    def expert(name):
        def answer(rows):
            asked[name] += len(rows)
            return new[name][rows]

        return answer

    rate = router.rate_for(cost=6)
    found = router.decide(np.arange(100), {name: expert(name) for name in PRICES}, rate=rate)
    assert found.equals(router.decide(new, rate=rate))
    assert asked == {name: sum(name in names for names in found.experts) for name in PRICES}
    assert min(asked.values()) < 100


def test_learning_from_callables_is_learning_from_what_they_say(router, learner, items):
    known = part(items, 0, 200)
    experts = {name: lambda rows, of=of: [of[row] for row in rows] for name, of in known.items()}
    again = learner.fit(list(range(200)), NAMES[items[1][:200]], experts)
    assert again.manifest == router.manifest


def test_an_explanation_is_of_the_decision(router, items):
    new = part(items, 200, 300)
    table = router.decide(new, rate=0.01)
    row = int(table.experts.map(len).argmax())
    why = router.explain(new, row=row, rate=0.01)
    assert list(why.steps.expert) == table.experts[row] and len(why.steps) > 1
    assert (why.label, why.cost, why.reason) == (table.label[row], table.cost[row], table.reason[row])
    assert why.steps.price.sum() == why.cost
    asked_on = why.steps.iloc[:-1]
    assert (asked_on.further < asked_on.loss).all()
    lines = str(why).splitlines()
    assert lines[0].startswith(f"asked {table.experts[row][0]} (price ")
    assert f"answer {why.label} (score {why.score:.2f}) for {why.cost:g} cents" in lines


def test_a_curve_is_the_mean_of_the_decisions(router, items):
    new, truth = part(items, 200, 300), NAMES[items[1][200:]]
    rehearsed, curve = router.curve(), router.curve(new, truth)
    assert list(rehearsed["lambda"]) == list(curve["lambda"])
    for point in curve.iloc[[0, 10, -1]].to_dict("records"):
        table = router.decide(new, rate=point["lambda"])
        assert point["accuracy"] == pytest.approx((table.label == truth).mean())
        assert point["cost"] == pytest.approx(table.cost.mean())


def test_a_saved_router_decides_the_same(router, items, tmp_path, capsys):
    version = router.save(tmp_path / "router")
    loaded, new = Router.load(tmp_path / "router"), part(items, 200, 300)
    assert loaded.manifest["version"] == version and loaded.experts == list(PRICES)
    assert loaded.decide(new).equals(router.decide(new))
    with pytest.raises(ConfigError, match="an artefact never changes"):
        router.save(tmp_path / "router")
    app(["foe", str(tmp_path / "router"), "--inspect"], standalone_mode=False)
    assert f"version {version}" in capsys.readouterr().out
    with pytest.raises(ArtefactError, match="nowhere"):
        Router.load(tmp_path / "nowhere")


def test_labels_come_back_as_they_were_given(items, learner, tmp_path):
    truth = items[1][:200] * 10
    found = learner.fit(part(items, 0, 200), truth)
    found.save(tmp_path / "router")
    for one in (found, Router.load(tmp_path / "router")):
        answers = one.predict(part(items, 0, 200), rate=0)
        assert answers.dtype.kind == "i" and (answers == truth).mean() > 0.8
    alone = {"cheap": truth, "middle": truth[::-1], "dear": truth}  # labels, and no probabilities
    assert (learner.fit(alone, truth).predict(alone) == truth).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cheap": np.ones(3)}, "experts answer about different numbers of requests"),
        ({"cheap": np.full((200, 3), np.nan)}, r"expert cheap: says float64 of shape \(200, 3\)"),
        ({"cheap": np.array(["odd"] * 200)}, "expert cheap: odd is no label; allowed: bad, fair, good"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(learner, items, change, message):
    with pytest.raises(ConfigError, match=message):
        learner.fit({**part(items, 0, 200), **change}, NAMES[items[1][:200]])


def test_what_cannot_be_asked_is_said(router, learner, items):
    new = part(items, 0, 200)
    with pytest.raises(ConfigError, match="labels: 200 requests need as many labels"):
        learner.fit(new, [0, 1])
    with pytest.raises(ConfigError, match="two classes at least"):
        learner.fit(new, np.zeros(200, int))
    with pytest.raises(ConfigError, match="max_cost: no expert that may be asked costs as little"):
        router.decide(new, max_cost=0.5)
    with pytest.raises(ConfigError, match="row: 200 is none of the 200 requests"):
        router.explain(new, row=200)
    with pytest.raises(ConfigError, match="give the outputs of experts by name, or inputs"):
        router.decide([1, 2])
    with pytest.raises(ConfigError, match="no expert 'cheap'; there are middle"):
        router.decide({"middle": new["middle"]}, rate=1)
    with pytest.raises(ConfigError, match="was asked about 2 inputs, and answered 1"):
        router.decide([1, 2], dict.fromkeys(PRICES, lambda rows: np.eye(3)[:1]))
    with pytest.raises(ConfigError, match="expert cheap: says 2 numbers, 3 were learnt from"):
        router.decide({**new, "cheap": new["cheap"][:, :2]}, rate=1)
    written = dataclasses.replace(router.artefact, manifest={**router.manifest, "answer": "expert"})
    with pytest.raises(ConfigError, match="chooses among written responses"):
        Router(written).decide(new)


@pytest.mark.ray
def test_a_router_of_live_experts_asks_them_about_texts(published):  # noqa: F811
    router, rows = Router.load(published), evaluation(30)
    found = router.decide([row["text"] for row in rows], rate=0)
    assert (found.label == [row["label_name"] for row in rows]).mean() > 0.6
    assert set(found.cost) <= {1.0, 4.0, 5.0}
    with pytest.raises(ConfigError, match="a list of texts is needed"):
        router.decide("one text")
