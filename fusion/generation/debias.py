"""Self-debiasing of next-token probabilities (Schick et al. 2021, as ZeroGen and FuseGen use it).

While a text for one label is written, the prompts of the other labels are decoded along with the same tokens;
a token that any of them likes better is made rarer, so that a text does not fit several labels.
"""

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Probabilities = TypeVar("Probabilities", NDArray[np.float64], torch.Tensor)


def self_debias(
    p: Probabilities, others: Probabilities, decay: float = 200.0, floor: float = 0.01
) -> Probabilities:
    """`p` (..., V) under the prompt of the label, `others` (L, ..., V) under those of the other labels: each
    probability times max(exp(-decay max(max others - p, 0)), floor), renormalised."""
    if isinstance(p, torch.Tensor):
        factor = torch.exp(-decay * (others.amax(0) - p).clamp(min=0)).clamp(min=floor)
        return p * factor / (p * factor).sum(-1, keepdim=True)
    gap = np.maximum(others.max(0) - p, 0)
    scaled = p * np.maximum(np.exp(-decay * gap), floor)
    return np.asarray(scaled / scaled.sum(-1, keepdims=True))
