"""Language models of the library transformers, causal or encoder-decoder, from a folder or the hub.

Prompts become token ids (`texts`), `decoding.write` continues them, and the continuation is decoded. Weights
are read from safetensors only, and no code that comes with a checkpoint is run.
"""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
)

from actors.engines.base import Completion, DeviceLostError, EngineError, Request, failure
from actors.engines.decoding import Ending, Written, write
from actors.engines.likelihood import Continued, log_likelihoods
from actors.engines.pooling import pooled
from actors.engines.texts import Texts, one_line, problem, source_of
from actors.vectors import Vectors
from configs.schema.expert import Pooling
from configs.schema.plm import Sampling, TransformersEngine

SAMPLED_VALUES = 256


class Transformers:
    """One loaded model and its tokenizer."""

    def __init__(self, spec: TransformersEngine) -> None:
        """Load the model onto its device; `EngineError` in one line when that cannot work."""
        self._spec = spec
        device = _device(spec)
        try:
            tokenizer, self._model = _load(spec, device)
            config = self._model.config
            self.texts = Texts(spec, tokenizer, (self._model.generation_config, config))
        except (OSError, ValueError, KeyError, ImportError, SafetensorError, TemplateError) as error:
            raise EngineError(one_line(spec.model, error)) from None
        self.limit = None if config.is_encoder_decoder else getattr(config, "max_position_embeddings", None)
        self._endings: dict[Sampling, Ending] = {}

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Write a continuation for each request; those that do not fit the context get error completions."""
        return [completion for completion, _ in self.written(requests, sampling)]

    def written(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> list[tuple[Completion, tuple[list[int], list[int]]]]:
        """What `generate` returns, each with the token ids of the prompt and of what was written."""
        answers: dict[int, tuple[Completion, tuple[list[int], list[int]]]] = {}
        prompts: dict[int, list[list[int]]] = {}
        for place, request in enumerate(requests):
            counters = request.counter_prompts if sampling.self_debias else ()
            prompts[place] = [self.texts.ids(text) for text in (request.prompt, *counters)]
            why = problem(prompts[place], sampling, self.limit)
            if why:
                answers[place] = failure(why), (prompts[place][0], [])
        groups: dict[int, list[int]] = defaultdict(list)
        for place in range(len(requests)):
            if place not in answers:
                groups[len(prompts[place])].append(place)
        for places in groups.values():
            written = self._write([prompts[p] for p in places], [requests[p].seed for p in places], sampling)
            for place, row in zip(places, written, strict=True):
                completion = self._completion(row, sum(map(len, prompts[place])))
                answers[place] = completion, (prompts[place][0], self.texts.without_end(row.tokens))
        return [answers[place] for place in range(len(requests))]

    def states(
        self, texts: Sequence[tuple[list[int], list[int]]], pooling: Pooling, size: int
    ) -> Vectors | None:
        """Pooled vectors (n, d) of prompts and answers in token ids; None where the model has none."""
        try:
            return pooled(self._model, texts, pooling, size)
        except torch.AcceleratorError as error:
            raise DeviceLostError(str(error).partition("\n")[0]) from None

    def likelihoods(self, texts: Sequence[Continued], longest: int, size: int) -> NDArray[np.float64]:
        """As `log_likelihoods` of this model."""
        try:
            return log_likelihoods(self._model, texts, longest, size)
        except torch.AcceleratorError as error:
            raise DeviceLostError(str(error).partition("\n")[0]) from None

    def _write(
        self, prompts: Sequence[Sequence[Sequence[int]]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Written]:
        if sampling not in self._endings:
            self._endings[sampling] = Ending(self.texts.tokenizer, sampling, self.texts.end_tokens)
        try:
            return write(self._model, prompts, seeds, sampling, self._endings[sampling])
        except torch.AcceleratorError as error:
            raise DeviceLostError(str(error).partition("\n")[0]) from None

    def _completion(self, row: Written, prompt_tokens: int) -> Completion:
        if row.ended == "error" or row.ended is None:
            return failure("the model's probabilities are not numbers")
        count = len(row.tokens)
        return Completion(
            text=self.texts.text(row.tokens),
            finish_reason=row.ended,
            prompt_tokens=prompt_tokens,
            completion_tokens=count,
            logprob=sum(row.logprobs) / count,
        )

    def available(self, round: int, label: int, zero_shot: bool, ordinal: int, index: int = 0) -> None:
        """Return None: there is no limit."""

    def describe(self) -> dict[str, str]:
        """Return the model, its revision and a digest of its weights."""
        model = self._model
        return {
            "engine": "transformers",
            "model": self._spec.model,
            "revision": getattr(model.config, "_commit_hash", None) or self._spec.revision or "",
            "fingerprint": _fingerprint(model),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
            "chat": "yes" if self.texts.chat else "no",
        }


def _device(spec: TransformersEngine) -> torch.device:
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise EngineError(f"{spec.model}: device is `cuda`, but this process has no GPU (num_gpus is 0?)")
    return torch.device("cuda" if spec.device != "cpu" and torch.cuda.is_available() else "cpu")


def _load(spec: TransformersEngine, device: torch.device) -> tuple[Any, Any]:
    source = source_of(spec.model)
    options: dict[str, Any] = {"revision": spec.revision, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(source, **options)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    dtype = "float32" if spec.dtype == "auto" and device.type == "cpu" else spec.dtype
    loaded: Any = kind.from_pretrained(
        source, **options, dtype=dtype, use_safetensors=True, output_loading_info=True
    )
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise EngineError(f"{spec.model}: {len(missing)} weights are missing, the first is {missing[0]}")
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    return tokenizer, model.to(device).eval()


def _fingerprint(model: PreTrainedModel) -> str:
    """Digest of every tensor's name and shape and of some of its values; all of them would take minutes."""
    digest = blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, len(flat) // SAMPLED_VALUES)].float().cpu()
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()
