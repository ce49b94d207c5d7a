"""Routing among language models, with real (tiny) ones in this process."""

import numpy as np
import pytest
from ray.exceptions import RayActorError

from actors.router import opened
from actors.routing.pool import Pool
from cluster.storage import Run
from tests.experts import texts

pytestmark = pytest.mark.ray
FILMS = [text for text, _ in texts(40)]


def chat(here, text, **knobs):
    return here(
        "POST", "/v1/chat/completions", json={"messages": [{"role": "user", "content": text}], **knobs}
    )


def dead(_texts):
    raise RayActorError


def pool_of(chats):
    """The pool that the run learnt from, and the facts of its step."""
    run = Run(str(chats))
    (key,) = [name for name in run.names("steps") if name.startswith("pool-")]
    return Pool.read(run.below(f"steps/{key}")), run.read_json(f"steps/{key}/manifest.json")


def test_what_language_models_answer_becomes_a_pool(chats):
    pool, facts = pool_of(chats)
    assert [block.shape for block in pool.blocks] == [(40, 3), (40, 6), (40, 6)]
    assert pool.inputs is not None and pool.inputs.shape == (40, 5)
    np.testing.assert_array_equal(pool.values, pool.quality)
    assert set(np.unique(pool.quality)) <= {0, 1} and pool.quality[:, :2].any(axis=0).all()
    assert "reference" not in pool.items.column_names
    assert facts["vectors"] == {"labels": "labels", "critic": "last_token", "seq": "encoder"}


def test_requests_are_seen_as_stored_items_were(chat_site, chats):
    """Everybody's answer to a stored item is a distance of (nearly) nothing away from it."""
    here = chat_site()
    loaded = opened(str(chats))
    assert set(loaded.projections) == {"inputs", "critic", "seq"}
    assert [expert["vector"] for expert in loaded.manifest["experts"]] == ["labels", "last_token", "encoder"]
    pool, _ = pool_of(chats)
    known = set(loaded.items["item"].to_pylist())
    few = [row for row, item in enumerate(pool.items["item"].to_pylist()) if item in known][:3]
    for row in few:
        response = chat(here, FILMS[row], mode="full")
        assert response.status_code == 200, response.text
        trace = response.json()["amalgam"]
        assert [step["expert"] for step in trace["steps"]] != []
        assert {step["expert"] for step in trace["steps"]} == {"labels", "critic", "seq"}
        assert trace["cost"] == 6


def test_the_best_response_is_given_and_paid_for(chat_site):
    here = chat_site()
    for text in FILMS[:4]:
        found = chat(here, text, **{"lambda": 0.02}).json()
        trace = found["amalgam"]
        assert trace["answered_by"] in {step["expert"] for step in trace["steps"]}
        prices = {"labels": 1, "critic": 2, "seq": 3}
        assert trace["cost"] == sum(prices[step["expert"]] for step in trace["steps"])
        assert isinstance(found["choices"][0]["message"]["content"], str | None)
    again = [chat(here, FILMS[0], mode="full").json()["choices"][0]["message"] for _ in range(2)]
    assert again[0] == again[1]


def test_the_next_best_answers_where_one_fails(chat_site):
    for gone in ("labels", "critic", "seq"):
        here = chat_site({gone: dead}, service={"retries": 0})
        response = chat(here, FILMS[0])
        assert response.status_code == 200, response.text
        assert response.json()["amalgam"]["answered_by"] != gone
    names = ("labels", "critic", "seq")
    response = chat(chat_site(dict.fromkeys(names, dead), service={"retries": 0}), FILMS[0])
    assert response.status_code == 503


def test_labels_are_not_to_be_had(chat_site):
    response = chat_site().classify(FILMS[0])
    assert response.status_code == 404
    assert "use /v1/chat/completions" in response.json()["error"]["message"]
    several = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": FILMS[0]}]
    assert chat_site()("POST", "/v1/chat/completions", json={"messages": several}).status_code == 200
    assert np.isfinite(chat(chat_site(), FILMS[0]).json()["amalgam"]["distance"])
