"""Blocks side by side: their time, and those that must be alone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from actors.overlap import Overlap


def test_blocks_that_overlap_share_the_time():
    overlap, together = Overlap(), threading.Barrier(4)

    def work(_):
        with overlap.block(alone=False) as seconds:
            together.wait(5)  # only side by side do they get past this
            time.sleep(0.4)
            together.wait(5)
            return seconds()

    started = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(work, range(4)))
    assert sum(shares) == pytest.approx(time.perf_counter() - started, rel=0.2)
    assert max(shares) < 2 * min(shares)
    with overlap.block(alone=False) as seconds:
        assert seconds() < 0.1  # idle time counts for none


def test_a_block_that_must_be_alone_waits_and_is_not_starved():
    overlap, working, seen = Overlap(), [], []

    def work(number):
        alone = number in {3, 4}
        with overlap.block(alone=alone):
            working.append(number)
            time.sleep(0.02)
            seen.append((number, len(working)))
            working.remove(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(40)))
    assert {count for number, count in seen if number in {3, 4}} == {1}
    assert max(count for _, count in seen) > 1
    order = [number for number, _ in seen]
    assert max(order.index(3), order.index(4)) < 12
