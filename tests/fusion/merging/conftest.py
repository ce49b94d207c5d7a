"""Three copies of a tiny model, each trained on its own third of the vocabulary, and what they see of it."""

from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from fusion.merging.architecture import Architecture, describe, distinct, matrix
from fusion.merging.collection import collect
from fusion.merging.models import sums_of

MODELS, VOCABULARY, LABELS, TOKENS, SEQUENCES = 3, 200, 4, 32, 96
STEPS, BATCH = 60, 16


def make_bert(seed: int = 0, **changes):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2}
    other = {"vocab_size": VOCABULARY, "max_position_embeddings": 64, "num_labels": LABELS}
    return BertForSequenceClassification(BertConfig(**{**sizes, **other, **changes}))


def make_llama(seed: int = 0, **changes):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4, "num_hidden_layers": 2}
    other = {"vocab_size": VOCABULARY, "num_key_value_heads": 2, "tie_word_embeddings": False}
    other |= {"max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **other, **changes}))


def sequences(model: int, n: int, seed: int):
    """Tokens (n, T) of the model's third, each of which tends to follow a fixed other; T / 2 to T count."""
    generator = torch.Generator().manual_seed(1000 * seed + model)
    low = 3 + model * (VOCABULARY - 3) // MODELS
    width = (VOCABULARY - 3) // MODELS
    steps = torch.randint(1, 3, (n, TOKENS), generator=generator).cumsum(dim=1)
    ids = low + (torch.randint(0, width, (n, 1), generator=generator) + steps * 7) % width
    lengths = torch.randint(TOKENS // 2, TOKENS + 1, (n, 1), generator=generator)
    mask = (torch.arange(TOKENS) < lengths).long()
    return ids * mask, mask


def labels_of(ids):
    """Which quarter of the vocabulary's residues the sequence begins in."""
    return (ids[:, 0] % (2 * LABELS)) // 2


def train(model, number: int, *, causal: bool):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ids, mask = sequences(number, STEPS * BATCH, seed=1)
    model.train()
    for start in range(0, len(ids), BATCH):
        x, m = ids[start : start + BATCH], mask[start : start + BATCH]
        target = torch.where(m == 1, x, -100) if causal else labels_of(x)
        optimizer.zero_grad()
        model(input_ids=x, attention_mask=m, labels=target).loss.backward()
        optimizer.step()
    return model.eval()


@dataclass
class Trio:
    """Models in float64, with their data and Gram matrices."""

    models: list
    architecture: Architecture

    @cached_property
    def batches(self):
        return [self.data(number) for number in range(MODELS)]

    @staticmethod
    def data(number: int, size: int = BATCH):
        ids, mask = sequences(number, SEQUENCES, seed=2)
        return [
            {"input_ids": ids[i : i + size], "attention_mask": mask[i : i + size]}
            for i in range(0, SEQUENCES, size)
        ]

    @cached_property
    def states(self):
        return [distinct(model.state_dict())[0] for model in self.models]

    @cached_property
    def grams(self):
        groups = self.architecture.groups
        return [
            collect(model, groups, batches, dtype=torch.float64)
            for model, batches in zip(self.models, self.batches, strict=True)
        ]

    def layer(self, group):
        """Weights (inputs, outputs) and Gram matrices of all models."""
        return [matrix(group, state) for state in self.states], [grams[group.name] for grams in self.grams]

    @cached_property
    def sums(self):
        """By group, of all models."""
        return {
            g.name: sums_of(g, self.states, [grams[g.name] for grams in self.grams])
            for g in self.architecture.groups
        }


def trio(make, *, causal: bool) -> Trio:
    models = [train(make(), number, causal=causal).double() for number in range(MODELS)]
    names = distinct(models[0].state_dict())[0]
    return Trio(models, describe(models[0].config.to_dict(), names.keys()))


@pytest.fixture(scope="session")
def bert() -> Trio:
    return trio(make_bert, causal=False)


@pytest.fixture(scope="session")
def llama() -> Trio:
    return trio(make_llama, causal=True)


@pytest.fixture(scope="session", params=["bert", "llama"])
def models(request) -> Trio:
    return request.getfixturevalue(request.param)
