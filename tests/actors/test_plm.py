"""Language model processes: what they answer, and what happens when they die."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.budget import Budget
from actors.dispatch import AskPlm
from actors.engines.base import Completion, DeviceLostError, EngineError, Request
from actors.failover import ExpertError
from actors.plm import Generated, Plm, generate_block, start_plm, wait_ready
from actors.replicas import parts
from configs.schema.plm import PlmSpec, RecordedEngine, Sampling, VllmEngine

LABELS = ("good", "bad")


def spec(**fields) -> PlmSpec:
    usual = {"engine": RecordedEngine(path="x"), "num_cpus": 0.5, "request_timeout_s": 60}
    return PlmSpec(name="writer", **{**usual, **fields})


def request(name: str) -> Request:
    return Request(name, name, 1, 0, 0, 0, 0, True)


def block(*names: str) -> list[Request]:
    return [request(name) for name in names]


def scripted(folder: Path) -> Callable:
    """A loader of an engine that does what prompts say; local, so that workers get it by value."""

    class Scripted:
        def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
            return [self._answer(request.prompt) for request in requests]

        def _answer(self, prompt: str) -> Completion:
            with (folder / prompt).open("a") as log:
                log.write(f"{os.getpid()}\n")
            if prompt.startswith("crash"):
                os.kill(os.getpid(), signal.SIGKILL)
            if prompt.startswith("lost"):
                raise DeviceLostError("device-side assert")
            if prompt.startswith("raise"):
                raise ValueError("no such thing\nsecond line")
            if prompt.startswith("useless"):
                raise EngineError("m at http://x: the key is refused")
            if prompt.startswith("slow"):
                time.sleep(1)
            if prompt.startswith("beside"):
                while not (folder / "crash").exists():
                    time.sleep(0.01)
                time.sleep(0.5)
                with (folder / f"{prompt}.ended").open("a") as log:
                    log.write(f"{os.getpid()}\n")
            if prompt.startswith("meet"):
                while len(list(folder.glob("meet*"))) < 3:
                    time.sleep(0.01)
            if prompt.startswith("hang"):
                time.sleep(600)
            return Completion(prompt.upper(), "stop", 1, 1)

        def available(self, *position: int) -> int:
            return sum(position)

        def describe(self) -> dict[str, str]:
            return {"engine": "scripted"}

    return lambda spec, labels, seed: Scripted()


def starts(folder: Path, name: str) -> list[str]:
    path = folder / name
    return path.read_text().split() if path.exists() else []


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
def writer(ray_session, tmp_path):
    import ray

    handles = start_plm(spec(), LABELS, 0, load=scripted(tmp_path))
    yield SimpleNamespace(handle=handles[0], folder=tmp_path)
    for handle in handles:
        ray.kill(handle)


def texts(generated: Generated) -> list[str]:
    return [completion.text for completion in generated.completions]


def errors(generated: Generated) -> list[str | None]:
    assert all(c.finish_reason == ("error" if c.error else "stop") for c in generated.completions)
    return [completion.error for completion in generated.completions]


@pytest.mark.ray
def test_answers_describes_and_counts(writer):
    async def run() -> None:
        ready = await wait_ready(writer.handle, spec())
        generated = await generate_block(writer.handle, block("one", "two"), spec())
        assert ready["describe"] == {"engine": "scripted"}
        assert texts(generated) == ["ONE", "TWO"]
        assert generated.seconds > 0
        assert {str(ready["pid"])} == set(starts(writer.folder, "one"))
        assert await writer.handle.available.remote(1, 2, False, 3) == 6
        assert (await generate_block(writer.handle, [], spec())).completions == []

    asyncio.run(run())


@pytest.mark.faults
@pytest.mark.ray
def test_killed_process_gives_the_same_answer_as_an_undisturbed_one(writer):
    async def run() -> None:
        pid = (await wait_ready(writer.handle, spec()))["pid"]
        pending = asyncio.ensure_future(generate_block(writer.handle, block("slow"), spec()))
        behind = asyncio.ensure_future(generate_block(writer.handle, block("three"), spec()))
        await until(lambda: bool(starts(writer.folder, "slow")))
        os.kill(pid, signal.SIGKILL)
        assert texts(await pending) == ["SLOW"]
        assert texts(await behind) == ["THREE"]
        assert len(set(starts(writer.folder, "slow"))) == 2
        assert (await wait_ready(writer.handle, spec()))["pid"] != pid

    asyncio.run(run())


@pytest.mark.faults
@pytest.mark.ray
def test_parts_of_a_killed_block_give_the_answer_of_an_undisturbed_one(writer):
    async def run() -> None:
        pid = (await wait_ready(writer.handle, spec()))["pid"]
        whole = block("one", "slow", "two")
        pending = asyncio.ensure_future(generate_block(writer.handle, whole, spec()))
        await until(lambda: bool(starts(writer.folder, "slow")))
        os.kill(pid, signal.SIGKILL)
        assert (await pending).fatal
        answers = [await generate_block(writer.handle, part, spec()) for part in parts(whole)]
        assert [text for answer in answers for text in texts(answer)] == ["ONE", "SLOW", "TWO"]
        assert len(starts(writer.folder, "slow")) == 2

    asyncio.run(run())


@pytest.mark.faults
@pytest.mark.ray
def test_poisonous_block_ends_as_errors_and_its_neighbours_succeed(writer):
    async def run() -> None:
        blocks = [block("a"), block("b", "crash", "c"), block("d"), block("e", "lost"), block("f")]
        generated = await asyncio.gather(*(generate_block(writer.handle, b, spec()) for b in blocks))
        gave_up = "gave up: the process died 1 time on this block"
        assert [texts(g) for g in (generated[0], generated[2], generated[4])] == [["A"], ["D"], ["F"]]
        assert errors(generated[1]) == [gave_up] * 3 and generated[1].fatal
        assert errors(generated[3]) == [gave_up] * 2
        assert len(starts(writer.folder, "crash")) == len(starts(writer.folder, "lost")) == 1

    asyncio.run(run())


@pytest.mark.faults
@pytest.mark.ray
def test_poisonous_request_ends_alone_as_an_error_and_the_rest_of_its_block_is_answered(writer):
    async def run() -> None:
        place = str(writer.folder)
        ask = AskPlm(place, place, {"writer": (spec(), [writer.handle])}, Budget())
        completions, _ = await ask._ask("writer", block(*"abc", "crash", *"efg"))
        assert [c.text for c in completions] == ["A", "B", "C", "", "E", "F", "G"]
        assert [c.error for c in completions if c.error] == [
            "gave up: the process died 3 times on this block"
        ]
        assert len(starts(writer.folder, "crash")) == 5

    asyncio.run(run())


def overlapping() -> PlmSpec:
    return spec(engine=VllmEngine(model="m", blocks=4))


@pytest.fixture
def batching(ray_session, tmp_path):
    import ray

    (handle,) = start_plm(overlapping(), LABELS, 0, load=scripted(tmp_path))
    yield SimpleNamespace(handle=handle, folder=tmp_path)
    ray.kill(handle)


@pytest.mark.ray
def test_blocks_are_in_work_together_where_the_engine_wants_it(batching):
    async def run() -> None:
        blocks = [block(f"meet{number}") for number in range(3)]  # each ends when all have begun
        generated = await asyncio.gather(*(generate_block(batching.handle, b, overlapping()) for b in blocks))
        assert [texts(g) for g in generated] == [["MEET0"], ["MEET1"], ["MEET2"]]

    asyncio.run(run())


@pytest.mark.ray
def test_blocks_in_work_beside_a_poisonous_one_succeed(batching):
    async def run() -> None:
        await wait_ready(batching.handle, overlapping())
        names = [f"beside{number}" for number in range(3)]
        beside = [block(name) for name in names]
        pending = [asyncio.ensure_future(generate_block(batching.handle, b, overlapping())) for b in beside]
        await until(lambda: all(starts(batching.folder, name) for name in names))
        poisonous = await generate_block(batching.handle, block("crash"), overlapping())
        assert [texts(await g) for g in pending] == [["BESIDE0"], ["BESIDE1"], ["BESIDE2"]]
        assert errors(poisonous) == ["gave up: the process died 3 times on this block"]
        assert len(starts(batching.folder, "crash")) == 3
        # They were at work when the process died for the first time, and never again.
        cut_off = [starts(batching.folder, n)[:1] + starts(batching.folder, f"{n}.ended") for n in names]
        assert [starts(batching.folder, name) for name in names] == cut_off

    asyncio.run(run())


@pytest.mark.ray
def test_exception_of_the_engine_is_not_retried(writer):
    async def run() -> None:
        generated = await generate_block(writer.handle, block("a", "raise"), spec())
        assert errors(generated) == ["ValueError: no such thing"] * 2
        assert len(starts(writer.folder, "raise")) == 1
        useless = await generate_block(writer.handle, block("useless", "b"), spec())
        assert errors(useless) == ["m at http://x: the key is refused"] * 2
        assert texts(await generate_block(writer.handle, block("b"), spec())) == ["B"]

    asyncio.run(run())


@pytest.mark.ray
def test_status_answers_while_a_block_hangs_and_the_block_times_out(writer):
    async def run() -> None:
        await wait_ready(writer.handle, spec())
        pending = asyncio.ensure_future(
            generate_block(writer.handle, block("hang"), spec(request_timeout_s=3))
        )
        await until(lambda: bool(starts(writer.folder, "hang")))
        assert (await wait_ready(writer.handle, spec(start_timeout_s=30)))["describe"]
        assert errors(await pending) == ["no answer within 3 s: still starting or busy"]

    asyncio.run(run())


@pytest.mark.ray
def test_engine_that_does_not_load_says_why_in_one_line(ray_session, tmp_path):
    async def run() -> None:
        bad = spec(engine=RecordedEngine(path=str(tmp_path / "none.parquet")), replicas=2)
        for handle in start_plm(bad, LABELS, 0, num_cpus=0.1):
            with pytest.raises(EngineError, match=r"^\S*none.parquet: no such file$"):
                await wait_ready(handle, bad)
            (error,) = errors(await generate_block(handle, block("a"), bad))
            assert error is not None
            assert error.endswith("none.parquet: no such file")

    asyncio.run(run())


@pytest.mark.ray
def test_actor_that_is_gone_for_good_is_an_error(writer):
    import ray

    async def run() -> None:
        await wait_ready(writer.handle, spec())
        ray.kill(writer.handle)
        (error,) = errors(await generate_block(writer.handle, block("a"), spec()))
        assert error is not None
        assert "\n" not in error

    asyncio.run(run())


@pytest.mark.ray
def test_actor_without_room_stays_pending_until_its_time_is_up(ray_session):
    async def run() -> None:
        huge = spec(num_cpus=1000, start_timeout_s=0.5)
        (handle,) = start_plm(huge, LABELS, 0)
        with pytest.raises(ExpertError, match=r"no answer within 0\.5 s"):
            await wait_ready(handle, huge)

    asyncio.run(run())


def test_engine_error_is_kept_and_raised_by_every_method():
    def load(spec, labels, seed):
        raise EngineError("no weights")

    plm = Plm(spec(), LABELS, 0, "unused", load)
    for method in (plm.ready, lambda: plm.available(0, 0, True, 0), lambda: plm.generate([], Sampling())):
        with pytest.raises(EngineError, match="no weights"):
            method()
