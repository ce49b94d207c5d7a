"""The last layer's states of prompts and answers, pooled into one vector each.

A vector depends on its text alone: batches have fixed shapes, as those of `actors.encoder`, and padding is
masked.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from actors.encoder import WIDTH, fixed_batches
from actors.stms.tokens import Tokens
from actors.vectors import Vectors
from configs.schema.expert import Pooling

Written = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt and of its answer."""


@torch.inference_mode()
def pooled(model: PreTrainedModel, texts: Sequence[Written], pooling: Pooling, size: int) -> Vectors | None:
    """Vectors (n, d) of prompts with answers, `size` texts at a time; None for encoder-decoder models."""
    if model.config.is_encoder_decoder or not texts:
        return None
    rows = np.empty(len(texts), dtype=object)
    rows[:] = [np.array([*prompt, *answer], dtype=np.int64) for prompt, answer in texts]
    begins = np.array([_begin(prompt, answer, pooling) for prompt, answer in texts])
    tokens = Tokens(rows, pad=0)
    vectors: list[np.ndarray] = [np.empty(0)] * len(texts)
    for batch in fixed_batches(tokens.lengths, size):
        filled = np.resize(batch, size)
        inputs = tokens.padded(filled, model.device, multiple=WIDTH)
        states = model.base_model(**inputs, use_cache=False).last_hidden_state.float()
        chosen = _chosen(inputs["attention_mask"], torch.from_numpy(begins[filled]).to(states.device))
        means = (states * chosen).sum(dim=1) / chosen.sum(dim=1)
        for place, vector in zip(batch, means.cpu().numpy(), strict=False):
            vectors[place] = vector
    return np.stack(vectors)


def _begin(prompt: Sequence[int], answer: Sequence[int], pooling: Pooling) -> int:
    """The first token that is pooled; the prompt's last one where there is no answer."""
    last = len(prompt) + len(answer) - 1
    return {"mean_all": 0, "mean_output": min(len(prompt), last), "last_token": last}[pooling]


def _chosen(mask: torch.Tensor, begins: torch.Tensor) -> torch.Tensor:
    """Which tokens (n, width, 1) are pooled: those that are no padding, from `begins` (n,) on."""
    places = torch.arange(mask.shape[1], device=mask.device)
    return (mask * (places >= begins[:, None])).unsqueeze(-1).float()
