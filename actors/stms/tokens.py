"""Tokenised texts: tokenised once, padded batch by batch, batches of similar length."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from actors.stms.base import IntArray

NEIGHBOURS = 32
"""Batches that are sorted by length together: little padding, and still a random order."""


class Batched(ABC):
    """Texts that are computed with in batches of similar length."""

    @property
    @abstractmethod
    def lengths(self) -> IntArray:
        """Tokens of each text (n,)."""

    def by_length(self, size: int) -> Iterator[IntArray]:
        """Yield batches of at most `size` indices, longest texts first."""
        order = np.argsort(-self.lengths, kind="stable")
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def shuffled(self, size: int, rng: np.random.Generator) -> list[IntArray]:
        """Return one epoch's batches of at most `size` indices: random, texts in a batch similarly long."""
        lengths = self.lengths
        order = rng.permutation(len(lengths))
        span = size * NEIGHBOURS
        stretches = [order[start : start + span] for start in range(0, len(order), span)]
        order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in stretches])
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        return [batches[place] for place in rng.permutation(len(batches))]


@dataclass(frozen=True)
class Tokens(Batched):
    """Token ids of texts, without padding; `pad` is the id to pad with."""

    ids: NDArray[np.object_]
    pad: int

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Self:
        """Tokenise `texts`, each cut to `max_length` tokens with the special tokens kept."""
        rows = np.empty(len(texts), dtype=object)
        if len(texts):
            found = tokenizer(
                list(texts), truncation=True, max_length=max_length, return_attention_mask=False
            )
            rows[:] = [np.array(ids, dtype=np.int32) for ids in found["input_ids"]]
        return cls(rows, int(tokenizer.pad_token_id))

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.ids)

    def take(self, indices: IntArray) -> Self:
        """Return the texts at `indices`, in that order."""
        return type(self)(self.ids[indices], self.pad)

    @property
    def lengths(self) -> IntArray:
        """Tokens of each text (n,)."""
        return np.fromiter((len(row) for row in self.ids), dtype=np.int64, count=len(self))

    def padded(self, indices: IntArray, device: torch.device, multiple: int = 1) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask` (m, longest) of the texts at `indices`.

        `longest` is rounded up to a multiple of `multiple`.
        """
        rows = self.ids[indices]
        longest = -(-max(len(row) for row in rows) // multiple) * multiple
        ids = np.full((len(rows), longest), self.pad, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)], mask[place, : len(row)] = row, 1
        tensors = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        return {name: tensor.to(device) for name, tensor in tensors.items()}
