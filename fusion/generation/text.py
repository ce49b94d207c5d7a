"""Words and word shingles: what the filters and the diversity measures compare texts by.

Hashes are CRC-32 of the UTF-8 text, the same in every process, unlike Python's salted `hash`.
"""

import re
from collections.abc import Sequence
from zlib import crc32

WORD = re.compile(r"\w+(?:['’]\w+)*")


def words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits, inner apostrophes kept; punctuation and spacing are dropped."""
    return WORD.findall(text.lower())


def shingles(tokens: Sequence[str], size: int) -> set[int]:
    """32-bit hashes of the runs of `size` tokens; fewer tokens make one shingle, no token makes none."""
    if len(tokens) <= size:
        return {crc32(" ".join(tokens).encode())} if tokens else set()
    runs = map(" ".join, zip(*(tokens[start:] for start in range(size)), strict=False))
    return {crc32(run.encode()) for run in runs}
