"""Blocks side by side: their time, and those that must be alone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from actors.overlap import Overlap


def test_blocks_that_overlap_share_the_time():
    now, together = [1.0], threading.Barrier(5)
    overlap = Overlap(lambda: now[0])

    def work(_):
        with overlap.block(alone=False) as seconds:
            together.wait(60)  # only side by side do they get past this
            together.wait(60)
            return seconds()

    with ThreadPoolExecutor(4) as pool:
        shares = pool.map(work, range(4))
        together.wait(60)
        now[0] += 0.4
        together.wait(60)
        assert list(shares) == pytest.approx([0.1] * 4)
    now[0] += 7  # idle time counts for none
    with overlap.block(alone=False) as seconds:
        now[0] += 0.5
        assert seconds() == pytest.approx(0.5)


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
    assert max(order.index(3), order.index(4)) < 30  # 38 and 39, were they starved
