"""Likelihoods of continuations, beside what a model says token by token."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GPT2Config, LlamaConfig, T5Config

from actors.engines.likelihood import log_likelihoods

PROMPTS = [[5, 6, 7], [8] * 21, [9, 3], [5, 6, 7]]
LABELS = [[4], [10, 11], [10, 12, 13]]
PAIRS = [(prompt, label) for prompt in PROMPTS for label in LABELS]


def causal(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


MODELS = {
    "llama": lambda: causal(
        LlamaConfig(
            vocab_size=30, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
        )
    ),
    "gpt2": lambda: causal(GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=64)),
}


@pytest.mark.parametrize("name", MODELS)
def test_they_are_those_of_one_token_after_the_other(name):
    model = MODELS[name]()
    found = log_likelihoods(model, PAIRS, longest=3, size=4)
    for (prompt, label), total in zip(PAIRS, found, strict=True):
        expected = 0.0
        for done in range(len(label)):
            ids = torch.tensor([[*prompt, *label[:done]]])
            with torch.inference_mode():
                expected += model(ids).logits[0, -1].log_softmax(-1)[label[done]].item()
        assert total == pytest.approx(expected, abs=1e-4)


def test_those_of_a_decoder_too():
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    found = log_likelihoods(model, PAIRS, longest=3, size=4)
    for (prompt, label), total in zip(PAIRS, found, strict=True):
        begun = torch.tensor([[0, *label[:-1]]])
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=begun).logits[0]
        expected = logits.log_softmax(-1)[range(len(label)), label].sum().item()
        assert total == pytest.approx(expected, abs=1e-4)


def test_not_even_the_last_bit_depends_on_the_batch():
    model = MODELS["llama"]()
    together = log_likelihoods(model, PAIRS, longest=3, size=4)
    alone = [log_likelihoods(model, [pair], longest=3, size=4)[0] for pair in PAIRS]
    np.testing.assert_array_equal(together, alone)


def test_labels_of_one_token_cost_one_row(monkeypatch):
    model, rows = MODELS["llama"](), []
    inner = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **inputs: rows.append(len(inputs["input_ids"])) or inner(**inputs)
    )
    log_likelihoods(model, [([5, 6], [label]) for label in range(3, 20)], longest=1, size=4)
    assert rows == [4]
