"""How likely a model finds continuations of prompts, which are given as token ids.

A likelihood depends on its prompt and continuation alone: batches have fixed shapes, as those of
`actors.encoder`. Continuations of one prompt that differ in their last token only are read off one pass.
"""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from actors.encoder import WIDTH, fixed_batches

Continued = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt and of what follows it; neither is empty."""
Row = tuple[tuple[int, ...], tuple[int, ...]]
"""A prompt, and all but the last token of a continuation."""


@torch.inference_mode()
def log_likelihoods(
    model: PreTrainedModel, texts: Sequence[Continued], longest: int, size: int
) -> NDArray[np.float64]:
    """Natural log-probabilities (n,) of continuations of at most `longest` tokens; `size` rows a pass."""
    rows: dict[Row, list[int]] = {}
    for place, (prompt, continuation) in enumerate(texts):
        rows.setdefault((tuple(prompt), tuple(continuation[:-1])), []).append(place)
    read = _decoded if model.config.is_encoder_decoder else _continued
    order, found = list(rows), np.empty(len(texts))
    widths = [len(p) if model.config.is_encoder_decoder else len(p) + len(c) for p, c in order]
    for batch in fixed_batches(np.array(widths), size):
        predicted = read(model, [order[row] for row in np.resize(batch, size)], longest)
        for row, at in zip(batch, predicted, strict=False):
            for place in rows[order[row]]:
                tokens = list(texts[place][1])
                logprobs = at[: len(tokens)] if model.config.is_encoder_decoder else at[-len(tokens) :]
                found[place] = logprobs[range(len(tokens)), tokens].double().sum().item()
    return found


def _continued(model: Any, rows: Sequence[Row], longest: int) -> torch.Tensor:  # noqa: ANN401
    """Log-probabilities (size, longest, vocabulary) of the tokens after the last ones of each row."""
    ids, mask = _padded([[*prompt, *more] for prompt, more in rows], multiple=WIDTH, left=True)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if "position_ids" in signature(model.forward).parameters:  # some know positions from the mask alone
        inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    logits: torch.Tensor = model(**inputs, use_cache=False, logits_to_keep=longest).logits
    return logits[:, -longest:].float().log_softmax(dim=-1).cpu()


def _decoded(model: Any, rows: Sequence[Row], longest: int) -> torch.Tensor:  # noqa: ANN401
    """The same of the first tokens that a decoder says."""
    ids, mask = _padded([prompt for prompt, _ in rows], multiple=WIDTH)
    start = model.config.decoder_start_token_id
    begun, _ = _padded([[start, *more] for _, more in rows], multiple=longest)
    inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": begun}
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    logits: torch.Tensor = model(**inputs, use_cache=False).logits
    return logits.float().log_softmax(dim=-1).cpu()


def _padded(
    rows: Sequence[Sequence[int]], multiple: int, *, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of one length, a multiple, with zeros where there is no token, and which are tokens."""
    width = -(-max(map(len, rows)) // multiple) * multiple
    ids = torch.zeros((len(rows), width), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        part = slice(width - len(row), width) if left else slice(0, len(row))
        ids[place, part], mask[place, part] = torch.tensor(row), 1
    return ids, mask
