"""Pooled states: masked means, the same whatever else is in a batch."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from actors.engines.pooling import pooled

TEXTS = [
    ([2, 40, 41, 42], [50, 51]),
    ([2, 60], [70]),
    (list(range(2, 40)), list(range(40, 60))),
    ([2, 9], []),
]
BEGINS = {"mean_all": [0, 0, 0, 0], "mean_output": [4, 2, 38, 1], "last_token": [5, 2, 57, 1]}


@pytest.mark.parametrize("pooling", list(BEGINS))
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_pools_what_a_plain_forward_pass_gives(kind, pooling, request):
    model = AutoModelForCausalLM.from_pretrained(request.getfixturevalue(kind)).eval()
    found = pooled(model, TEXTS, pooling, 3)
    for row, (prompt, answer), begin in zip(found, TEXTS, BEGINS[pooling], strict=True):
        with torch.no_grad():
            ids = torch.tensor([[*prompt, *answer]])
            states = model(ids, output_hidden_states=True).hidden_states[-1][0]
        np.testing.assert_allclose(row, states[begin:].mean(dim=0), atol=1e-5)


def test_a_vector_depends_on_its_text_alone(llama):
    model = AutoModelForCausalLM.from_pretrained(llama).eval()
    together = pooled(model, TEXTS, "mean_all", 3)
    np.testing.assert_array_equal(pooled(model, TEXTS[::-1], "mean_all", 3)[::-1], together)
    np.testing.assert_array_equal(pooled(model, TEXTS[1:2], "mean_all", 3)[0], together[1])


def test_encoder_decoder_models_give_none(t5):
    assert pooled(AutoModelForSeq2SeqLM.from_pretrained(t5), TEXTS, "mean_all", 3) is None
