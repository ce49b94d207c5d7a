"""Turns: the least busy replica is asked, and none has more than its share at a time."""

import asyncio
from collections import Counter

from actors.replicas import AHEAD, Turns


def test_calls_are_spread_and_each_replica_has_few_at_a_time():
    at_once, most, calls = Counter(), Counter(), Counter()

    async def call(replica):
        calls[replica] += 1
        at_once[replica] += 1
        most[replica] = max(most[replica], at_once[replica])
        await asyncio.sleep(0)
        at_once[replica] -= 1
        return replica

    async def run():
        turns = Turns(["a", "b", "c"], 2)
        return await asyncio.gather(*(turns.take(call) for _ in range(30)))

    answers = asyncio.run(run())
    assert calls == Counter(answers) == {"a": 10, "b": 10, "c": 10}
    assert set(most.values()) == {2 + AHEAD}


def test_a_call_that_fails_gives_its_turn_back():
    async def fail(replica):
        raise ValueError(replica)

    async def run():
        turns = Turns(["a"], 1)
        failures = await asyncio.gather(*(turns.take(fail) for _ in range(9)), return_exceptions=True)
        assert all(isinstance(error, ValueError) for error in failures)
        assert turns.busy == [0]

    asyncio.run(run())
