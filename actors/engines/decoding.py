"""The loop that writes texts token by token, for a batch at once.

Each row draws from numbers that its own seed fixed beforehand, ends on its own, and leaves the batch soon
after. With counter prompts a row has one stream per prompt; all of them are fed the row's tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from actors.engines import streams
from actors.engines.sampling import distribution, draw, uniforms
from configs.schema.plm import Sampling

DROP_SHARE = 0.125
"""Share of ended rows from which they are dropped: dropping copies the cache, which costs about a step."""


@dataclass
class Written:
    """One text in the making."""

    tokens: list[int] = field(default_factory=list)
    """Token ids, the end token included."""
    logprobs: list[float] = field(default_factory=list)
    """Their natural log-probabilities under the model."""
    ended: Literal["stop", "length", "error"] | None = None

    def append(self, token: int, logprob: float, sound: bool, ending: "Ending") -> None:
        """Add a token, unless the text is over; a token of no sound distribution ends it as an error."""
        if self.ended is not None:
            return
        if not sound:
            self.ended = "error"
            return
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self.ended = ending.reached(self.tokens)


class Ending:
    """Decides when a text is over: the end token, a stop string, or the limit."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, sampling: Sampling, end_tokens: frozenset[int]
    ) -> None:
        """Find the tokens that can complete a stop string, so that few texts have to be decoded."""
        self.end_tokens = end_tokens
        self._tokenizer, self._sampling = tokenizer, sampling
        last = {string[-1] for string in sampling.stop}
        # A token may hold only some bytes of a character, and white space may vanish from a lone token.
        unclear = any(character.isspace() for character in last)
        pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))]) if last else []
        self._completing = {
            token
            for token, piece in enumerate(pieces)
            if unclear or "\N{REPLACEMENT CHARACTER}" in piece or not last.isdisjoint(piece)
        }

    def reached(self, tokens: list[int]) -> Literal["stop", "length"] | None:
        """Why the text ends after these tokens, or None. A stop string counts from the least length on."""
        count, least = len(tokens), self._sampling.min_new_tokens
        if tokens[-1] in self.end_tokens:
            return "stop"
        if count >= least and (count == least or tokens[-1] in self._completing) and self._stopped(tokens):
            return "stop"
        return "length" if count == self._sampling.max_new_tokens else None

    def _stopped(self, tokens: list[int]) -> bool:
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return any(string in text for string in self._sampling.stop)


@torch.inference_mode()
def write(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[Sequence[int]]],
    seeds: Sequence[int],
    sampling: Sampling,
    ending: Ending,
) -> list[Written]:
    """Continue each row's prompt (the first of its token id lists; the others are counter prompts).

    All rows must have equally many prompts.
    """
    rows = [Written() for _ in prompts]
    width = len(prompts[0])
    batch = streams.start(model, [stream for row in prompts for stream in row])
    numbers = torch.stack([uniforms(seed, sampling.max_new_tokens) for seed in seeds]).to(model.device)
    ends = torch.tensor(sorted(ending.end_tokens), dtype=torch.long, device=model.device)
    present = list(range(len(rows)))
    for step in range(sampling.max_new_tokens):
        logp = batch.logits.double().log_softmax(-1).reshape(len(present), width, -1)
        p = distribution(logp, sampling, ends if step < sampling.min_new_tokens else None)
        tokens, sound = draw(p, numbers[present, step])
        logprobs = logp[:, 0].gather(1, tokens[:, None])[:, 0]
        for place, drawn in enumerate(zip(tokens.tolist(), logprobs.tolist(), sound.tolist(), strict=True)):
            rows[present[place]].append(*drawn, ending)
        going = [place for place, row in enumerate(present) if rows[row].ended is None]
        if not going:
            break
        if len(present) - len(going) >= DROP_SHARE * len(present):
            present = [present[place] for place in going]
            kept = torch.tensor(going, device=model.device)
            tokens = tokens[kept]
            batch.keep((kept[:, None] * width + torch.arange(width, device=model.device)).flatten())
        batch.step(tokens.repeat_interleave(width))
    return rows
