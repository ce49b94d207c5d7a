"""What fine-tuned transformers have in common, whatever their heads.

A plain loop: texts are tokenised once, batches hold texts of similar length and are padded to their
longest, weighted losses, Adam at a constant rate. Every `fit` starts from the same checkpoint
and the same random head (`seed`), with the same batches and dropout (`seed`). The forward pass may run in
bfloat16, weights and optimiser stay float32.
"""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from actors.stms.base import E, FloatArray, IntArray, Stm, StmError
from actors.stms.pretrained import load_model, load_tokenizer
from configs.schema.stm import FullStm, SpanStm
from fusion.generation.reweighting import weighted_loss

EVAL_BATCH = 64
F = TypeVar("F", FullStm, SpanStm)


class FineTuned(Stm[E, F]):
    """A fine-tuned transformer; a kind adds how it reads texts, its losses and its predictions."""

    auto: ClassVar[type]
    """Class of `transformers` that loads the network with its head."""

    def __init__(self, spec: F, labels: Sequence[str], seed: int) -> None:
        """Prepare an untrained model; the checkpoint is loaded when it is needed."""
        super().__init__(spec, labels, seed)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._bfloat16 = spec.dtype == "bfloat16" or (spec.dtype == "auto" and has_bfloat16(self._device))
        self._trained: PreTrainedModel | None = None

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.spec.model)

    @property
    def _model(self) -> PreTrainedModel:
        if self._trained is None:
            raise StmError("the model is not trained yet")
        return self._trained

    def _fit(self, encoded: E, y: IntArray, weights: FloatArray) -> None:
        used = np.flatnonzero(weights > 0)
        with seeded(self.seed, self._device):
            self._trained = self._load_network(self.spec.model)
            if self.spec.layers is not None:
                freeze(self._trained, self.spec.layers)
            self._train(encoded.take(used), self._tensor(y[used]), self._tensor(weights[used]).float())

    def _tensor(self, values: IntArray | FloatArray) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device)

    def _load_network(self, name: str | None) -> PreTrainedModel:
        model = load_model(
            self.auto,
            name,
            **self._settings(),
            ignore_mismatched_sizes=True,
            # Fused attention gains nothing on CPUs at these lengths and is slower with bfloat16.
            attn_implementation="sdpa" if self._device.type == "cuda" else "eager",
        )
        if not self.spec.dropout:
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        return model.to(self._device)

    def _settings(self) -> dict[str, Any]:
        """Changes to the configuration of the checkpoint."""
        return {}

    def _train(self, encoded: Any, targets: torch.Tensor, weights: torch.Tensor) -> None:  # noqa: ANN401
        spec, rng = self.spec, np.random.default_rng(self.seed)
        trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=spec.learning_rate, fused=True)
        for epoch in range(1, spec.epochs + 1):
            self._model.train()
            total = torch.zeros((), device=self._device)
            for batch in encoded.shuffled(spec.batch_size, rng):
                losses = self._losses(encoded, batch, targets[batch])
                loss = weighted_loss(losses, weights[batch])
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                total += loss.detach() * len(batch)
            self._model.eval()
            self._finish_epoch(epoch, float(total) / len(encoded))

    @abstractmethod
    def _losses(self, encoded: E, batch: IntArray, targets: torch.Tensor) -> torch.Tensor:
        """Losses (m,) of the texts at `batch`, whose targets are (m, ...)."""

    def _finish_epoch(self, epoch: int, loss: float) -> None:
        if not np.isfinite(loss):
            raise StmError(f"training diverged in epoch {epoch}: the loss is {loss}; lower learning_rate")
        if self.on_epoch is not None:
            self.on_epoch(epoch, loss)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16)

    def _last_linear(self, width: int) -> torch.nn.Linear:
        """The last layer, with so many outputs."""
        layers = [module for module in self._model.modules() if isinstance(module, torch.nn.Linear)]
        return next(layer for layer in reversed(layers) if layer.out_features == width)

    def _twice_differentiable(self) -> PreTrainedModel:
        """A float32 copy of the network."""
        network = copy.deepcopy(self._model)
        network.set_attn_implementation("eager")
        return network

    def _save(self, folder: Path) -> None:
        self._model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)

    def _load(self, folder: Path) -> None:
        # The folder may be a temporary copy: nothing is left for later.
        self._tokenizer = load_tokenizer(str(folder))
        self._trained = self._load_network(str(folder))


@contextmanager
def seen_by(layer: torch.nn.Linear) -> Iterator[list[torch.Tensor]]:
    """What a layer reads in each forward pass, in a list that its user empties."""
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()


def freeze(model: PreTrainedModel, layers: int) -> None:
    """Leave the embeddings and all blocks but the last `layers` as they are."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    blocks = max(lists, key=len)
    embeddings = model.get_input_embeddings()
    fixed = [embeddings, *blocks[: max(0, len(blocks) - layers)]]
    fixed += [m for m in model.modules() if any(child is embeddings for child in m.children())]
    for module in fixed:
        module.requires_grad_(False)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the processor multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw random numbers of `device` from `seed` and leave the caller's generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
