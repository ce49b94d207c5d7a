"""The embedded evaluation set: well formed, balanced, varied."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "configs" / "embedded" / "eval.jsonl"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9']+", text.lower()))


def test_rows_have_exactly_the_three_fields(rows):
    assert all(set(row) == {"id", "text", "label_name"} for row in rows)
    assert all(isinstance(value, str) and value == value.strip() for row in rows for value in row.values())


def test_enough_rows_with_unique_ids_and_texts(rows):
    assert len(rows) >= 200
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({row["text"].lower() for row in rows}) == len(rows)


def test_two_labels_in_balance(rows):
    counts = Counter(row["label_name"] for row in rows)
    assert set(counts) == {"positive", "negative"}
    assert counts["positive"] == counts["negative"]


def test_labels_are_mixed_throughout(rows):
    quarter = len(rows) // 4
    for start in range(0, 4 * quarter, quarter):
        positive = sum(row["label_name"] == "positive" for row in rows[start : start + quarter])
        assert 0.3 < positive / quarter < 0.7


def test_texts_have_6_to_60_words(rows):
    assert [row["id"] for row in rows if not 6 <= len(row["text"].split()) <= 60] == []


def test_no_two_texts_share_most_of_their_words(rows):
    bags = [(row["id"], words(row["text"])) for row in rows]
    close = [(a, b) for (a, x), (b, y) in combinations(bags, 2) if len(x & y) > 0.5 * len(x | y)]
    assert close == []
