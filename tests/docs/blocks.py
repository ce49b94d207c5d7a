"""The examples of README, CONTRIBUTING and docs: fenced blocks, with their language, title and place."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:python -m (?:jobs|tests)|jobs|make|pip|serve deploy)\b[^`\n]*)`")
PROGRAMS = ("python", "make", "pip", "ray", "kubectl", "serve", "curl", "export")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command that a reader is told to type."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} {' '.join(self.words)}"[:100]


def blocks() -> list[Block]:
    """All fenced blocks."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            line = text[: match.start()].count("\n") + 1
            found.append(Block(page, line, match[2], match[3] or "", textwrap.dedent(match[4])))
    return found


def commands() -> list[Command]:
    """All commands of shell blocks, and those of other blocks and of the running text that look like one."""
    found = [
        Command(f"{block}", words)
        for block in blocks()
        if block.language in {"", "sh"}
        for line in block.text.splitlines()
        for words in _words(line)
        if block.language == "sh" or words[0] in PROGRAMS
    ]
    for page in PAGES:
        prose = FENCE.sub("", page.read_text())
        found += [
            Command(f"{page.relative_to(ROOT)}", words)
            for match in INLINE.finditer(prose)
            for words in _words(match[1])
        ]
    return found


def _words(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of a line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word != ";":
            words.append(word)
        elif words:
            yield tuple(words)
            words = []


def undocumented(job: str, summary: dict[str, Any]) -> set[str]:
    """Keys of a job's summary that docs/reference/results.md does not name."""
    text = (ROOT / "docs/reference/results.md").read_text()
    section = text.partition(f"{{#{job}}}")[2].partition("\n## ")[0]
    named = {re.split(r"[.\[]", word)[0] for word in re.findall(r"`([^`]+)`", section)}
    return set(summary) - named
