"""Routing among models behind URLs, from the job to the endpoint: both are served by this test."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.router import opened
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
