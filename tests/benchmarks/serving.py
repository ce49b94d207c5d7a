"""What the benchmarks of the endpoint share: a cluster with HAProxy, an artefact, a client that is cheap."""

import asyncio
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"

import aiohttp
import ray
import requests
from aiohttp import web
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from cluster.proxy import free_port
from cluster.session import connect
from configs.schema.foe import FoeConfig
from tests.actors.routing.conftest import fuse
from tests.experts import classifier, remote, write, write_items

TEXTS = ("A clever, warm film.", "A dull, tedious mess.", "I asked for a refund.", "I would see it again.")
START_S = 120
QUIET = {"enable_access_log": False}
"""As our deployment files say; also for bare applications."""
Send = Callable[[aiohttp.ClientSession, str], Awaitable[int]]


@contextmanager
def cluster() -> Iterator[str]:
    """A cluster of its own with Serve; where it listens."""
    connect("local")
    port = free_port()
    options = {"host": "127.0.0.1", "port": port, "request_timeout_s": 30}
    serve.start(http_options=options, logging_config=QUIET)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


@contextmanager
def artefact(pool: Callable[[Path], list[dict[str, Any]]] | None = None) -> Iterator[Path]:
    """The run of a router, with two small classifiers where no others are given."""
    folder = Path(tempfile.mkdtemp(prefix="amalgam-"))
    try:
        experts = (pool or _small)(folder)
        live = {"kind": "live", "items": {"path": str(write_items(folder, 90))}, "pool": experts}
        data = {
            "job": "foe",
            "name": "films",
            "experts": live,
            "fusers": ["knn"],
            "features": {"prompt": False},
        }
        data["policy"] = {"fusers": ["knn"], "neighbours": 5, "sample": 10, "rates": [0.0, 0.02, 0.2]}
        fuse(FoeConfig.model_validate(data), folder / "run")
        yield folder / "run"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _small(folder: Path) -> list[dict[str, Any]]:
    small = write(folder)
    return [
        {**classifier("cheap", small / "linear", temperature=3), "num_cpus": 0.2, "price_per_call": 1},
        {**classifier("dear", small / "linear"), "num_cpus": 0.2, "price_per_call": 4},
    ]


def said(text: str) -> dict[str, Any]:
    """A chat."""
    return {"model": "amalgam", "messages": [{"role": "user", "content": text}]}


def pool(urls: list[str]) -> Callable[[Path], list[dict[str, Any]]]:
    """The experts: dummies, whose word is taken for a label."""
    return lambda folder: [
        {**remote(f"far{number}", f"{url}/v1", judge="label"), "price_per_call": 1 + number}
        for number, url in enumerate(urls)
    ]


def _dummy(port: int, delay_s: float) -> None:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(delay_s)
        message = {"role": "assistant", "content": "positive"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
        return web.json_response({**body, "choices": [choice], "usage": usage})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


@contextmanager
def dummies(count: int, delay_s: float = 0) -> Iterator[list[str]]:
    """Servers that always say the same, after a while."""
    ports = [free_port() for _ in range(count)]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_dummy, args=(port, delay_s), daemon=True) for port in ports]
    for process in processes:
        process.start()
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    for url in urls:
        answering(f"{url}/v1/chat/completions", said(""))
    try:
        yield urls
    finally:
        for process in processes:
            process.kill()


def answering(url: str, body: dict[str, Any]) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + START_S
    while True:
        try:
            if requests.post(url, json=body, timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        assert time.monotonic() < end, f"{url} does not answer"
        time.sleep(0.2)


def deploy(*applications: dict[str, Any]) -> None:
    """What `serve deploy` sends, and wait until all of it runs."""
    schema = ServeDeploySchema(applications=list(applications), logging_config=QUIET)
    _get_global_client().deploy_apps(schema)
    names = {application["name"] for application in applications}
    end = time.monotonic() + 180
    while True:
        known = serve.status().applications
        if names <= set(known) and all(known[name].status == "RUNNING" for name in names):
            return
        assert time.monotonic() < end, {name: one.message for name, one in known.items()}
        time.sleep(0.2)


def router(run: Path, name: str = "films", prefix: str = "/", **changes: Any) -> dict[str, Any]:
    """The application of an artefact."""
    service = {"num_cpus": 0.2, **changes.pop("service", {})}
    args = {"artefact": str(run), "service": service, "router": {"num_cpus": 0.2, **changes}}
    return {
        "name": name,
        "route_prefix": prefix,
        "import_path": "actors.router:build",
        "args": args,
        "deployments": [{"name": "Router", "user_config": {"artefact": str(run)}}],
    }


async def closed(send: Send, connections: int, seconds: float) -> tuple[list[float], int]:
    """Latencies (s) of a closed loop, and how many requests failed."""
    latencies: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as client:

        async def again(number: int) -> None:
            nonlocal failed
            while (started := time.perf_counter()) < end:
                status = await send(client, TEXTS[number % len(TEXTS)])
                latencies.append(time.perf_counter() - started)
                failed += status != 200

        await asyncio.gather(*(again(number) for number in range(connections)))
    return latencies, failed


def posting(url: str, body: Callable[[str], dict[str, Any]]) -> Send:
    """Sends a text; the status of the answer."""

    async def send(client: aiohttp.ClientSession, text: str) -> int:
        async with client.post(url, json=body(text)) as response:
            await response.read()
            return response.status

    return send


def compared(
    ways: dict[str, Send], connections: int, seconds: float, rounds: int = 6
) -> dict[str, tuple[float, ...]]:
    """p50, p95, p99 (ms), requests a second and failures of each way, measured in turns."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    failures = dict.fromkeys(ways, 0)
    for turn in range(rounds + 1):
        for name, send in ways.items():
            latencies, failed = asyncio.run(closed(send, connections, seconds / rounds))
            if turn:  # the first turn warms up
                seen[name] += latencies
                failures[name] += failed
    found = {}
    for name, latencies in seen.items():
        cuts = [1e3 * cut for cut in statistics.quantiles(latencies, n=100)]
        found[name] = (cuts[49], cuts[94], cuts[98], len(latencies) / seconds, failures[name])
    return found


def table(title: str, found: dict[str, tuple[float, ...]]) -> None:
    """Print what was measured."""
    print(f"\n{title:36}{'p50 ms':>9}{'p95':>9}{'p99':>9}{'req/s':>9}{'failed':>8}")
    for name, (p50, p95, p99, rate, failed) in found.items():
        print(f"{name:36}{p50:9.2f}{p95:9.2f}{p99:9.2f}{rate:9.0f}{failed:8.0f}")
