"""How many requests a round sends: quotas, yields, limits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.writing import LOWEST_YIELD, Chain, Need, Round


def by_label(*rooms):
    return Need(list(rooms), sum(rooms), by_label=True)


def in_all(left, labels=2):
    return Need([left // labels] * labels, left, by_label=False)


def test_the_first_wave_asks_for_somewhat_more_than_is_wanted():
    assert by_label(100, 50).requests(1.2, 4) == [120, 60]


def test_later_waves_follow_the_yield_seen():
    need = by_label(100, 100)
    need.count([120, 120], [60, 100])
    assert need.room == [40, 0]
    assert need.requests(1.0, 4) == [80, 0]


def test_a_label_that_never_yields_does_not_ask_without_end():
    need = by_label(10)
    need.count([12], [0])
    assert need.requests(1.0, 100) == [round(10 / LOWEST_YIELD)]


def test_attempts_are_limited():
    need = by_label(10)
    need.count([12], [0])
    assert need.requests(1.2, 4) == [28]
    need.count([28], [0])
    assert need.requests(1.2, 4) == [0]


def test_a_quota_per_plm_spreads_what_is_left_over_the_labels():
    need = in_all(10)
    assert need.room == 10
    need.count([6, 6], [6, 1])
    assert need.room == 3
    assert need.rooms == [2, 1]


def test_a_full_plm_asks_for_nothing():
    need = in_all(4)
    need.count([4, 4], [3, 3])
    assert need.requests(1.2, 4) == [0, 0]
    assert need.room <= 0


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    rooms=st.lists(st.integers(0, 50), min_size=1, max_size=4),
    yields=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    oversample=st.floats(1, 3),
    attempts=st.floats(1, 6),
    split=st.booleans(),
)
def test_a_round_ends_within_its_attempts_whatever_the_yield(rooms, yields, oversample, attempts, split):
    need = Need(rooms, sum(rooms), by_label=split)
    limit = sum(-(-room * attempts // 1) for room in rooms)
    for _ in range(60):
        asked = need.requests(oversample, attempts)
        if not any(asked):
            break
        assert min(asked) >= 0
        room = need.room if split else [need.room] * len(rooms)
        kept = [min(int(n * y), have) for n, y, have in zip(asked, yields, room, strict=False)]
        if not split:
            total = need.room
            for i, n in enumerate(kept):
                kept[i] = min(n, total)
                total -= kept[i]
        need.count(asked, kept)
        assert sum(need.sent) <= limit + len(rooms)
    else:
        pytest.fail("a round must end")
    assert sum(need.got) <= sum(rooms)


def test_a_chain_counts_from_zero():
    chain = Chain(3)
    chain.of(chain.kept, "critic")[1] += 2
    assert chain.kept == {"critic": [0, 2, 0]}
    assert chain.of(chain.asked, "fan") == [0, 0, 0]


def test_a_round_sums_up_its_waves():
    record = Round(1)
    wave = {
        "asked": [5, 5],
        "kept": [4, 2],
        "rejected": {"short": 3, "copy": 1},
        "prompt_tokens": 100,
        "completion_tokens": 30,
        "seconds": 1.5,
    }
    record.count("fan", wave)
    record.count("fan", {**wave, "rejected": {"short": 1}})
    assert (record.asked, record.kept) == ({"fan": 20}, {"fan": 12})
    assert record.rejected == {"fan": {"short": 4, "copy": 1}}
    assert (record.prompt_tokens["fan"], record.completion_tokens["fan"], record.seconds["fan"]) == (
        200,
        60,
        3.0,
    )
