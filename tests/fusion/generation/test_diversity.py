import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.generation import diversity


def test_distinct_n_counts_over_the_whole_set():
    texts = ["a b c", "A b, d"]
    assert diversity.distinct_n(texts, 1) == 4 / 6
    assert diversity.distinct_n(texts, 2) == 3 / 4


def test_lengths_are_in_words():
    found = diversity.lengths(["a b", "a  b c d"])
    assert (found["mean"], found["median"]) == (3, 3)


def test_repetition():
    assert diversity.duplicate_rate(["a", "b", "a", "a"]) == 0.5


def test_self_overlap_sees_shared_phrases():
    assert diversity.self_overlap(["one two three four", "five six seven eight"]) == 0
    assert diversity.self_overlap(["one two three four five", "one two three four six"]) == 0.5


@given(st.lists(st.text(max_size=30), max_size=6))
def test_rates_are_shares(texts):
    found = diversity.describe(texts)
    shares = [found[key] for key in ("distinct_1", "distinct_2", "duplicates", "self_overlap")]
    assert all(0 <= share <= 1 for share in shares)
    assert found["texts"] == len(texts)


@pytest.mark.parametrize("seed", [12345])
def test_fact_18_repeats_in_released_texts(shared, seed):
    pandas = pytest.importorskip("pandas")
    rows = pandas.read_parquet(shared / "data/fusegen_imdb/generations.parquet")
    rows = rows[(rows.split == "fusegen") & (rows.seed == seed) & (rows.plm == "llama-2-7b-chat-hf")]
    assert diversity.duplicate_rate(rows.text.tolist()) == pytest.approx(0.249)
