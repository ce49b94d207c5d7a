"""Text to vectors: a frozen encoder for Ray Data actor pools.

A vector depends on its text alone. Batches have fixed shapes (always `batch_size` rows, lengths rounded
up, missing rows filled with copies), so that neighbours in a batch, the number of workers or an earlier
interruption cannot change even the last bit.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModel

from actors.stms.base import IntArray, StmError, check_finite
from actors.stms.pretrained import load_model, load_tokenizer
from actors.stms.tokens import Tokens
from actors.vectors import Vectors
from configs.schema.stm import HeadStm

WIDTH = 16
"""Batches are padded to a multiple of this many tokens."""


class Encoder:
    """A frozen encoder; `map_batches(Encoder, batch_format="pyarrow")` adds `vector` to a column `text`."""

    def __init__(self, spec: HeadStm) -> None:
        """Load the encoder, on the GPU if there is one; `StmError` when that or the layer is impossible."""
        self.spec = spec
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer = load_tokenizer(spec.encoder)
        self._model = load_model(AutoModel, spec.encoder).to(self._device)
        self.size = int(self._model.config.hidden_size)
        depth = int(self._model.config.num_hidden_layers)
        if not -depth - 1 <= spec.layer <= depth:
            raise StmError(f"layer {spec.layer}: the encoder has the layers 0 to {depth}")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Append the column `vector`, a fixed-size list of float32."""
        vectors = self.embed(batch["text"].to_pylist())
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), self.size)
        return batch.append_column("vector", column)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the pooled vectors (n, d) of `texts`; `StmError` if one is not finite."""
        tokens = Tokens.of(texts, self._tokenizer, self.spec.max_length)
        vectors = np.empty((len(texts), self.size), dtype=np.float32)
        for batch in fixed_batches(tokens.lengths, self.spec.batch_size):
            filled = np.resize(batch, self.spec.batch_size)
            inputs = tokens.padded(filled, self._device, multiple=WIDTH)
            vectors[batch] = self._pooled(inputs)[: len(batch)]
        check_finite(vectors, f"vectors of {self.spec.encoder or 'MiniLM-L6'}")
        return vectors

    @torch.inference_mode()
    def _pooled(self, inputs: dict[str, torch.Tensor]) -> Vectors:
        hidden = self._model(**inputs, output_hidden_states=True).hidden_states[self.spec.layer]
        if self.spec.pooling == "first":
            pooled = hidden[:, 0]
        else:
            mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        result: Vectors = pooled.float().cpu().numpy()
        return result


def fixed_batches(lengths: IntArray, size: int) -> Iterable[IntArray]:
    """Yield batches of at most `size` indices whose padded widths, multiples of `WIDTH`, are equal."""
    widths = -(-lengths // WIDTH)
    for width in np.unique(widths):
        same = np.flatnonzero(widths == width)
        for start in range(0, len(same), size):
            yield same[start : start + size]
