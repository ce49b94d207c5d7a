"""The tokenizer and the training loop: a byte-level BPE, and a Llama from random weights."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from configs.schema.base import ConfigError
from configs.schema.pretrain import Shape, Training
from jobs.pretraining.windows import END, END_ID, PAD, PAD_ID, Window, batches


@dataclass(frozen=True)
class Trained:
    """A model and what its training cost: tokens read, tokens learned, mean loss of the last tenth."""

    model: LlamaForCausalLM
    tokens: int
    learned: int
    loss: float
    seconds: float


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE with at most `vocabulary` tokens, the padding and the end token first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[PAD, END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def new_model(shape: Shape, vocabulary: int) -> LlamaForCausalLM:
    """A Llama with random weights, input and output embeddings shared."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        initializer_range=shape.hidden**-0.5,
        bos_token_id=None,
        pad_token_id=PAD_ID,
        eos_token_id=END_ID,
    )
    return LlamaForCausalLM(config)


def load_model(folder: Path) -> LlamaForCausalLM:
    """A model of this job, in float32; ConfigError when the folder has none."""
    try:
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"{folder}: start: no model: {' '.join(str(error).split())[:200]}") from None
    return model.train()


def train(
    model: LlamaForCausalLM,
    form: Training,
    windows: Iterable[Window],
    seed: int,
    say: Callable[[str], None],
) -> Trained:
    """Train in place; the same arguments and number of threads give the same weights."""
    started = time.perf_counter()
    optimiser, schedule = _optimiser(model, form)
    losses: list[float] = []
    tokens = learned = 0
    stream = batches(iter(windows), form.batch_tokens, np.random.default_rng([seed, 1]))
    for step, batch in zip(range(1, form.steps + 1), stream, strict=False):
        loss = _loss(model, batch, form.precision)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        tokens += sum(len(window.ids) for window in batch)
        learned += sum(map(sum, (window.learned for window in batch)))
        if step % 50 == 0 or step == form.steps:
            seconds = time.perf_counter() - started
            say(f"step {step}/{form.steps} loss {np.mean(losses[-50:]):.3f} {tokens / seconds:.0f} tokens/s")
    tail = float(np.mean(losses[-max(1, form.steps // 10) :]))
    return Trained(model.eval(), tokens, learned, tail, time.perf_counter() - started)


def _optimiser(
    model: LlamaForCausalLM, form: Training
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": form.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=form.lr, betas=(0.9, 0.95), fused=True)

    def factor(step: int) -> float:
        if step < form.warmup:
            return (step + 1) / form.warmup
        done = (step - form.warmup) / max(1, form.steps - form.warmup)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * done))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def _loss(model: LlamaForCausalLM, batch: list[Window], precision: str) -> torch.Tensor:
    """Mean cross-entropy of the learned tokens; padding is on the right, unseen by causal attention."""
    length = max(len(window.ids) for window in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    learned = torch.zeros(len(batch), length, dtype=torch.bool)
    for row, window in enumerate(batch):
        ids[row, : len(window.ids)] = torch.tensor(window.ids)
        learned[row, : len(window.ids)] = torch.tensor(window.learned)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        states = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(states[learned[:, 1:]])
    return functional.cross_entropy(logits.float(), ids[:, 1:][learned[:, 1:]])
