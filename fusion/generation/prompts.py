"""Prompts for zero-shot writing and for feedback rounds (FuseGen, arXiv 2406.12527, section 3.2).

A prompt is plain text that ends with an open double quote, so that a language model continues it with a
sample. Templates know two slots: `<C>`, the given first sentence of a pair task, and `<Y>`, the given answer.
Both functions are pure: nothing is formatted in place, shots are concatenated literally and never scanned for
slots, and braces, percent signs or `<C>` inside a sample therefore stay what they are.
"""

import re
from collections.abc import Sequence

SLOT = re.compile(r"<[CY]>")
"""The slots that a template may have."""


def zero_shot(template: str, context: str | None = None, answer: str | None = None) -> str:
    """The template with its slots filled in one pass: text put into one slot is not searched for the other.

    A slot without a value raises ValueError, because models copy an unfilled `<C>` into what they write.
    """
    values = {"<C>": context, "<Y>": answer}

    def fill(match: re.Match[str]) -> str:
        value = values[match.group()]
        if value is None:
            raise ValueError(f"template has the slot {match.group()} but no text for it: {template!r}")
        return value

    return SLOT.sub(fill, template)


def feedback(
    shots: Sequence[str],
    prefix: str,
    instruction: str,
    *,
    blank_lines: int = 1,
    context: str | None = None,
    answer: str | None = None,
) -> str:
    """One line `prefix + shot` per shot, `blank_lines` empty lines (the authors use two for pair tasks), and
    the instruction with its slots filled.

    A line break inside a shot becomes a space, so that one line stays one shot. Without shots only the
    instruction is returned.
    """
    asked = zero_shot(instruction, context, answer)
    if not shots:
        return asked
    lines = "".join(f"{prefix}{' '.join(shot.splitlines())}\n" for shot in shots)
    return lines + "\n" * blank_lines + asked
