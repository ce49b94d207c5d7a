"""The endpoint's contract, by its own application, with real models in this process."""

import asyncio

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from ray.exceptions import RayActorError

from actors.router import opened
from actors.serving import access
from tests.experts import texts

pytestmark = pytest.mark.ray
FILMS = [text for text, _ in texts(12)]


def dead(_texts):
    raise RayActorError


async def slow(_texts):
    await asyncio.sleep(30)


def trace(response, place=0):
    return response.json()["results"][place]


def asked(response, place=0):
    return [step["expert"] for step in trace(response, place)["steps"] if step["error"] is None]


def test_labels_are_those_that_the_policy_gives(site, published):
    here = site()
    response = here.classify(*FILMS, **{"lambda": 0.02})
    assert response.status_code == 200, response.text
    loaded = opened(str(published))
    pool_order = loaded.experts
    outputs = []
    for caller in here.decider.callers:
        outputs.append(np.stack([a.vector for a in asyncio.run(caller.ask(FILMS))]))
    (walks,) = loaded.policy.sweep(np.concatenate(outputs, axis=1), [0.02])
    found = response.json()
    assert found["artefact"] == loaded.manifest["version"]
    classes = loaded.manifest["classes"]
    assert [r["label"] for r in found["results"]] == [classes[a] for a in walks.answers]
    for row, result in enumerate(found["results"]):
        order = [pool_order[e] for e in walks.order[row] if e >= 0]
        assert [step["expert"] for step in result["steps"]] == order
        assert result["cost"] == pytest.approx(walks.spent[row])
        assert result["stop_reason"] == walks.reasons[row]
        assert sum(result["scores"].values()) == pytest.approx(1)


