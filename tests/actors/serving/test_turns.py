"""Turns of requests: in order, in time, or not at all."""

import asyncio

import pytest

from actors.serving.turns import BusyError, Turns


class Place:
    """Turns by a clock that the test moves; requests that hold their turn until they are told to end."""

    def __init__(self, size, most):
        self.now = 0.0
        self.turns = Turns(size, most, lambda: self.now)
        self.left = []

    async def come(self, seconds=100.0):
        """A request; True once it has its turn."""
        ended, until = asyncio.Event(), self.now + seconds

        async def request():
            async with self.turns.turn(until):
                self.left.append(until - self.now)
                await ended.wait()

        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        return task, ended

    async def work(self, seconds):
        """Many requests, one after another, that take so long each."""
        for _ in range(60):
            one = await self.come()
            self.now += seconds
            await self.end(one)

    async def end(self, *requests):
        for task, ended in requests:
            ended.set()
            await task
        await asyncio.sleep(0)


def test_those_who_wait_have_their_turn_in_order_with_the_time_that_is_left():
    async def work():
        place = Place(2, 5)
        first, second, third, fourth = [await place.come(seconds) for seconds in (10, 20, 30, 40)]
        assert place.left == [10, 20]
        place.now = 4
        await place.end(second)
        assert place.left == [10, 20, 26]
        place.now = 7
        await place.end(first)
        assert place.left == [10, 20, 26, 33]
        await place.end(third, fourth)
        await place.end(await place.come(5))
        assert place.left[-1] == 5

    asyncio.run(work())


def test_more_than_may_wait_are_refused_at_once():
    async def work():
        place = Place(1, 2)
        requests = [await place.come() for _ in range(3)]
        refused, _ = await place.come()
        with pytest.raises(BusyError, match="2 requests wait already") as caught:
            await refused
        assert caught.value.retry_after_s == 1
        await place.end(*requests)
        assert len(place.left) == 3

    asyncio.run(work())


def test_who_would_be_late_by_what_others_took_is_refused_at_once():
    async def work():
        place = Place(2, 50)
        await place.work(4)
        held = [await place.come() for _ in range(2)]
        waits, _ = waiting = await place.come(7.6)  # 2 s until one of two ends, and 4 of its own
        refused, _ = await place.come(7.6)  # 2 s more
        with pytest.raises(BusyError, match=r"it would take 8\.0 s, and may take 7\.6 s") as caught:
            await refused
        assert caught.value.retry_after_s == 1
        assert not waits.done()
        await place.end(*held, waiting)
        in_a_hurry = await place.come(0.125)  # nobody is before it: it may try
        await place.end(in_a_hurry)
        assert place.left[-1] == 0.125

    asyncio.run(work())


def test_what_fails_at_once_says_nothing_of_how_long_work_takes():
    async def work():
        place = Place(1, 5)
        await place.work(4)
        for _ in range(60):
            with pytest.raises(KeyError):
                async with place.turns.turn(place.now + 5):
                    raise KeyError
        holder = await place.come()
        refused, _ = await place.come(9)
        with pytest.raises(BusyError, match=r"it would take 8\.0 s"):
            await refused
        await place.end(holder)

    asyncio.run(work())


def test_who_gives_up_or_is_late_leaves_its_place_to_others():
    async def work():
        place = Place(1, 2)
        holder = await place.come()
        gone, _ = await place.come()
        late, _ = await place.come(0.01)
        gone.cancel()
        with pytest.raises(BusyError, match=r"its turn has not come within 0\.01 s"):
            await late
        others = [await place.come() for _ in range(2)]
        await place.end(holder, *others)
        assert len(place.left) == 3

    asyncio.run(work())
