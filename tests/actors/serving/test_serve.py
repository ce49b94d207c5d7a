"""The router on Ray Serve: real replicas, killed, and a new artefact while it runs."""

import asyncio
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from actors.router import build
from actors.routing import artefact
from cluster.storage import Storage
from configs.schema.base import ConfigError
from configs.schema.serve import Serving
from tests.experts import texts

pytestmark = [pytest.mark.ray, pytest.mark.slow]
FILMS = [text for text, _ in texts(12)]
TURNS = 2
"""Requests that a replica of the router works on, and as many wait."""
SMALL = {"num_cpus": 0.2, "retries": 0, "timeout_s": 20}


@pytest.fixture(scope="module")
def place(published, tmp_path_factory) -> Path:
    """A copy of the artefact, which may be replaced."""
    return Path(shutil.copytree(published / "artefact", tmp_path_factory.mktemp("place") / "artefact"))


def serving(place: Path) -> Serving:
    """Two replicas of the router, one of each expert."""
    turns = {"max_ongoing": TURNS, "max_queued": TURNS}
    router = {"num_cpus": 0.2, "circuit": {"failures": 2, "cool_down_s": 2}, **turns}
    return Serving.model_validate({"artefact": str(place), "service": SMALL, "router": router})


def deploy(place: Path, artefact: Path) -> None:
    """What `serve deploy` sends to a cluster: experts of one artefact, decisions by another."""
    application = {
        "name": "films",
        "route_prefix": "/",
        "import_path": "actors.router:build",
        "args": serving(place).model_dump(mode="json"),
        "deployments": [{"name": "Router", "user_config": {"artefact": str(artefact)}}],
    }
    _get_global_client().deploy_apps(ServeDeploySchema(applications=[application]))


def status() -> str:
    """Of the application."""
    found = serve.status().applications.get("films")
    return found.status if found else ""


@pytest.fixture(scope="module")
def url(place) -> str:
    """Where the router listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deploy(place, place)
    eventually(lambda: status() == "RUNNING", 120)
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def classify(url: str, **knobs) -> httpx.Response:
    """Ask for labels of a few texts."""
    return httpx.post(f"{url}/v1/classify", json={"inputs": FILMS, **knobs}, timeout=60)


def replicas(deployment: str) -> set[int]:
    """Process ids of a deployment."""
    below = psutil.Process().children(recursive=True)
    return {p.pid for p in below if f":{deployment}" in " ".join(p.cmdline())}


def eventually(what: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_answers_are_those_without_serve(url, site):
    here, there = site().classify(*FILMS, mode="full").json(), classify(url, mode="full").json()
    assert there["artefact"] == here["artefact"]
    assert [r["label"] for r in there["results"]] == [r["label"] for r in here["results"]]
    assert [r["scores"] for r in there["results"]] == [r["scores"] for r in here["results"]]


def test_what_is_too_much_is_refused_at_once_and_the_rest_answered(url):
    experts = [psutil.Process(pid) for pid in replicas("expert-")]
    body = {"inputs": FILMS[:1], "mode": "full"}

    async def come() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=60) as client:
            for expert in experts:
                expert.suspend()
            requests = [asyncio.create_task(client.post(f"{url}/v1/classify", json=body)) for _ in range(30)]
            try:
                while sum(request.done() for request in requests) < 30 - 2 * 3 * TURNS:
                    await asyncio.sleep(0.1)
            finally:
                for expert in experts:
                    expert.resume()
            return await asyncio.gather(*requests)

    responses = asyncio.run(come())
    refused = [response for response in responses if response.status_code == 429]
    assert {response.status_code for response in responses} == {200, 429}
    assert len(refused) >= 30 - 2 * 3 * TURNS  # of each replica, those at work, those that wait, and Serve's
    assert all(int(response.headers["retry-after"]) >= 1 for response in refused)
    assert classify(url, mode="full").status_code == 200


def test_a_killed_expert_is_left_out_until_it_is_back(url):
    (victim,) = replicas("expert-cheap")
    psutil.Process(victim).kill()
    responses = [classify(url, mode="full") for _ in range(4)]
    assert {response.status_code for response in responses} == {200}
    for response in responses:
        for result in response.json()["results"]:
            assert "dear" in [s["expert"] for s in result["steps"] if s["error"] is None]

    def back() -> bool:
        found = [classify(url, mode="full").json() for _ in range(3)]
        steps = [s for one in found for r in one["results"] for s in r["steps"]]
        return sum(s["error"] is None for s in steps) == 3 * 2 * len(FILMS)

    eventually(back)


def test_a_new_artefact_takes_over_and_a_broken_one_does_not(url, place, tmp_path):
    old = httpx.get(f"{url}/health").json()["artefact"]
    loaded = artefact.read(Storage(str(place)))
    loaded.manifest["rate"] = 0.2
    new = artefact.write(loaded, Storage(str(tmp_path / "new")))
    assert new != old
    before = replicas("Router") | replicas("expert-")
    deploy(place, tmp_path / "new")
    eventually(lambda: {httpx.get(f"{url}/health").json()["artefact"] for _ in range(6)} == {new})
    assert replicas("Router") | replicas("expert-") == before, "no process was started again"
    broken = shutil.copytree(tmp_path / "new", tmp_path / "broken")
    (broken / "stored.safetensors").write_bytes(b"nonsense")
    deploy(place, broken)
    eventually(lambda: status() == "DEPLOY_FAILED")
    assert {httpx.get(f"{url}/health").json()["artefact"] for _ in range(6)} == {new}
    assert classify(url).status_code == 200


def test_experts_that_nobody_can_start_are_named(place, tmp_path):
    loaded = artefact.read(Storage(str(place)))
    loaded.manifest["served"] = loaded.manifest["served"][:1]
    artefact.write(loaded, Storage(str(tmp_path / "lacking")))
    with pytest.raises(ConfigError, match="does not say how to start dear"):
        build(serving(tmp_path / "lacking"))
    args = serving(place).model_copy(update={"services": {"cheep": serving(place).service}})
    with pytest.raises(ConfigError, match="the artefact knows no 'cheep'; it knows cheap, dear"):
        build(args)
