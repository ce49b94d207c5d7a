"""Checkpoints as running models: without weights until a stage needs them, and with none of it afterwards."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from actors.merging.checkpoints import Checkpoint
from actors.merging.errors import CheckpointError
from actors.stms.pretrained import quiet
from fusion.merging.architecture import Architecture, Stage, describe
from fusion.merging.collection import Batch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def architecture_of(checkpoint: Checkpoint) -> Architecture:
    """What is known of its family; CheckpointError in one line for what cannot be merged."""
    try:
        return describe(checkpoint.config, list(checkpoint))
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{checkpoint.name}: {error}") from None


def model_class(checkpoint: Checkpoint) -> type[PreTrainedModel]:
    """The class that the checkpoint names."""
    names = checkpoint.config.get("architectures") or []
    found = getattr(transformers, names[0], None) if names else None
    if found is None:
        raise CheckpointError(f"{checkpoint.name}: config.json names no architecture that is known: {names}")
    kind: type[PreTrainedModel] = found
    return kind


def whole(checkpoint: Checkpoint) -> PreTrainedModel:
    """The model with all of its weights."""
    with quiet():
        model: Any = model_class(checkpoint).from_pretrained(
            checkpoint.folder, use_safetensors=True, trust_remote_code=False, dtype="auto"
        )
    loaded: PreTrainedModel = model.to(DEVICE).eval()
    return loaded


def hollow(checkpoint: Checkpoint) -> PreTrainedModel:
    """The model without weights: parameters are on the meta device, what is computed from the configuration
    is there. CheckpointError where its names differ from those of the files."""
    from accelerate import init_empty_weights

    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
    with init_empty_weights(include_buffers=False):
        model = model_class(checkpoint)._from_config(config)
    model.tie_weights()
    unknown = sorted({name for name, _ in model.named_parameters()} - set(checkpoint))
    if unknown:
        raise CheckpointError(f"{checkpoint.name}: no tensor {unknown[0]} in its files")
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            persistent = name not in module._non_persistent_buffers_set
            module.register_buffer(name, buffer.to(DEVICE), persistent=persistent)
    return model.eval()


def classifier_of(base: Checkpoint) -> tuple[Architecture, dict[str, tuple[int, ...]]]:
    """What a base becomes with a classification head, and the shapes of its parameters."""
    from accelerate import init_empty_weights

    config = AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
    with init_empty_weights():
        model = AutoModelForSequenceClassification.from_config(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    about = {**base.config, "architectures": [type(model).__name__]}
    try:
        return describe(about, list(shapes)), shapes
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{base.name}: {error}") from None


class Loader:
    """Puts weights into a hollow model, stage by stage."""

    def __init__(
        self, model: PreTrainedModel, tensors: Mapping[str, Tensor], stages: Sequence[Stage]
    ) -> None:
        self.model, self.tensors = model, tensors
        self.blocks = [stage.name for stage in stages[:-1]]
        self.tail = stages[-1].name
        inside = tuple(f"{block}." for block in self.blocks)
        heads = [module for group in stages[-1].groups for module in group.modules]
        self.heads = {f"{module}.{leaf}" for module in heads for leaf in ("weight", "bias")}
        self.around = [n for n, _ in model.named_parameters() if not n.startswith(inside)]

    def load_around(self) -> None:
        """Embeddings and whatever else is in no block, but for the heads."""
        for name in self.around:
            if name not in self.heads:
                self._put(name, self.tensors[name])
        self.model.tie_weights()

    def load(self, stage: str) -> None:
        """A block's weights, or those of the heads."""
        for name in self._names(stage):
            self._put(name, self.tensors[name])

    def drop(self, stage: str) -> None:
        """Forget a block's weights."""
        for name in self._names(stage):
            self._put(name, self.model.get_parameter(name).to("meta"))

    def _names(self, stage: str) -> list[str]:
        if stage == self.tail:
            return [name for name in self.around if name in self.heads]
        return [f"{stage}.{name}" for name, _ in self.model.get_submodule(stage).named_parameters()]

    def _put(self, name: str, tensor: Tensor) -> None:
        path, _, leaf = name.rpartition(".")
        place = self.model.get_submodule(path)
        device = tensor.device if tensor.device.type == "meta" else DEVICE
        setattr(place, leaf, nn.Parameter(tensor.to(device), requires_grad=False))


def batches(checkpoint: Checkpoint, texts: Sequence[str], size: int, length: int) -> Iterator[Batch]:
    """Texts as the model reads them, so many at a time, in their order."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    seq2seq = checkpoint.config.get("is_encoder_decoder", False)
    for start in range(0, len(texts), size):
        found: Mapping[str, Tensor] = tokenizer(
            list(texts[start : start + size]),
            padding=True,
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        batch = {name: tensor.to(DEVICE) for name, tensor in found.items()}
        if seq2seq and "Classification" not in str(checkpoint.config.get("architectures")):
            batch |= {
                "decoder_input_ids": batch["input_ids"],
                "decoder_attention_mask": batch["attention_mask"],
            }
        yield batch
