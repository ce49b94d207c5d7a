"""The router at a steady rate while processes are killed, the artefact is replaced, and too much comes.

    python -m tests.benchmarks.bench_serve_faults [REQUESTS PER SECOND]

Prints for each phase how many requests were answered, by status, the slowest of them, and how long it took
until nobody was missing any more; and how long experts that nobody asks take to be gone, and to be back.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
import psutil

from actors.router import opened
from actors.routing import artefact as artefacts
from cluster.storage import Storage
from tests.benchmarks.serving import TEXTS, artefact, cluster, deploy, dummies, pool, router

RATE = 50.0
SECONDS = 12.0
ACT_AFTER_S = 2.0
DEADLINE_MS = 5000
IDLE_S = 5.0
USERS = 48
"""Of the loop that shows how many requests a second can be answered."""
SLOW_S = 1.0
"""How long experts take that are not limited by this machine's cores."""


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    rate = float(arguments[0]) if arguments else RATE
    settings: dict[str, Any] = {"deadline_ms": DEADLINE_MS, "circuit": {"failures": 2, "cool_down_s": 1}}
    settings["service"] = {"timeout_s": 2, "retries": 1}
    with dummies(2, SLOW_S) as urls, cluster() as url, artefact() as run, artefact(pool(urls)) as slow:
        deploy(router(run, **settings))
        newer = opened(str(run))
        newer.manifest["rate"] = 0.2
        artefacts.write(newer, Storage(str(run / "newer")))

        def reload() -> None:
            application = router(run, **settings)
            application["deployments"][0]["user_config"] = {"artefact": str(run / "newer")}
            deploy(application)

        print(f"{'':34}{'sent':>6}{'200':>6}  {'others':30}{'slowest s':>10}{'whole after s':>14}")
        phases: list[tuple[str, float, Callable[[], object]]] = [
            ("undisturbed", rate, lambda: None),
            ("one of the experts is killed", rate, lambda: kill("expert-cheap")),
            ("one of two routers is killed", rate, lambda: kill("Router", 1)),
            ("all experts are killed", rate, lambda: kill("expert-")),
            ("a new artefact is deployed", rate, reload),
        ]
        for name, sent, act in phases:
            report(name, asyncio.run(steady(url, sent, SECONDS, act)))
        patient = {"timeout_s": DEADLINE_MS / 1e3, "placement": "router"}
        slower = router(slow, "slow", "/slow", deadline_ms=DEADLINE_MS, service=patient)
        deploy(router(run, **settings), slower)
        for times, name, place in ((3, "cores", url), (10, "experts", f"{url}/slow")):
            before, most = memory(), capacity(place)
            answers = asyncio.run(steady(place, times * most, SECONDS, lambda: None))
            report(f"{times} times what the {name} can do", answers)
            print(f"    {most:.0f} a second; routers {before >> 20} MiB before, {memory() >> 20} MiB after")
            report(
                "undisturbed again", asyncio.run(steady(place, min(rate, most / 2), SECONDS, lambda: None))
            )
        idle = {"min_replicas": 0, "idle_s": IDLE_S}
        deploy(router(run, "idle", "/idle", service=idle, deadline_ms=30_000))
        zero(f"{url}/idle")


def replicas(name: str, application: str = "films") -> list[psutil.Process]:
    """Processes of a deployment."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if f":{application}:{name}" in " ".join(command(process))
    ]


def command(process: psutil.Process) -> list[str]:
    """Its command line; nothing once it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def kill(name: str, count: int | None = None) -> None:
    """Kill processes of a deployment as if the machine had gone."""
    for process in replicas(name)[:count]:
        process.kill()


def memory() -> int:
    """Resident bytes of all routers."""
    return sum(p.memory_info().rss for name in ("films", "slow") for p in replicas("Router", name))


def capacity(url: str) -> float:
    """Requests a second that a closed loop of many gets answered."""
    return asyncio.run(closed_loop(url))


async def closed_loop(url: str, seconds: float = 4.0) -> float:
    """Answers a second."""
    end, count = time.perf_counter() + seconds, 0
    async with aiohttp.ClientSession() as client:

        async def again() -> None:
            nonlocal count
            while time.perf_counter() < end:
                await ask(client, url, 0)
                count += 1

        await asyncio.gather(*(again() for _ in range(USERS)))
    return count / seconds


Answer = tuple[float, float, str, int]
"""When it was sent, how long it took (s), status, and how many experts answered."""


async def ask(client: aiohttp.ClientSession, url: str, number: int) -> Answer:
    """One request."""
    started = time.perf_counter()
    body = {"inputs": [TEXTS[number % len(TEXTS)]], "mode": "full"}
    status, heard = "", 0
    try:
        async with client.post(f"{url}/v1/classify", json=body) as response:
            status = str(response.status)
            if response.ok:
                heard = len((await response.json())["results"][0]["experts"])
    except (aiohttp.ClientError, TimeoutError) as error:
        status = type(error).__name__
    return started, time.perf_counter() - started, status, heard


def zero(url: str) -> None:
    """Ask experts that are not there, twice, and print how long answers and the end of the processes take."""
    print(
        f"\n{'no expert is there at first':34}{'status':>8}{'first s':>10}{'next s':>10}{'gone after s':>14}"
    )
    for _ in range(2):
        first, second = (asyncio.run(alone(url)) for _ in range(2))
        ended = time.perf_counter()
        while replicas("expert-", "idle"):
            time.sleep(0.1)
        gone = time.perf_counter() - ended
        print(f"{'':34}{first[2]:>8}{first[1]:10.2f}{second[1]:10.3f}{gone:14.1f}", flush=True)


async def alone(url: str) -> Answer:
    """One request with a connection of its own."""
    async with aiohttp.ClientSession() as client:
        return await ask(client, url, 0)


async def steady(url: str, rate: float, seconds: float, act: Callable[[], object]) -> list[Answer]:
    """All answers of an open loop, in the order in which they were sent; `act` happens on the way."""
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=4 * DEADLINE_MS / 1e3)
    tasks = []
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
        started, acted = time.perf_counter(), False
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
            if not acted and time.perf_counter() - started > ACT_AFTER_S:
                tasks.append(asyncio.create_task(asyncio.to_thread(act)))
                acted = True
            tasks.append(asyncio.create_task(ask(client, url, number)))
        found = await asyncio.gather(*tasks)
    return [one for one in found if one is not None]


def report(name: str, answers: list[Answer]) -> None:
    """Print a line."""
    outcomes = Counter(status for _, _, status, _ in answers)
    others = ", ".join(f"{status} x {n}" for status, n in sorted(outcomes.items()) if status != "200")
    slowest = max(took for _, took, _, _ in answers)
    disturbed = [at + took for at, took, _, heard in answers if heard < 2]
    acted = answers[0][0] + ACT_AFTER_S
    whole = f"{max(disturbed) - acted:14.1f}" if disturbed else f"{'-':>14}"
    print(f"{name:34}{len(answers):6}{outcomes['200']:6}  {others:30}{slowest:10.2f}{whole}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
