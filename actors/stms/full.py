"""`full`: any Hugging Face sequence classifier, fine-tuned.

A plain loop: texts are tokenised once, batches hold texts of similar length and are padded to their
longest, weighted cross-entropy, Adam at a constant rate. Every `fit` starts from the same checkpoint
and the same random head (`seed`), with the same batches and dropout (`seed`). The forward pass may run in
bfloat16, weights and optimiser stay float32.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from actors.stms.base import FloatArray, IntArray, Stm, StmError, check_finite, softmax
from actors.stms.pretrained import load_model, load_tokenizer
from actors.stms.tokens import Tokens
from configs.schema.stm import FullStm
from fusion.generation.reweighting import weighted_loss

EVAL_BATCH = 64


class FullModel(Stm[Tokens, FullStm]):
    """A fine-tuned transformer with a classification head."""

    kind = "full"

    def __init__(self, spec: FullStm, labels: Sequence[str], seed: int) -> None:
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

    def encode(self, texts: Sequence[str], *, learn: bool = False) -> Tokens:
        """Tokenise; `learn` cuts texts to the training length, otherwise the prediction length holds."""
        length = self.spec.max_length
        return Tokens.of(texts, self._tokenizer, length if learn else self.spec.eval_max_length or length)

    def _fit(self, encoded: Tokens, y: IntArray, weights: FloatArray) -> None:
        used = np.flatnonzero(weights > 0)
        with seeded(self.seed, self._device):
            self._trained = self._load_classifier(self.spec.model)
            if self.spec.layers is not None:
                freeze(self._trained, self.spec.layers)
            self._train(encoded.take(used), self._tensor(y[used]), self._tensor(weights[used]).float())

    def _tensor(self, values: IntArray | FloatArray) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device)

    def _load_classifier(self, name: str | None) -> PreTrainedModel:
        names = dict(enumerate(self.labels))
        model = load_model(
            AutoModelForSequenceClassification,
            name,
            id2label=names,
            label2id={label: index for index, label in names.items()},
            ignore_mismatched_sizes=True,
            # Fused attention gains nothing on CPUs at these lengths and is slower with bfloat16.
            attn_implementation="sdpa" if self._device.type == "cuda" else "eager",
        )
        if not self.spec.dropout:
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        return model.to(self._device)

    def _train(self, encoded: Tokens, targets: torch.Tensor, weights: torch.Tensor) -> None:
        spec, rng = self.spec, np.random.default_rng(self.seed)
        trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=spec.learning_rate, fused=True)
        for epoch in range(1, spec.epochs + 1):
            self._model.train()
            total = torch.zeros((), device=self._device)
            for batch in encoded.shuffled(spec.batch_size, rng):
                losses = cross_entropy(self._logits(encoded, batch), targets[batch], reduction="none")
                loss = weighted_loss(losses, weights[batch])
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                total += loss.detach() * len(batch)
            self._model.eval()
            self._finish_epoch(epoch, float(total) / len(encoded))

    def _finish_epoch(self, epoch: int, loss: float) -> None:
        if not np.isfinite(loss):
            raise StmError(f"training diverged in epoch {epoch}: the loss is {loss}; lower learning_rate")
        if self.on_epoch is not None:
            self.on_epoch(epoch, loss)

    def _logits(self, encoded: Tokens, batch: IntArray) -> torch.Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            logits: torch.Tensor = self._model(**encoded.padded(batch, self._device)).logits
        return logits.float()

    def predict_proba(self, encoded: Tokens) -> FloatArray:
        """Return (n, C) class probabilities."""
        logits = np.zeros((len(encoded), len(self.labels)))
        with torch.inference_mode():
            for batch in encoded.by_length(EVAL_BATCH):
                logits[batch] = self._logits(encoded, batch).cpu().numpy()
        check_finite(logits, "logits")
        return softmax(logits)

    def features(self, encoded: Tokens) -> FloatArray:
        """Return what the classification head's last layer reads (n, d); W h + b to bfloat16's precision."""
        layer, seen = self._last_linear(), []
        hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        rows = np.zeros((len(encoded), layer.in_features))
        try:
            with torch.inference_mode():
                for batch in encoded.by_length(EVAL_BATCH):
                    self._logits(encoded, batch)
                    rows[batch] = seen.pop().float().cpu().numpy()
        finally:
            hook.remove()
        check_finite(rows, "features")
        return rows

    def _last_linear(self) -> torch.nn.Linear:
        layers = [module for module in self._model.modules() if isinstance(module, torch.nn.Linear)]
        return next(layer for layer in reversed(layers) if layer.out_features == len(self.labels))

    def last_layer(self) -> tuple[FloatArray, FloatArray]:
        """Return W (C, d) and b (C,)."""
        layer = self._last_linear()
        weight = layer.weight.detach().double().cpu().numpy()
        bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().cpu().numpy()
        return weight, bias

    def probe(self, encoded: Tokens) -> tuple[torch.nn.Module, Callable[[IntArray], torch.Tensor]]:
        """Return a float32 copy of the network; its attention can be differentiated twice."""
        network = copy.deepcopy(self._model)
        network.set_attn_implementation("eager")
        return network, lambda indices: network(**encoded.padded(indices, self._device)).logits

    def _save(self, folder: Path) -> None:
        self._model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)

    def _load(self, folder: Path) -> None:
        # The folder may be a temporary copy: nothing is left for later.
        self._tokenizer = load_tokenizer(str(folder))
        self._trained = self._load_classifier(str(folder))


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
