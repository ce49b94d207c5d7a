from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.generation.schedule import quotas, sizes, validation_draw


def test_fact_13_schedule():
    assert sizes(1000, 200, 4, exact_end=False) == [200, 400, 600, 800, 1000]
    assert sizes(1000, 200, 4, exact_end=True) == [200, 400, 600, 800, 1000]
    assert sizes(1000, 200, 3, exact_end=False) == [200, 466, 732, 998]
    assert sizes(1000, 200, 3, exact_end=True) == [200, 466, 733, 1000]
    assert sizes(6000, 1200, 4, exact_end=True) == [1200, 2400, 3600, 4800, 6000]


def test_fact_14_validation_draw():
    assert [plms * validation_draw(plms, 20) for plms in range(1, 7)] == [20, 40, 60, 80, 100, 96]


def test_without_rounds_everything_is_written_at_once():
    assert sizes(1000, 200, 0, exact_end=True) == [1000]


@pytest.mark.parametrize(("n", "init", "rounds"), [(10, 11, 1), (10, 0, 1), (10, 5, -1)])
def test_impossible_schedules_are_refused(n, init, rounds):
    with pytest.raises(ValueError, match="init"):
        sizes(n, init, rounds, exact_end=True)


@given(st.integers(1, 500), st.integers(0, 500), st.integers(1, 20))
def test_an_exact_schedule_rises_evenly_to_its_end(init, more, rounds):
    schedule = sizes(init + more, init, rounds, exact_end=True)
    steps = [after - before for before, after in pairwise(schedule)]
    assert (schedule[0], schedule[-1], len(schedule)) == (init, init + more, rounds + 1)
    assert max(steps) - min(steps) <= 1


@given(st.integers(0, 300), st.integers(1, 12), st.integers(0, 40))
def test_quotas_sum_up_and_rotate(total, parts, offset):
    shares = quotas(total, parts, offset)
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert shares[offset % parts] == max(shares)
