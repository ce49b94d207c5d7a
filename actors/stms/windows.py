"""Contexts with questions, tokenised into windows that overlap, so that no context is too long.

Each token of a context is read in the window in which it has the most context around it. What a model says of
the tokens of a context is therefore one sequence, however many windows it took.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BatchEncoding, PreTrainedTokenizerBase

from actors.stms.base import IntArray, StmError
from actors.stms.tokens import Batched
from fusion.generation.filtering import SEPARATOR

QUESTION_SHARE = 4
"""Of the tokens of a window, this part at most is the question's."""
MASKED = -1e9
"""Logit of what is no token of the context."""


@dataclass(frozen=True)
class Passage:
    """A context with its question: windows of token ids, and where the T tokens of the context are read."""

    context: str
    ids: tuple[IntArray, ...]
    types: tuple[IntArray, ...]
    """Of each window: 1 for the second text, 0 elsewhere, where the network asks for that."""
    windows: IntArray
    """(T,): the window in which a token of the context is read."""
    places: IntArray
    """(T,): its place in there."""
    offsets: IntArray
    """(T, 2): the characters that it stands for."""

    def tokens(self, span: IntArray) -> tuple[int, int]:
        """First and last token that stand for characters of a span."""
        start, end = (int(character) for character in span)
        first = int(np.searchsorted(self.offsets[:, 1], start, side="right"))
        last = int(np.searchsorted(self.offsets[:, 0], end, side="left")) - 1
        first = min(first, len(self.offsets) - 1)
        return first, max(first, last)

    def characters(self, first: int, last: int) -> tuple[int, int]:
        """The characters from the first to the last of these tokens."""
        return int(self.offsets[first, 0]), int(self.offsets[last, 1])


@dataclass(frozen=True)
class Windows(Batched):
    """Passages; `pad` is the id to pad with."""

    passages: NDArray[np.object_]
    pad: int

    @classmethod
    def of(
        cls, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int
    ) -> Self:
        """Tokenise `context[SEP]question`; neighbouring windows share `stride` tokens of the context."""
        if not tokenizer.is_fast:
            raise StmError("finding answers needs a tokenizer that knows which characters a token stands for")
        contexts, _, questions = zip(*(text.partition(SEPARATOR) for text in texts), strict=True)
        found = tokenizer(
            _cut(questions, tokenizer, max_length // QUESTION_SHARE),
            list(contexts),
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        windows: list[list[int]] = [[] for _ in texts]
        for window, owner in enumerate(found["overflow_to_sample_mapping"]):
            windows[owner].append(window)
        passages = np.empty(len(texts), dtype=object)
        passages[:] = [_passage(c, found, w, stride) for c, w in zip(contexts, windows, strict=True)]
        return cls(passages, int(tokenizer.pad_token_id))

    def __len__(self) -> int:
        """Return the number of passages."""
        return len(self.passages)

    def take(self, indices: IntArray) -> Self:
        """Return the passages at `indices`, in that order."""
        return type(self)(self.passages[indices], self.pad)

    @property
    def lengths(self) -> IntArray:
        """Tokens of each passage (n,), over its windows."""
        lengths = (sum(map(len, passage.ids)) for passage in self.passages)
        return np.fromiter(lengths, dtype=np.int64, count=len(self))

    def padded(self, indices: IntArray, device: torch.device) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Inputs (w, longest) of all windows of the passages at `indices`, and where among their w * longest
        places the tokens of each context are read: (m, most tokens), -1 behind its end."""
        passages = [self.passages[i] for i in indices]
        rows = [row for passage in passages for row in passage.ids]
        types = [row for passage in passages for row in passage.types]
        longest = max(map(len, rows))
        inputs = {
            "input_ids": _stacked(rows, longest, self.pad),
            "attention_mask": _stacked([np.ones_like(row) for row in rows], longest, 0),
        }
        if types:
            inputs["token_type_ids"] = _stacked(types, longest, 0)
        first = np.cumsum([0, *(len(passage.ids) for passage in passages)])
        read = [(f + p.windows) * longest + p.places for f, p in zip(first, passages, strict=False)]
        where = _stacked(read, max(map(len, read)), -1)
        return {name: tensor.to(device) for name, tensor in inputs.items()}, where.to(device)


def gathered(values: torch.Tensor, where: torch.Tensor, fill: float) -> torch.Tensor:
    """Of values (w, longest, ...) of all tokens those of the contexts (m, tokens, ...), as `padded` says."""
    flat = values.flatten(0, 1)[where.clamp(min=0)]
    behind = (where < 0).reshape(*where.shape, *[1] * (values.dim() - 2))
    return flat.masked_fill(behind, fill)


def _stacked(rows: Sequence[IntArray], longest: int, fill: int) -> torch.Tensor:
    table = np.full((len(rows), longest), fill, dtype=np.int64)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return torch.from_numpy(table)


def _cut(questions: Sequence[str], tokenizer: PreTrainedTokenizerBase, most: int) -> list[str]:
    """The questions up to so many tokens."""
    found = tokenizer(
        list(questions), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False
    )
    ends = (offsets[min(most, len(offsets)) - 1][1] if offsets else 0 for offsets in found["offset_mapping"])
    return [question[:end] for question, end in zip(questions, ends, strict=True)]


def _passage(context: str, found: BatchEncoding, windows: Sequence[int], stride: int) -> Passage:
    """The windows of one context put together."""
    best: dict[int, tuple[int, int, int, int, int]] = {}
    begin = 0
    for number, window in enumerate(windows):
        inside = [place for place, part in enumerate(found.sequence_ids(window)) if part == 1]
        offsets = found["offset_mapping"][window]
        for i, place in enumerate(inside):
            around = min(i, len(inside) - 1 - i)
            if begin + i not in best or around > best[begin + i][0]:
                best[begin + i] = (around, number, place, *offsets[place])
        begin += len(inside) - stride
    if not best:
        raise StmError(f"a context has no tokens: {context[:40]!r}")
    table = np.array([best[i] for i in range(len(best))], dtype=np.int64)
    typed = found.get("token_type_ids")
    return Passage(
        context=context,
        ids=tuple(np.array(found["input_ids"][window]) for window in windows),
        types=tuple(np.array(typed[window]) for window in windows) if typed else (),
        windows=table[:, 1],
        places=table[:, 2],
        offsets=table[:, 3:],
    )
