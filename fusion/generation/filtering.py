"""From what a language model wrote to a sample, or to the reason why it is none (FuseGen, section 3.2).

`cut` ends a raw continuation. A `Filter` then asks the questions of its `Rules` in a fixed order and
remembers what it kept, so that later texts are compared with all earlier ones of the run. Every rule can be
switched off. Pair tasks store `sentence1[SEP]sentence2`, and only the
written second part counts in comparisons, and only against second parts to the same first one: one premise
serves every label.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from zlib import crc32

from fusion.generation.neighbours import Neighbours
from fusion.generation.text import shingles, words

SEPARATOR = "[SEP]"
SHINGLE = 3
STATUSES = (
    "kept",
    "uncut",
    "no_question",
    "answer_in_question",
    "missing_marker",
    "forbidden_marker",
    "short",
    "same_as_context",
    "placeholder",
    "refusal",
    "template",
    "copy",
    "duplicate",
    "near_duplicate",
)
"""What a verdict can be; those after `kept` in the order in which a text is asked."""

PLACEHOLDER = re.compile(
    r"<[CXYZ]\d*>|\{[a-z_]*\}"
    r"|[\[<{](?:insert|enter|your|add)\b[^\]>}\n]*[\]>}]"
    r"|[\[<{](?:the )?(?:movie|film|restaurant|actor|actress|director|character|book|product|company|team"
    r"|city|country|genre|title|name|date|year|location|person|topic)(?:['’]?s)?"
    r"(?: (?:title|name|here|\d+))*[\]>}]",
    re.IGNORECASE,
)
"""An unfilled slot of a prompt or a blank to fill in: `<C>`, `[movie title]`, `{name}`, `[insert date]`."""

REFUSAL = re.compile(
    r"\bas an? (?:ai\b|artificial intelligence|(?:large )?language model)"
    r"|\bi(?:['’]m| am) (?:just |only )?an? (?:ai\b|(?:large )?language model)"
    r"|\bi (?:can(?:no|['’])?t|can not|cannot|am unable to|am not able to|won['’]t) "
    r"(?:fulfil|comply|proceed|assist with|help (?:you )?with|(?:provide|generate|create|write|produce) "
    r"(?:a|an|any|content|that|this|such|negative|positive|text)\b)",
    re.IGNORECASE,
)
"""A model that talks about itself or declines, instead of writing what was asked."""


def cut(raw: str, rule: Literal["quote", "question"]) -> str | None:
    """Where a sample ends, without the space around it; None if the end is not found.

    `quote`: before the first double quote, else the first line, else up to the last full stop.
    `question`: up to and including the first question mark.
    """
    if rule == "question":
        head, mark, _ = raw.partition("?")
        return (head + mark).strip() if mark else None
    for end in ('"', "\n"):
        head, found, _ = raw.partition(end)
        if found:
            return head.strip()
    head, stop, _ = raw.rpartition(".")
    return (head + stop).strip() if stop else None


@dataclass(frozen=True)
class Rules:
    """What a text must pass, each rule a switch; the defaults are those of the `fixed` preset."""

    cut: Literal["quote", "question"] = "quote"
    min_words: int = 10
    word_count: Literal["words", "fields"] = "words"
    """`fields` splits at single spaces, as the authors do, so that double spaces count as words."""
    required: Mapping[int, str] = field(default_factory=dict)
    """Label to a string that its texts must contain (MarkedNews: `{4: "$"}`)."""
    forbidden: Mapping[int, str] = field(default_factory=dict)
    """Label to a string that its texts must not contain."""
    pair: bool = False
    """The text is the second part to a given context."""
    placeholders: bool = True
    refusals: bool = True
    templates: tuple[str, ...] = ()
    """Parts of prompts whose echo rejects a text; case and spacing do not matter."""
    copies: bool = True
    copy_overlap: float = 0.8
    """A text is a copy of a shot if they share this part of the word 3-grams of the shorter one."""
    duplicates: Literal["off", "exact", "near"] = "near"
    near_threshold: float = 0.8
    """Least Jaccard similarity of the sets of word 3-grams of two near-duplicates."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`text` as stored if kept (the raw one if no end was found), one of STATUSES, and of which text it is a
    copy or duplicate."""

    text: str
    status: str
    of: str | None = None


class Filter:
    """Judges texts in the order given; a kept text is among those that later ones are compared with.

    `shots` are the texts in the prompt of the round, as stored.
    """

    def __init__(self, rules: Rules, shots: Sequence[str] = ()) -> None:
        self.rules = rules
        self._templates = tuple(_plain(part) for part in rules.templates)
        self._shots = [(shot, self._shingles(shot)) for shot in shots]
        self._exact: set[str] = set()
        self._texts: list[str] = []
        self._near = Neighbours(rules.near_threshold)

    def remember(self, texts: Iterable[str]) -> None:
        """Texts accepted earlier, as stored; they are not judged."""
        for text in texts:
            self._add(text, self._shingles(text))

    def judge(
        self,
        raw: str,
        label: int,
        context: str | None = None,
        answer: str | None = None,
        *,
        finished: bool = False,
    ) -> Verdict:
        """What becomes of one continuation, written for `label` and, in pair tasks, for `context`; `finished`
        texts were cut before."""
        written = raw if finished else cut(raw, self.rules.cut)
        if written is None:
            return Verdict(raw, "no_question" if self.rules.cut == "question" else "uncut")
        text = f"{context}{SEPARATOR}{written}" if self.rules.pair else written
        reason = self._fault(written, label, context, answer)
        return Verdict(text, reason) if reason else self._compare(text)

    def _fault(self, written: str, label: int, context: str | None, answer: str | None) -> str | None:
        """The first rule that the text breaks by itself."""
        rules = self.rules
        checks: tuple[tuple[str, Callable[[], object]], ...] = (
            ("answer_in_question", lambda: answer and answer.casefold() in written.casefold()),
            ("missing_marker", lambda: rules.required.get(label, "") not in written),
            ("forbidden_marker", lambda: label in rules.forbidden and rules.forbidden[label] in written),
            ("short", lambda: self._count(written) < rules.min_words),
            ("same_as_context", lambda: rules.pair and written.strip() == (context or "").strip()),
            ("placeholder", lambda: rules.placeholders and PLACEHOLDER.search(written)),
            ("refusal", lambda: rules.refusals and REFUSAL.search(written)),
            ("template", lambda: self._templates and self._echoes(written)),
        )
        return next((reason for reason, breaks in checks if breaks()), None)

    def _count(self, written: str) -> int:
        return len(written.split() if self.rules.word_count == "words" else written.strip().split(" "))

    def _echoes(self, written: str) -> bool:
        plain = _plain(written)
        return any(part in plain for part in self._templates)

    def _compare(self, text: str) -> Verdict:
        """Keep the text and remember it unless it repeats a shot or an earlier text."""
        grams = self._shingles(text)
        if (shot := self._copied(text, grams)) is not None:
            return Verdict(text, "copy", shot)
        if text in self._exact:
            return Verdict(text, "duplicate", text)
        if self.rules.duplicates == "near" and (number := self._near.find(grams)) is not None:
            return Verdict(text, "near_duplicate", self._texts[number])
        self._add(text, grams)
        return Verdict(text, "kept")

    def _copied(self, text: str, grams: set[int]) -> str | None:
        for shot, others in self._shots if self.rules.copies else ():
            fewer = min(len(grams), len(others))
            if text == shot or (fewer and len(grams & others) >= self.rules.copy_overlap * fewer):
                return shot
        return None

    def _add(self, text: str, grams: set[int]) -> None:
        if self.rules.duplicates != "off":
            self._exact.add(text)
        if self.rules.duplicates == "near":
            self._texts.append(text)
            self._near.add(grams)

    def _shingles(self, text: str) -> set[int]:
        """Of the written part; in pair tasks mixed with the first part, so that only equal ones meet."""
        if not self.rules.pair:
            return shingles(words(text), SHINGLE)
        first, _, second = text.partition(SEPARATOR)
        salt = crc32(first.encode())
        return {gram ^ salt for gram in shingles(words(second), SHINGLE)}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
