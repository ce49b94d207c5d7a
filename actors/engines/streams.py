"""A batch of texts in the making: the model's key-value cache and what goes with it.

Equal prompts are read once and their cache is copied, since all requests of a label share one long prompt.
Decoder-only prompts are padded on the left, so that all rows write in the same column; an encoder's are
padded on the right.
"""

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from actors.engines.base import EngineError


class Streams(Protocol):
    """Texts that one model writes side by side."""

    logits: Tensor
    """(n, V): what comes next."""

    def step(self, tokens: Tensor) -> None:
        """Append one token (n,) to each text and refresh `logits`."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only; `logits` are refreshed by the next step."""
        ...


def start(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Streams:
    """Read prompts (token ids) with a causal or encoder-decoder model of the library transformers."""
    kind = EncoderDecoderStreams if model.config.is_encoder_decoder else CausalStreams
    return kind(model, prompts)


class CausalStreams:
    """Texts of a decoder-only model."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        """Read the prompts."""
        self._model = model
        self._parameters = inspect.signature(model.forward).parameters
        distinct, rows = _distinct(prompts)
        ids, self._mask = _padded(distinct, model.device, left=True)
        self._positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        self._cache: Any = None
        self.logits = self._forward(ids)[rows]
        if len(distinct) < len(rows):
            self.keep(torch.tensor(rows, device=model.device))

    def _forward(self, ids: Tensor) -> Tensor:
        inputs = {"input_ids": ids, "attention_mask": self._mask, "use_cache": True}
        if "position_ids" in self._parameters:
            inputs["position_ids"] = self._positions
        if "logits_to_keep" in self._parameters:
            inputs["logits_to_keep"] = 1
        output = self._model(**inputs, past_key_values=self._cache)
        self._cache = _cache_of(output, self._model)
        logits: Tensor = output.logits[:, -1]
        return logits

    def step(self, tokens: Tensor) -> None:
        """Append one token to each text."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        self._positions = self._positions[:, -1:] + 1
        self.logits = self._forward(tokens[:, None])

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order; rows may repeat."""
        self._cache.batch_select_indices(rows)
        self._mask, self._positions = self._mask[rows], self._positions[rows]


class EncoderDecoderStreams:
    """Texts of an encoder-decoder model; they begin with the decoder's start token, which is no output."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        """Read the prompts and the start token."""
        self._model = model
        distinct, rows = _distinct(prompts)
        ids, mask = _padded(distinct, model.device, left=False)
        encoded = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        self._encoded, self._mask = encoded[rows], mask[rows]
        self._cache: Any = None
        self.step(torch.full((len(rows),), _start_token(model), device=model.device))

    def step(self, tokens: Tensor) -> None:
        """Append one token to each text."""
        output = self._model(
            encoder_outputs=(self._encoded,),
            attention_mask=self._mask,
            decoder_input_ids=tokens[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache = _cache_of(output, self._model)
        self.logits = output.logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self._cache.batch_select_indices(rows)
        self._encoded, self._mask = self._encoded[rows], self._mask[rows]


def _distinct(prompts: Sequence[Sequence[int]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """The different prompts, and for each prompt its place among them."""
    places: dict[tuple[int, ...], int] = {}
    rows = [places.setdefault(tuple(prompt), len(places)) for prompt in prompts]
    return list(places), rows


def _padded(prompts: Sequence[Sequence[int]], device: torch.device, *, left: bool) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask (n, longest); padding is masked, so that its id does not matter."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        place = slice(longest - len(prompt), None) if left else slice(len(prompt))
        ids[row, place] = torch.tensor(prompt)
        mask[row, place] = 1
    return ids.to(device), mask.to(device)


def _start_token(model: PreTrainedModel) -> int:
    for source in (model.generation_config, model.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            token = getattr(source, name, None)
            if token is not None:
                return int(token)
    raise EngineError(
        f"{model.config.name_or_path}: neither its decoder start token nor its bos token is known"
    )


def _cache_of(output: object, model: PreTrainedModel) -> Any:  # noqa: ANN401
    cache = getattr(output, "past_key_values", None)
    if not hasattr(cache, "batch_select_indices"):
        raise EngineError(f"{type(model).__name__} keeps no key-value cache, which this engine needs")
    return cache
