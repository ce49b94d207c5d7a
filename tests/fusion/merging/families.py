"""Tiny random models of every family that can be merged."""

import torch
import transformers as t

VOCABULARY = 96
_COMMON = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_ENCODER = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3}
_DECODER = {**_ENCODER, "num_key_value_heads": 2, "tie_word_embeddings": False}
_DEBERTA = {**_ENCODER, "relative_attention": True, "position_buckets": 8, "max_relative_positions": 32}
_DEBERTA |= {"norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0}
_T5 = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 3}
_T5 |= {"decoder_start_token_id": 0, "relative_attention_num_buckets": 8}

MODELS = {
    "bert": (t.BertForSequenceClassification, t.BertConfig, {**_ENCODER, "num_labels": 3}),
    "bert tokens": (t.BertForTokenClassification, t.BertConfig, {**_ENCODER, "num_labels": 3}),
    "bert body": (t.BertModel, t.BertConfig, _ENCODER),
    "bert words": (t.BertForMaskedLM, t.BertConfig, _ENCODER),
    "roberta": (
        t.RobertaForSequenceClassification,
        t.RobertaConfig,
        {**_ENCODER, "max_position_embeddings": 66, "num_labels": 3},
    ),
    "distilbert": (
        t.DistilBertForSequenceClassification,
        t.DistilBertConfig,
        {"dim": 32, "hidden_dim": 64, "n_heads": 4, "n_layers": 3, "num_labels": 3},
    ),
    "deberta": (
        t.DebertaV2ForSequenceClassification,
        t.DebertaV2Config,
        {**_DEBERTA, "pos_att_type": ["c2p", "p2c"], "share_att_key": True, "conv_kernel_size": 3},
    ),
    "deberta apart": (
        t.DebertaV2ForSequenceClassification,
        t.DebertaV2Config,
        {**_DEBERTA, "pos_att_type": ["c2p", "p2c"], "embedding_size": 16},
    ),
    "gpt2": (t.GPT2LMHeadModel, t.GPT2Config, {"n_embd": 32, "n_head": 4, "n_layer": 3}),
    "gpt2 classes": (
        t.GPT2ForSequenceClassification,
        t.GPT2Config,
        {"n_embd": 32, "n_head": 4, "n_layer": 3, "num_labels": 3},
    ),
    "llama": (t.LlamaForCausalLM, t.LlamaConfig, _DECODER),
    "llama tied": (t.LlamaForCausalLM, t.LlamaConfig, {**_DECODER, "tie_word_embeddings": True}),
    "qwen2": (
        t.Qwen2ForCausalLM,
        t.Qwen2Config,
        {**_DECODER, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": (t.Qwen3ForCausalLM, t.Qwen3Config, {**_DECODER, "head_dim": 16}),
    "mixtral": (
        t.MixtralForCausalLM,
        t.MixtralConfig,
        {**_DECODER, "num_local_experts": 4, "num_experts_per_tok": 2, "experts_implementation": "eager"},
    ),
    "t5": (t.T5ForConditionalGeneration, t.T5Config, {**_T5, "feed_forward_proj": "gated-gelu"}),
    "t5 plain": (t.T5ForConditionalGeneration, t.T5Config, _T5),
    "t5 encoder": (t.T5EncoderModel, t.T5Config, _T5),
}


def make(name: str, seed: int = 0, spread: float = 0.0):
    """A model in float64 and evaluation mode; `spread` moves it away from the others of its name."""
    cls, config, changes = MODELS[name]
    torch.manual_seed(0)
    model = cls(config(**{**_COMMON, **changes})).double().eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=spread)
    return model


def batches(name: str, n: int = 3, seed: int = 0, size: int = 4, tokens: int = 12, padded: bool = True):
    """Inputs with padding on the right."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(n):
        ids = torch.randint(3, VOCABULARY, (size, tokens), generator=generator)
        lengths = torch.randint(tokens // 2, tokens + 1, (size, 1), generator=generator)
        mask = (torch.arange(tokens) < lengths).long() if padded else torch.ones_like(ids)
        batch = {"input_ids": ids * mask, "attention_mask": mask}
        if name in ("t5", "t5 plain"):
            mine = mask[:, : tokens // 2].flip(0)
            decoder = torch.randint(3, VOCABULARY, mine.shape, generator=generator) * mine
            batch |= {"decoder_input_ids": decoder, "decoder_attention_mask": mine}
        found.append(batch)
    return found
