"""Voices: grammars of short labelled texts, and the seeded expander that writes with them.

A grammar is a YAML mapping: `about` (the habits of its author, for the model card), `include` (grammars
beside it whose rules it shares), `noise` (share of texts written for the other label), `words`
(shortest and longest text), and `rules`. A rule is a list of alternatives, a block of lines with one
alternative each, or one of these per label. Expansion starts at the rule `text`. In an alternative

    3 * words       has weight 3 (1 when nothing is said),
    {rule}          expands a rule,            {rule!}  expands it for the other label,
    {rule=}         expands it once per text and repeats that,
    {rule?}         expands it half of the time,
    {one|two|}      is one of the strings between the bars.

No alternative of a rule is used twice in a text while another one is left. Texts can share a theme: they are
then written with the same small part of every rule's alternatives, and speak of the same few things.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from configs.load import read_yaml
from configs.schema.base import ConfigError

SLOT = re.compile(r"\{([^{}]*)\}")
WEIGHT = re.compile(r"^(\d+) \* ")
THEME_SHARE, THEME_LEAST = 0.15, 3
"""Share of a rule's alternatives that a theme keeps, and how many it keeps at least."""

Alternatives = tuple[list[str], list[int]]


@dataclass(frozen=True)
class Grammar:
    """A parsed voice; `rules[name][label]` are alternatives and their weights, label "" serves all labels."""

    file: str
    about: str
    noise: float
    words: tuple[int, int]
    labels: tuple[str, ...]
    rules: dict[str, dict[str, Alternatives]]

    def alternatives(self, rule: str, label: str) -> Alternatives:
        """What a rule offers for a label; ConfigError for a rule or label that the grammar lacks."""
        try:
            by_label = self.rules[rule]
            return by_label[label] if label in by_label else by_label[""]
        except KeyError:
            raise ConfigError(f"{self.file}: rules: no rule {rule!r} for the label {label!r}") from None


@dataclass
class _Theme:
    """The alternatives that a group of texts is written with, drawn when a rule first asks."""

    random: Random
    kept: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def places(self, rule: str, label: str, count: int) -> list[int]:
        if (rule, label) not in self.kept:
            size = min(count, max(THEME_LEAST, round(THEME_SHARE * count)))
            self.kept[rule, label] = sorted(self.random.sample(range(count), size))
        return self.kept[rule, label]


@dataclass
class _Draft:
    """What one text remembers while it is written."""

    random: Random
    theme: _Theme | None = None
    kept: dict[str, str] = field(default_factory=dict)
    used: set[tuple[str, int]] = field(default_factory=set)


def load_grammar(path: Path) -> Grammar:
    """The grammar in a file, with the rules of the files that it includes; ConfigError when it is wrong."""
    data = read_yaml(path)
    rules: dict[str, Any] = {}
    for name in data.get("include", []):
        rules |= read_yaml(path.parent / name)["rules"]
    rules |= data.get("rules", {})
    if "text" not in rules:
        raise ConfigError(f"{path}: rules: the rule text, where expansion starts, is missing")
    for name, rule in rules.items():
        _require_text(path, name, rule)
    parsed = {name: _by_label(rule) for name, rule in rules.items()}
    labels = tuple(dict.fromkeys(label for by in parsed.values() for label in by if label))
    low, high = data.get("words", (10, 45))
    return Grammar(
        str(path), str(data.get("about", "")), float(data.get("noise", 0)), (low, high), labels, parsed
    )


def write(grammar: Grammar, count: int, seed: int, alike: int = 1) -> list[tuple[str, str]]:
    """`count` different (text, label) pairs, labels in turn; the same for the same arguments.

    Each `alike` texts in a row share a theme.
    """
    random = Random(seed)
    theme: _Theme | None = None
    rows: list[tuple[str, str]] = []
    seen: set[str] = set()
    for _ in range(20 * count):
        label = grammar.labels[len(rows) % len(grammar.labels)]
        if alike > 1 and len(rows) % alike == 0:
            theme = _Theme(random)
        draft = _Draft(random, theme)
        text = _tidy(_expand(grammar, "text", _written_for(grammar, label, random), draft))
        if text not in seen and grammar.words[0] <= len(text.split()) <= grammar.words[1]:
            seen.add(text)
            rows.append((text, label))
            if len(rows) == count:
                return rows
    raise ConfigError(f"{grammar.file}: writes only {len(rows)} different texts, {count} are asked for")


def _written_for(grammar: Grammar, label: str, random: Random) -> str:
    if random.random() >= grammar.noise:
        return label
    return random.choice([other for other in grammar.labels if other != label])


def _expand(grammar: Grammar, rule: str, label: str, draft: _Draft) -> str:
    options, weights = grammar.alternatives(rule, label)
    places = draft.theme.places(rule, label, len(options)) if draft.theme else range(len(options))
    free = [place for place in places if (rule, place) not in draft.used] or list(places)
    (chosen,) = draft.random.choices(free, [weights[place] for place in free])
    draft.used.add((rule, chosen))
    return SLOT.sub(lambda slot: _slot(grammar, slot.group(1), label, draft), options[chosen])


def _slot(grammar: Grammar, slot: str, label: str, draft: _Draft) -> str:
    if "|" in slot:
        return draft.random.choice(slot.split("|"))
    rule, mark = (slot[:-1], slot[-1]) if slot[-1:] in ("!", "=", "?") else (slot, "")
    if mark == "?" and draft.random.random() < 0.5:
        return ""
    if mark == "!":
        label = next(other for other in grammar.labels if other != label)
    if mark == "=":
        return draft.kept.setdefault(rule, _expand(grammar, rule, label, draft))
    return _expand(grammar, rule, label, draft)


def _require_text(path: Path, name: str, rule: Any) -> None:  # noqa: ANN401
    for alternatives in rule.values() if isinstance(rule, dict) else [rule]:
        lines = alternatives.splitlines() if isinstance(alternatives, str) else alternatives
        if not isinstance(lines, list) or not lines or not all(isinstance(line, str) for line in lines):
            raise ConfigError(f"{path}: rules: {name}: must be lines of text, or these per label")


def _by_label(rule: Any) -> dict[str, Alternatives]:  # noqa: ANN401
    if isinstance(rule, dict):
        return {label: _weighted(alternatives) for label, alternatives in rule.items()}
    return {"": _weighted(rule)}


def _weighted(rule: str | list[str]) -> Alternatives:
    lines = rule.splitlines() if isinstance(rule, str) else rule
    options, weights = [], []
    for line in lines:
        weight = WEIGHT.match(line)
        options.append(line[weight.end() :] if weight else line)
        weights.append(int(weight.group(1)) if weight else 1)
    return options, weights


def _tidy(text: str) -> str:
    """Single spaces, none before punctuation, `an` before vowels, capitals after full stops."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([,.;:!?])", r"\1", text)
    text = re.sub(r"\b([Aa]) (?=[aeio]|u[^ns]|un[^i]|hour|honest)", r"\1n ", text)
    return re.sub(r"(^|[.!?] )([a-z])", lambda start: start.group(1) + start.group(2).upper(), text)
