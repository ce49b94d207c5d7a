"""Load on a served router, for a bounded time: so many at once (closed loop), or so many a second (open)."""

import asyncio
import itertools
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import typer

from configs.schema.base import ConfigError

WAITING = 1000
"""Requests under way at most in an open loop: more would measure this machine."""
TIMEOUT_S = 60.0
"""After which a request is given up."""
TEXTS = ("A clever, warm film.", "A dull, tedious mess.", "I asked for a refund.", "I would see it again.")


@dataclass
class Seen:
    """What came back."""

    latencies: list[float] = field(default_factory=list)
    """Of requests that were answered, in seconds."""
    outcomes: Counter[str] = field(default_factory=Counter)
    experts: list[int] = field(default_factory=list)
    cost: float = 0.0
    skipped: int = 0
    """Requests that an open loop could not send in time."""


def main(
    url: str, *, concurrency: int, rate: float | None, seconds: float, texts: str | None, key_env: str | None
) -> None:
    """Load an endpoint and print what was seen; ConfigError when it is not there."""
    key = os.environ.get(key_env, "") if key_env else ""
    if key_env and not key:
        raise ConfigError(f"--key-env: the environment variable {key_env} is empty")
    seen, took = asyncio.run(load(url, _texts(texts), concurrency, rate, seconds, key))
    typer.echo(table(seen, took))


async def load(
    url: str, texts: Sequence[str], concurrency: int, rate: float | None, seconds: float, key: str = ""
) -> tuple[Seen, float]:
    """Send requests for so long, one text each; what came back, and the time that it took."""
    seen, bodies = Seen(), itertools.cycle(texts)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connector = aiohttp.TCPConnector(limit=concurrency if rate is None else WAITING)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(url, headers=headers, connector=connector, timeout=timeout) as client:
        try:
            async with client.get("/v1/artefact", raise_for_status=True) as response:
                about = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ConfigError(f"{url}: no router answers there: {error or 'no time left'}") from None
        send = _chat if about["answer"] == "expert" else _classify
        await send(client, Seen(), next(bodies))  # what only a first request waits for
        started = time.perf_counter()
        end = started + seconds

        async def again() -> None:
            while time.perf_counter() < end:
                await send(client, seen, next(bodies))

        if rate is None:
            await asyncio.gather(*(again() for _ in range(concurrency)))
        else:
            under_way: set[asyncio.Task[None]] = set()
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
                if len(under_way) >= WAITING:
                    seen.skipped += 1
                    continue
                task = asyncio.create_task(send(client, seen, next(bodies)))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.gather(*under_way)
        return seen, time.perf_counter() - started


def table(seen: Seen, took: float) -> str:
    """What was seen, line by line."""
    answered = len(seen.latencies)
    lines = [f"answered     {answered:10,} in {took:.1f} s, {answered / took:,.1f} a second"]
    if answered:
        p50, p95, p99 = (1e3 * np.quantile(seen.latencies, q) for q in (0.5, 0.95, 0.99))
        lines += [
            f"latency      {p50:10.1f} ms p50, {p95:.1f} p95, {p99:.1f} p99",
            f"experts      {np.mean(seen.experts):10.2f} a request",
            f"cost         {seen.cost / answered:10.4g} a request",
        ]
    errors = {name: count for name, count in sorted(seen.outcomes.items()) if name != "200"}
    lines.append(
        f"errors       {sum(errors.values()):10,} " + ", ".join(f"{n} x {c}" for n, c in errors.items())
    )
    if seen.skipped:
        lines.append(f"not sent     {seen.skipped:10,} (over {WAITING:,} were under way)")
    return "\n".join(line.rstrip() for line in lines)


async def _classify(client: aiohttp.ClientSession, seen: Seen, text: str) -> None:
    found = await _post(client, seen, "/v1/classify", {"inputs": [text]})
    if found:
        _count(seen, found["results"][0])


async def _chat(client: aiohttp.ClientSession, seen: Seen, text: str) -> None:
    body = {"messages": [{"role": "user", "content": text}]}
    found = await _post(client, seen, "/v1/chat/completions", body)
    if found:
        _count(seen, found["amalgam"])


async def _post(client: aiohttp.ClientSession, seen: Seen, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401
    started = time.perf_counter()
    try:
        async with client.post(path, json=body) as response:
            found = await response.json() if response.ok else None
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        seen.outcomes[type(error).__name__] += 1
        return None
    seen.outcomes[str(response.status)] += 1
    if response.ok:
        seen.latencies.append(time.perf_counter() - started)
    return found


def _count(seen: Seen, trace: dict[str, Any]) -> None:
    seen.experts.append(len(trace["experts"]))
    seen.cost += trace["cost"]


def _texts(path: str | None) -> Sequence[str]:
    if path is None:
        return TEXTS
    try:
        found = [line for line in Path(path).read_text().splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(f"--texts {path}: {error.strerror}") from None
    if not found:
        raise ConfigError(f"--texts {path}: no text in it; one per line")
    return found
