"""Tiny random models with a tiny tokenizer, in folders as a hub would hold them, and tiny experts."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from tests import experts

TEXT = ['The movie review in positive sentiment is: "', "A plain tale, told with care.\nIt was bad?"]
SPECIAL = ["<pad>", "</s>", "<s>"]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level pieces; puts `<s>` before a text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", eos_token="</s>", bos_token="<s>")  # noqa: S106


def _special() -> dict[str, int]:
    return {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}


def _saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head.mul_(0.5 / head.std())  # a random model is nearly indifferent; this one has a taste
        head[tokenizer.convert_tokens_to_ids("z")].mul_(1.5)
    model.generation_config.eos_token_id = [1, tokenizer.convert_tokens_to_ids("z")]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama(tokenizer, tmp_path_factory) -> Path:
    """A decoder-only model with rotary positions and a context of 128."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **shape, **_special())
    return _saved(LlamaForCausalLM(config), tokenizer, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def gpt2(tokenizer, tmp_path_factory) -> Path:
    """A decoder-only model with learned absolute positions."""
    torch.manual_seed(1)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "tie_word_embeddings": False}
    config = GPT2Config(vocab_size=len(tokenizer), **shape, **_special())
    return _saved(GPT2LMHeadModel(config), tokenizer, tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def t5(tokenizer, tmp_path_factory) -> Path:
    """An encoder-decoder model."""
    torch.manual_seed(2)
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    config = T5Config(
        vocab_size=len(tokenizer), **shape, **_special(), decoder_start_token_id=0, tie_word_embeddings=False
    )
    return _saved(T5ForConditionalGeneration(config), tokenizer, tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="session")
def small(once) -> Path:
    """A folder with tiny models that answer, and items; see `tests.experts.write`."""
    return once("experts", experts.write)
