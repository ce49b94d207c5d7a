"""Drawing tokens: self-debiasing, temperature, top-k and top-p, then the inverse distribution function.

A token is a function of its distribution and one number from [0, 1), all in float64: nothing is shared
between the rows of a batch, so a row's text does not depend on the rows beside it. Sets are cut at a
probability, not at a rank, so that ties have no order to depend on.
"""

import torch
from torch import Tensor

from configs.schema.plm import Sampling
from fusion.generation.debias import self_debias

RANKED = (128, 1024)
"""How many tokens are ranked before all are: nuclei are mostly small, and ranking a vocabulary is slow."""


def uniforms(seed: int, count: int) -> Tensor:
    """(count,) float64 numbers from [0, 1) that depend on `seed` only."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def distribution(logp: Tensor, sampling: Sampling, forbidden: Tensor | None) -> Tensor:
    """(n, V) probabilities to draw from, unnormalised, given (n, 1 + counters, V) log-probabilities.

    The first stream of a row is its own, the others are those of its counter prompts. `forbidden` holds
    token ids that must not be drawn.
    """
    own = logp[:, 0]
    if sampling.self_debias is not None and logp.shape[1] > 1:
        damping = sampling.self_debias
        own = self_debias(own.exp(), logp[:, 1:].exp().movedim(1, 0), damping.decay, damping.floor).log()
    if sampling.temperature != 1:
        own = own / sampling.temperature
    if forbidden is not None:
        own = own.index_fill(-1, forbidden, -torch.inf)
    return likeliest(own.softmax(-1), sampling.top_k, sampling.top_p)


def likeliest(p: Tensor, top_k: int, top_p: float) -> Tensor:
    """(n, V) probabilities with those outside the top k, then outside the nucleus of the rest, set to 0."""
    if 0 < top_k < p.shape[-1]:
        p = torch.where(p >= p.topk(top_k).values[:, -1:], p, 0)
        p = p / p.sum(-1, keepdim=True)
    if top_p < 1:
        p = torch.where(p >= _nucleus_threshold(p, top_p), p, 0)
    return p


def _nucleus_threshold(p: Tensor, top_p: float) -> Tensor:
    """(n, 1) smallest probability in the smallest set of likeliest tokens that sums to at least `top_p`."""
    threshold = p.new_zeros(len(p), 1)
    left = torch.arange(len(p), device=p.device)
    everything = p.shape[-1]
    for size in (*RANKED, everything):
        ranked = p[left].topk(min(size, everything)).values
        last = (ranked.cumsum(-1) < top_p).sum(-1, keepdim=True)
        found = (last[:, 0] < ranked.shape[-1]) | (ranked.shape[-1] == everything)
        threshold[left[found]] = ranked.gather(-1, last.clamp(max=ranked.shape[-1] - 1))[found]
        left = left[~found]
        if not len(left):
            break
    return threshold


def draw(p: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids (n,) where the sums of (n, V) weights `p` pass the shares `u` (n,) of their totals.

    The second result (n,) says which rows have a distribution at all (finite and not all zero).
    """
    sums = p.cumsum(-1)
    total = sums[:, -1]
    # Rounding must not push the target up to the total, beyond the last token that can be drawn.
    target = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(sums, target[:, None], right=True)[:, 0]
    return tokens.clamp(max=p.shape[-1] - 1), torch.isfinite(total) & (total > 0)
