import asyncio
import time

import pytest
from ray.exceptions import RayActorError, RayTaskError

from actors.engines.base import EngineError
from actors.experts.base import Answer
from actors.serving.calls import Breaker, Caller, CallError
from configs.schema.serve import Circuit, Service


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_circuit_opens_after_failures_in_a_row_and_lets_one_try_again():
    clock = Clock()
    breaker = Breaker(Circuit(failures=2, cool_down_s=10), clock)
    for good in (False, True, False):
        breaker.begin()
        breaker.end(good=good)
    assert breaker.closed  # never two in a row
    breaker.end(good=False)
    assert not breaker.closed
    clock.now = 10
    assert breaker.closed
    breaker.begin()
    assert not breaker.closed  # one at a time
    breaker.end(good=False)
    assert not breaker.closed
    clock.now = 20
    breaker.begin()
    breaker.end(good=True)
    assert breaker.closed and breaker.failures == 0


def called(ask, limit=5.0, **service):
    caller = Caller("one", ask, Service(**service), Breaker(Circuit(failures=3)))
    return caller, lambda: asyncio.run(caller(["a"], time.monotonic() + limit))


def test_a_call_that_fails_is_made_again():
    tries = []

    async def ask(texts):
        tries.append(texts)
        if len(tries) == 1:
            raise RayActorError
        return [Answer(text="yes")]

    _, call = called(ask, retries=1)
    assert call() == [Answer(text="yes")]
    assert tries == [["a"], ["a"]]


def test_what_an_engine_says_is_the_reason():
    async def ask(texts):
        error = EngineError("m at http://x/v1: the key is refused")
        raise RayTaskError("answer", "a traceback", error).as_instanceof_cause()

    caller, call = called(ask, retries=0)
    with pytest.raises(CallError, match=r"^m at http://x/v1: the key is refused$"):
        call()
    assert caller.breaker.failures == 1


def test_a_call_ends_with_its_time_and_its_reason():
    async def ask(texts):
        await asyncio.sleep(30)

    caller, call = called(ask, timeout_s=0.05, retries=1)
    with pytest.raises(CallError, match=r"no answer within 0.05 s"):
        call()
    assert caller.breaker.failures == 2
    caller, call = called(ask, limit=0.05)
    with pytest.raises(CallError, match="no answer within"):
        call()
    assert caller.breaker.failures == 0  # the request was in a hurry


def test_what_says_nothing_about_an_expert_neither_closes_its_circuit_nor_blocks_it():
    clock = Clock()
    breaker = Breaker(Circuit(failures=1, cool_down_s=10), clock)
    breaker.end(good=False)
    clock.now = 10

    async def ask(texts):
        await asyncio.sleep(30)

    async def gone():
        call = asyncio.create_task(Caller("one", ask, Service(), breaker)(["a"], time.monotonic() + 60))
        await asyncio.sleep(0.01)
        assert not breaker.closed  # it tries
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    asyncio.run(gone())
    assert breaker.closed and breaker.opened is not None  # the next may try


def test_an_open_circuit_is_not_asked():
    async def ask(texts):
        raise RayActorError

    caller, call = called(ask, retries=5)
    with pytest.raises(CallError):
        call()
    assert caller.breaker.failures == 3 and not caller.available
    with pytest.raises(CallError, match="its circuit is open"):
        call()
    assert caller.breaker.failures == 3


def test_an_expert_that_answers_nothing_has_failed():
    async def ask(texts):
        return [Answer(error="too long")]

    caller, call = called(ask)
    assert call() == [Answer(error="too long")]
    assert caller.breaker.failures == 1