def test_knobs_do_what_they_say(site):
    here = site()
    assert asked(here.classify(FILMS[0], mode="full")) == ["cheap", "dear"]
    assert len(asked(here.classify(FILMS[0], mode="single"))) == 1
    assert asked(here.classify(FILMS[0], mode="full", deny=["cheap"])) == ["dear"]
    assert asked(here.classify(FILMS[0], allow=["cheap"], min_experts=2)) == ["cheap"]
    assert asked(here.classify(FILMS[0], min_experts=2)) in (["cheap", "dear"], ["dear", "cheap"])
    cheap = here.classify(FILMS[0], max_cost=1.5, min_experts=2)
    assert asked(cheap) == ["cheap"] and trace(cheap)["stop_reason"] == "budget"
    assert trace(here.classify(FILMS[0], max_experts=1))["stop_reason"] in {"limit", "gain"}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"inputs": []}, 422, "inputs: List should have at least 1 item"),
        ({"inputs": ["a"], "lamda": 1}, 422, "lamda: Extra inputs"),
        ({"inputs": ["a"], "lambda": -1}, 422, "lambda: "),
        ({"inputs": ["a"], "allow": ["nobody"]}, 422, "allow: no expert 'nobody'; allowed: cheap, dear"),
        ({"inputs": ["a"], "max_cost": 0.5}, 422, "no expert that may be asked costs as little"),
        ({"inputs": ["a"], "allow": ["cheap"], "deny": ["cheap"]}, 422, "no expert may be asked"),
        ({"inputs": ["a"] * 300}, 413, "inputs: 300; at most 256"),
        ({}, 422, "inputs: Field required"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(site, body, status, words):
    response = site()("POST", "/v1/classify", json=body)
    assert response.status_code == status
    error = response.json()["error"]
    assert words in error["message"] and "\n" not in error["message"]
    assert set(error) == {"message", "type", "code", "param"}


def test_bodies_that_are_too_large_are_not_read(site):
    here = site(router={"max_body_bytes": 1000})

    async def parts():
        for _ in range(4):
            yield b" " * 400

    for content in (b"x" * 1001, parts()):
        response = here("POST", "/v1/classify", content=content)
        assert response.status_code == 413
        assert response.json()["error"]["message"] == "the body is larger than 1000 bytes"


def test_an_expert_that_fails_is_left_out_and_named(site):
    here = site({"cheap": dead}, service={"retries": 0})
    response = here.classify(FILMS[0], mode="full")
    assert response.status_code == 200
    assert asked(response) == ["dear"]
    (failed,) = [step for step in trace(response)["steps"] if step["error"]]
    assert failed["expert"] == "cheap" and "actor" in failed["error"]
    assert trace(response)["cost"] == 5  # the call that failed has its price


def test_when_nobody_answers_the_reasons_are_given_and_the_circuit_opens(site):
    here = site(
        {"cheap": dead, "dear": dead},
        service={"retries": 0},
        router={"circuit": {"failures": 2, "cool_down_s": 60}},
    )
    for _ in range(2):
        response = here.classify(FILMS[0])
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        message = response.json()["error"]["message"]
        assert "cheap: " in message and "dear: " in message
    response = here.classify(FILMS[0])
    assert response.status_code == 503
    assert "unavailable: cheap, dear" in response.json()["error"]["message"]
    assert here("POST", "/v1/route", json={}).status_code == 503
    assert not any(e["available"] for e in here("GET", "/v1/artefact").json()["experts"])


def test_a_request_in_a_hurry_gets_what_is_known_or_an_error(site):
    response = site({"dear": slow}).classify(FILMS[0], min_experts=2, deadline_ms=1000)
    assert response.status_code == 200
    assert asked(response) == ["cheap"]
    response = site({"dear": slow, "cheap": slow}).classify(FILMS[0], deadline_ms=200)
    assert response.status_code == 408
    assert "no answer within" in response.json()["error"]["message"]


def test_too_many_requests_are_told_to_come_back(site):
    async def patient(texts):
        await asyncio.sleep(0.2)
        return here.models["dear"].answer(texts)

    here = site({"dear": patient}, router={"max_ongoing": 2, "max_queued": 3})
    body = {"inputs": FILMS[:1], "allow": ["dear"]}
    found = here.together(*[body] * 9)
    assert sorted(response.status_code for response in found) == [200] * 5 + [429] * 4
    (refused, *_) = [response for response in found if response.status_code == 429]
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["message"] == "too much to do: 3 requests wait already"
    assert here.classify(*FILMS[:1], allow=["dear"]).status_code == 200


def test_a_request_that_waits_has_less_time_left(site):
    async def first_slow(texts):
        await asyncio.sleep(0 if texts[0] == FILMS[1] else 30)
        return here.models["dear"].answer(texts)

    here = site({"dear": first_slow}, router={"max_ongoing": 1})
    late = {"inputs": FILMS[:1], "allow": ["dear"], "deadline_ms": 300}
    behind = {"inputs": FILMS[1:2], "allow": ["dear"], "deadline_ms": 200}
    found = here.together(late, behind, {**behind, "deadline_ms": 5000})
    assert [response.status_code for response in found] == [408, 429, 200]
    assert "its turn has not come within 0.2 s" in found[1].json()["error"]["message"]


def test_keys_are_needed_where_there_are_any(site, monkeypatch):
    monkeypatch.setenv("KEYS", f"first sha256:{access.digest('second')}")
    here = site(access={"keys_env": "KEYS"})
    assert here("GET", "/health").status_code == 200
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "first"}):
        response = here("GET", "/v1/models", headers=header)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
    for key in ("first", "second"):
        assert here("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_below_a_prefix_paths_are_the_same(site, monkeypatch):
    monkeypatch.setenv("KEYS", "first")
    here, key = site(access={"keys_env": "KEYS"}), {"Authorization": "Bearer first"}
    assert here("GET", "/health", prefix="/films").status_code == 200
    for headers, status in ({}, 401), (key, 200):
        body = {"inputs": [FILMS[0]]}
        assert here("POST", "/v1/classify", prefix="/films", headers=headers, json=body).status_code == status


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("application/json; charset=utf-8", '{"inputs": ["a"]}', None),
        ("application/vnd.api+json", '{"inputs": ["a"]}', None),
        ("text/plain", '{"inputs": ["a"]}', "content-type: text/plain; allowed: application/json"),
        ("", '{"inputs": ["a"]}', "content-type: none; allowed: application/json"),
        ("application/json", '{"inputs": ["a"', "body: Invalid JSON"),
        ("application/json", "", "body: Invalid JSON"),
        ("application/json", '["a"]', "body: Input should be an object"),
        ("application/json", '{"inputs": ["a", 7]}', "inputs.1: Input should be a valid string"),
    ],
)
def test_only_json_is_read(site, kind, body, said):
    response = site()("POST", "/v1/classify", content=body, headers={"Content-Type": kind})
    assert response.status_code == (422 if said else 200)
    if said:
        error = response.json()["error"]
        assert error["message"].startswith(said) and error["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("router", "label"),
    [({"unseen": "abstain"}, False), ({"unseen": "default", "default_expert": "dear"}, True)],
)
def test_texts_unlike_anything_stored(site, router, label):
    here = site(router=router)
    here.decider.limits = {"0": [0, -1, 0], "1": [0, -1, 0], "0,1": [0, -1, 0]}  # everything is beyond
    response = here.classify(FILMS[0])
    assert trace(response)["unseen"] is True
    assert (response.json()["results"][0]["label"] is not None) == label
    assert not label or asked(response)[-1] == "dear"
    prices = {"cheap": 1, "dear": 4}
    assert trace(response)["cost"] == sum(prices[name] for name in asked(response))


