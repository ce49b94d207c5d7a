"""Extractive question answering: which phrases of a context can be asked for, and how right an answer is.

FuseGen takes named entities for answers. `phrases` needs no model: it finds numbers and dates, runs of
capitalised words, and quotations. `exact_match` and `f1` are the measures of SQuAD (Rajpurkar et al. 2016,
section 6.1). Spans are pairs of the first character and the one after the last.
"""

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Span = tuple[int, int]

LONGEST = 12
"""Words of the longest phrase that can be an answer."""
MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
DATE = re.compile(
    rf"(?<!\w)(?:\d{{1,2}} (?:{MONTHS})(?: \d{{4}})?"
    rf"|(?:{MONTHS}) (?:\d{{1,2}}(?:, \d{{4}})?|\d{{4}}))(?!\w)"
)
NUMBER = re.compile(
    r"(?<![\w.,$€£])[$€£]?\d+(?:[.,:/–-]\d+)*(?:st|nd|rd|th|s|%)?(?!\w)"
    r"(?: (?:hundred|thousand|million|billion|percent)(?!\w))?"
)
QUOTATION = re.compile(r"[\"“]([^\"“”\n]+)[\"”]")
WORD = re.compile(r"[^\W_]+(?:[.'’&-][^\W_]+)*")
JOINING = frozenset({"of", "de", "la", "van", "von", "der", "da", "del", "di", "du"})
"""Small words inside a name."""
ABBREVIATED = frozenset({"Mr", "Mrs", "Ms", "Dr", "St", "Prof", "Gen", "Col", "Capt", "Lt", "Sgt", "Rev"})
"""Words whose full stop ends no sentence; single letters do as little."""
PLAIN = frozenset(
    word
    for line in (
        "a an the this that these those it its he she they we you i his her their our my your there here",
        "in on at by for from with without to of as and but or nor so yet if when while where after before",
        "since until although though because during despite however both all some many most each every no",
        "not one what who which how why then also such among between under over about",
    )
    for word in line.split()
)
"""Words that begin a sentence, not a name."""
ENDS = ".!?"
OPENING = " \t\n\"“'‘("


def phrases(context: str) -> list[Span]:
    """What can be asked for in a context: spans that do not overlap, from left to right.

    The first word of a sentence counts only before another capitalised word, or if it is capitalised
    elsewhere within a sentence. What is all of the context is no answer.
    """
    quoted = [match.span(1) for match in QUOTATION.finditer(context)]
    dated, counted = ([match.span() for match in pattern.finditer(context)] for pattern in (DATE, NUMBER))
    found: list[Span] = []
    for start, end in (*quoted, *dated, *_names(context), *counted):
        text = context[start:end]
        fits = text == text.strip() and len(text.split()) <= LONGEST and any(map(str.isalnum, text))
        apart = all(end <= other or last <= start for other, last in found)
        if fits and apart and text.strip(ENDS) != context.strip().strip(ENDS):
            found.append((start, end))
    return sorted(found)


def _names(context: str) -> Iterator[Span]:
    """Runs of capitalised words, with small words between them."""
    words = list(WORD.finditer(context))
    texts = [word.group() for word in words]
    begins = [_begins(context, texts[i - 1] if i else "", word.start()) for i, word in enumerate(words)]
    capital = [text[0].isupper() and text != "I" for text in texts]
    within = {
        text for text, is_name, first in zip(texts, capital, begins, strict=True) if is_name and not first
    }
    runs: list[list[int]] = []
    for i, word in enumerate(words):
        joined = bool(runs) and runs[-1][-1] == i - 1 and not begins[i]
        joined = joined and context[words[i - 1].end() : word.start()] in {" ", ". "}
        if joined and (capital[i] or texts[i] in JOINING):
            runs[-1].append(i)
        elif capital[i]:
            runs.append([i])
    for run in runs:
        named = run[1:] if begins[run[0]] and texts[run[0]].lower() in PLAIN else run
        places = [i for i in named if capital[i]]
        if len(places) > 1 or (places and (not begins[places[0]] or texts[places[0]] in within)):
            last = words[places[-1]]
            yield words[places[0]].start(), last.end() - 2 * last.group().endswith(("'s", "’s"))


def _begins(context: str, before: str, start: int) -> bool:
    """Whether the word at `start`, after the word `before`, begins a sentence."""
    left = context[max(0, start - 5) : start].rstrip(OPENING)
    if not left:
        return start <= 5
    return left[-1] in ENDS and not (left[-1] == "." and (before in ABBREVIATED or len(before) == 1))


def normalised(answer: str) -> str:
    """An answer as SQuAD compares it: lower case, no punctuation, no articles, single spaces."""
    plain = "".join(character for character in answer.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", plain).split())


def exact_match(predicted: str, answers: Sequence[str]) -> bool:
    """Whether a prediction equals one of the answers once both are normalised."""
    return normalised(predicted) in map(normalised, answers)


def f1(predicted: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of a prediction's words, for the answer that suits it best.

    An answer of no words, once normalised, is met by none alone.
    """
    return max((_overlap(normalised(predicted).split(), normalised(a).split()) for a in answers), default=0.0)


def _overlap(predicted: list[str], answer: list[str]) -> float:
    if not predicted or not answer:
        return float(predicted == answer)
    return 2 * (Counter(predicted) & Counter(answer)).total() / (len(predicted) + len(answer))


def best_span(start: ArrayLike, end: ArrayLike, longest: int) -> Span:
    """First and last token (i, j) with the largest start[i] + end[j], i <= j < i + longest; the scores are
    (T,) log-probabilities or logits."""
    first, last = np.asarray(start, np.float64), np.asarray(end, np.float64)
    width = min(longest, len(first))
    padded = np.concatenate([last, np.full(width - 1, -np.inf)])
    sums = first[:, None] + np.lib.stride_tricks.sliding_window_view(padded, width)
    i, offset = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(i), int(i + offset)


def error(p_start: ArrayLike, p_end: ArrayLike) -> Floats:
    """How wrong a model is about each sample (n,), in [0, 2]: (1 - p_start) + (1 - p_end)."""
    return np.asarray((1 - np.asarray(p_start, np.float64)) + (1 - np.asarray(p_end, np.float64)))
