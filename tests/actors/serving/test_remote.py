"""Routing among models behind URLs, from the job to the endpoint: both are served by this test."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.router import opened
from actors.serving.deciding import Decision, Knobs
from configs.schema.foe import FoeConfig
from tests.actors.routing.conftest import fuse
from tests.actors.serving.conftest import Site
from tests.endpoint import Endpoint, listening, prompt_of, refusal
from tests.experts import remote, texts, write_items

pytestmark = pytest.mark.ray
KEY = "sk-of-the-tests"
FILMS = [text for text, _ in texts(40)]
RIGHT = {text: "film" if row % 2 else "the" for row, text in enumerate(FILMS)}


def knows(body, number):
    return f"It is {RIGHT[prompt_of(body).removeprefix('About: ')]}."


@pytest.fixture(scope="module")
def routed(ray_session, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A run with a dear model that is always right and wants a key, and a cheap one that is half the time."""
    folder = tmp_path_factory.mktemp("routed")
    items = write_items(folder, 40, answer=lambda row: "film" if row % 2 else "the")
    with ExitStack() as stack:
        dear = stack.enter_context(listening(Endpoint(knows, key=KEY)))
        cheap = stack.enter_context(listening(Endpoint(lambda body, number: "It is a film.")))
        more = {"key_env": "ENDPOINT_KEY", "concurrency": 7}
        tokens = {"price_per_million_tokens": {"prompt": 1e6, "completion": 1e6}}
        pool = [
            {**remote("dear", dear.url, more), **tokens},
            {**remote("cheap", cheap.url), "price_per_call": 1},
        ]
        live = {"kind": "live", "items": {"path": str(items), "reference": "answer"}, "pool": pool}
        data = {"job": "foe", "answer": "expert", "experts": live, "fusers": ["knn"]}
        data |= {"features": {"dimensions": 5}}
        data |= {"policy": {"fusers": ["knn"], "neighbours": 5, "sample": 10, "rates": [0.0, 0.02]}}
        summary, run = fuse(FoeConfig.model_validate(data), folder / "run")
        yield SimpleNamespace(summary=summary, path=Path(run.uri), dear=dear, cheap=cheap)


def test_a_job_asks_every_item_once_and_keeps_no_key(routed):
    assert (len(routed.dear.bodies), len(routed.cheap.bodies)) == (40, 40)
    assert routed.dear.most <= 7
    methods = routed.summary["methods"]
    assert methods["single/dear"]["accuracy"] == 1 and 0.2 < methods["single/cheap"]["accuracy"] < 0.8
    loaded = opened(str(routed.path))
    assert [expert["vector"] for expert in loaded.manifest["experts"]] == ["encoder", "encoder"]
    assert set(loaded.projections) == {"inputs", "dear", "cheap"}
    words = [len(f"About: {text}".split()) + 3 for text in FILMS]
    assert min(words) <= loaded.manifest["experts"][0]["price"] <= max(words)
    served = loaded.manifest["served"][0]["model"]["engine"]
    assert (served["key_env"], served["concurrency"]) == ("ENDPOINT_KEY", 7)
    files = [path for path in routed.path.rglob("*") if path.is_file()]
    assert len(files) > 10 and not any(KEY.encode() in path.read_bytes() for path in files)


def test_the_router_asks_the_same_urls(routed):
    here = Site(routed.path, {})
    body = {"messages": [{"role": "user", "content": FILMS[1]}]}
    found = here("POST", "/v1/chat/completions", json={**body, "mode": "full"}).json()
    assert found["choices"][0]["message"]["content"] == "It is film."
    trace = found["amalgam"]
    assert {step["expert"] for step in trace["steps"]} == {"dear", "cheap"}
    assert trace["cost"] == len(f"About: {FILMS[1]}".split()) + 3 + 1
    routed.dear.reply = lambda body, number: refusal(400, "no")
    found = here("POST", "/v1/chat/completions", json={**body, "mode": "full"}).json()
    assert found["amalgam"]["answered_by"] == "cheap"
    assert "the server answered 400 Bad Request: no" in str(found["amalgam"]["steps"])


def streamed(here, **knobs):
    """The chunks of a stream, and its status."""
    body = {"messages": [{"role": "user", "content": FILMS[1]}], "stream": True, **knobs}
    response = here("POST", "/v1/chat/completions", json=body)
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    return response.status_code, [line if line == "[DONE]" else json.loads(line) for line in lines]


def said_in(chunks):
    return [chunk["choices"][0]["delta"].get("content") for chunk in chunks[:-1] if "choices" in chunk]


def test_a_response_is_told_while_it_is_written(routed):
    """The expert waits in the middle of its answer until half of it has been heard."""
    routed.dear.reply = lambda body, number: "It is WAIT film."
    here = Site(routed.path, {})

    async def read() -> list[str | Decision]:
        told: list[str | Decision] = []
        async for said in here.decider.tell(FILMS[1], Knobs(rate=1e3, allow=["dear"])):
            told.append(said)
            if told == ["It", " is"]:
                routed.dear.go_on.set()
        return told

    *told, decision = asyncio.run(read())
    assert told == ["It", " is", " WAIT", " film."] and decision.response == "It is WAIT film."
    assert decision.answer == 0 and [call.expert for call in decision.calls] == ["dear"]
    assert decision.cost == len(f"About: {FILMS[1]}".split()) + 4


def test_a_stream_over_http(routed):
    here = Site(routed.path, {})
    routed.dear.reply = knows
    status, chunks = streamed(here, **{"lambda": 1e3}, allow=["dear"])
    assert status == 200 and chunks[-1] == "[DONE]"
    assert said_in(chunks) == ["", "It", " is", " film.", None]
    ending = chunks[-2]
    assert ending["choices"][0]["finish_reason"] == "stop" and ending["amalgam"]["answered_by"] == "dear"
    assert ending["usage"]["completion_tokens"] == 3
    # What is known already is told at once, and so is what comes from a router with rules for strange texts.
    status, chunks = streamed(here, mode="full")
    assert said_in(chunks) == ["", "It is film.", None]
    status, chunks = streamed(Site(routed.path, {}, router={"unseen": "abstain"}), **{"lambda": 1e3})
    assert status == 200 and len(said_in(chunks)) == 3


def test_who_fails_before_a_word_makes_room_and_afterwards_ends_the_stream(routed):
    routed.dear.reply = lambda body, number: refusal(400, "no")
    status, chunks = streamed(Site(routed.path, {}), **{"lambda": 0}, max_experts=1)
    assert status == 200 and chunks[-2]["amalgam"]["answered_by"] == "cheap"
    status, chunks = streamed(Site(routed.path, {}), **{"lambda": 1e3}, allow=["dear"])
    assert status == 503 and "400 Bad Request" in chunks[0]["error"]["message"]
    routed.dear.reply = lambda body, number: "It is BREAK film."
    status, chunks = streamed(Site(routed.path, {}), **{"lambda": 1e3}, allow=["dear"])
    assert status == 200 and said_in(chunks) == ["", "It", " is"]
    assert "the answer broke off" in chunks[-2]["error"]["message"] and chunks[-1] == "[DONE]"
