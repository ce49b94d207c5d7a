"""Judging a written answer against the right one: each function returns what the answer is worth, 0 or 1."""

import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?|[-+]?\.\d+")
EDGES = re.compile(r"^\W+|\W+$")
SHORT = 40
"""A text of up to so many characters is its own gist."""
WORD = re.compile(r"\w+")


def plain(text: str) -> str:
    """The text in lower case, with single spaces, and without punctuation at its ends."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return EDGES.sub("", folded)


def exact(answer: str, reference: str) -> float:
    """Whether both are the same, but for case, spaces, and punctuation at the ends."""
    return float(plain(answer) == plain(reference))


def contains(answer: str, reference: str) -> float:
    """Whether the words of the reference follow each other in the answer."""
    words, wanted = (WORD.findall(plain(text)) for text in (answer, reference))
    return float(bool(wanted) and f" {' '.join(wanted)} " in f" {' '.join(words)} ")


def number(answer: str, reference: str) -> float:
    """Whether the last numbers in both are equal; commas inside are thousands separators."""
    found, wanted = last_number(answer), last_number(reference)
    return float(found is not None and wanted is not None and abs(found - wanted) <= 1e-9 * abs(wanted))


def last_number(text: str) -> float | None:
    """The last number in a text."""
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def named(answer: str, labels: Sequence[str]) -> int | None:
    """The label (its position) that an answer names first, the longest of those that begin there."""
    text = f" {' '.join(WORD.findall(plain(answer)))} "
    places = []
    for position, label in enumerate(labels):
        words = " ".join(WORD.findall(plain(label)))
        place = text.find(f" {words} ") if words else -1
        if place >= 0:
            places.append((place, -len(words), position))
    return min(places)[2] if places else None


def gist(text: str) -> str:
    """What a text answers, for comparison: itself if it is short, else its last number, or nothing."""
    plainly = plain(text)
    found = last_number(text) if len(plainly) > SHORT else None
    return plainly if len(plainly) <= SHORT else "" if found is None else f"{found:g}"


def codes(answers: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Codes (n, K) of answers (K, n): equal answers to an item have equal codes, -1 is none."""
    found = np.full((len(answers[0]), len(answers)), -1.0)
    for row, given in enumerate(zip(*answers, strict=True)):
        known: dict[str, int] = {}
        for expert, answer in enumerate(given):
            if answer:
                found[row, expert] = known.setdefault(answer, len(known))
    return found


JUDGES: dict[str, Callable[[str, str], float]] = {"exact": exact, "contains": contains, "number": number}