def test_the_artefact_and_routes_are_described(site, published):
    here = site()
    about = here("GET", "/v1/artefact").json()
    assert [e["name"] for e in about["experts"]] == ["cheap", "dear"]
    assert [point["lambda"] for point in about["calibration"]] == [0.0, 0.02, 0.2]
    route = here("POST", "/v1/route", json={"lambda": 0.2, "deny": ["cheap"]}).json()
    assert route["first"] == ["dear"] and route["expected"]["lambda"] == 0.2
    assert here("GET", "/v1/models").json()["data"][0]["id"] == "amalgam"
    schema = here("GET", "/openapi.json").json()
    assert {"/v1/classify", "/v1/route", "/v1/artefact", "/v1/models", "/health"} < set(schema["paths"])
    assert schema["components"]["schemas"]["ClassifyRequest"]["examples"]
    assert here("GET", "/").text.startswith("<!doctype html>")


def test_experts_of_the_first_stage_are_asked_side_by_side(site):
    begun, waited = [], []

    def holding(name):
        async def ask(some):
            begun.append(name)
            for _ in range(200):
                if len(begun) == 2:
                    break
                await asyncio.sleep(0.01)
            waited.append(len(begun))
            return here.models[name].answer(some)

        return ask

    here = site({"cheap": holding("cheap"), "dear": holding("dear")})
    found = trace(here.classify(FILMS[0], first_stage=2, **{"lambda": 0.2}))
    assert sorted(begun) == ["cheap", "dear"] and waited == [2, 2]
    assert sorted(found["experts"]) == ["cheap", "dear"] and found["cost"] == 5
    begun.clear()
    within = here.classify(FILMS[0], first_stage=2, max_cost=3)
    assert asked(within) == ["cheap"] and trace(within)["cost"] == 1


def test_without_keys_other_machines_are_refused(site):
    here = site()
    assert here("GET", "/v1/artefact").status_code == 200
    response = here("GET", "/v1/artefact", sender=("192.0.2.7", 4711))
    assert response.status_code == 403
    assert "access.keys_env" in response.json()["error"]["message"]


def test_a_span_says_whom_a_request_asked_and_no_text(site, monkeypatch):
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr("actors.serving.http.TRACER", provider.get_tracer("test"))
    result = trace(site().classify(FILMS[0], **{"lambda": 0.02}))
    (span,) = spans.get_finished_spans()
    assert span.name == "amalgam.decide" and dict(span.attributes) == {"mode": "frugal", "texts": 1}
    (event,) = span.events
    assert list(event.attributes["experts"]) == result["experts"]
    assert (event.attributes["stop_reason"], event.attributes["cost"]) == (
        result["stop_reason"],
        result["cost"],
    )
    assert FILMS[0] not in span.to_json()
