"""The endpoint beside LiteLLM's proxy: both pass chats on to the same two servers of this machine.

    python -m venv peers && peers/bin/pip install -r requirements/peers.txt
    python -m tests.benchmarks.bench_litellm peers/bin/litellm [SECONDS]

The servers always say the same, at once. The router asks one expert (`single`), as the proxy does; then
it decides how many (`frugal`). Its experts, which only pass requests on, live within its processes.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.proxy import free_port
from tests.benchmarks.serving import (
    Send,
    answering,
    artefact,
    cluster,
    compared,
    deploy,
    dummies,
    pool,
    posting,
    router,
    said,
    table,
)

SECONDS = 12.0
WORKERS = 2
"""Processes of the proxy; the router has as many."""


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


def chatting(url: str, body: Callable[[str], dict[str, Any]]) -> Send:
    """Sends a chat."""
    return posting(f"{url}/chat/completions", body)


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
            answering(f"http://127.0.0.1:{port}/v1/chat/completions", said(""))
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 15)
            process.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
