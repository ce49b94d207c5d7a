"""The endpoint beside LiteLLM's proxy: both pass chats on to the same two servers of this machine.

    python -m venv peers && peers/bin/pip install -r requirements/peers.txt
    python -m tests.benchmarks.bench_litellm peers/bin/litellm [SECONDS]

The servers always say the same, at once. The router asks one expert (`single`), as the proxy does; then
it decides how many (`frugal`). Its experts, which only pass requests on, live within its processes.
"""

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from aiohttp import web

from cluster.proxy import free_port
from tests.benchmarks.serving import Send, artefact, cluster, compared, deploy, posting, router, table
from tests.experts import remote

SECONDS = 12.0
WORKERS = 2
"""Processes of the proxy; the router has as many."""
START_S = 120


def main(arguments: list[str]) -> None:
    """Measure and print tables."""
    proxy, seconds = arguments[0], float(arguments[1]) if arguments[1:] else SECONDS
    with dummies(2) as urls, litellm(proxy, urls) as peer, cluster() as url, artefact(pool(urls)) as run:
        deploy(router(run, service={"placement": "router"}))
        ways = {
            "dummy server alone": chatting(f"{urls[0]}/v1", said),
            "LiteLLM proxy": chatting(f"{peer}/v1", said),
            "router: single": chatting(f"{url}/v1", lambda text: {**said(text), "mode": "single"}),
            "router: frugal": chatting(f"{url}/v1", lambda text: {**said(text), "lambda": 0.02}),
        }
        for connections in (1, 16):
            found = compared(ways, connections, seconds)
            table(f"{connections} at a time", found)
            ours, theirs = found["router: single"], found["LiteLLM proxy"]
            print(f"router / proxy: throughput {ours[3] / theirs[3]:.2f}, p99 {ours[2] / theirs[2]:.2f}")


def said(text: str) -> dict[str, Any]:
    """A chat."""
    return {"model": "amalgam", "messages": [{"role": "user", "content": text}]}


def chatting(url: str, body: Callable[[str], dict[str, Any]]) -> Send:
    """Sends a chat."""
    return posting(f"{url}/chat/completions", body)


def pool(urls: list[str]) -> Callable[[Path], list[dict[str, Any]]]:
    """The experts: the dummies, whose word is taken for a label."""
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
        _wait(f"{url}/v1/chat/completions", said(""))
    try:
        yield urls
    finally:
        for process in processes:
            process.kill()


@contextmanager
def litellm(command: str, urls: list[str]) -> Iterator[str]:
    """LiteLLM's proxy before the dummies, as its documentation advises for production."""
    models = [
        {
            "model_name": "amalgam",
            "litellm_params": {"model": "openai/m", "api_base": f"{u}/v1", "api_key": "none"},
        }
        for u in urls
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"  # JSON is YAML
        config.write_text(json.dumps({"model_list": models, "litellm_settings": {"telemetry": False}}))
        port = free_port()
        options = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        quiet = {
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # it listens to this machine only
        }
        process = subprocess.Popen(
            [command, *options, "--num_workers", str(WORKERS)],
            env={**os.environ, **quiet},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/v1/chat/completions", said(""))
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 15)
            process.wait()


def _wait(url: str, body: dict[str, Any]) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            if requests.post(url, json=body, timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        assert time.monotonic() < end, f"{url} does not answer"
        time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1:])
