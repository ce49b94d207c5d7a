"""What the linear maps of each family of models are, and which of them read the same input.

Names and layouts are those of transformers 5. Everything is declared here and nothing guessed from shapes:
a square matrix that is transposed by mistake goes unnoticed otherwise. `collection` checks at run time that
modules said to share an input are indeed given one and the same tensor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Config = Mapping[str, Any]
"""The contents of a model's config.json."""
Rows = Literal["tokens", "decoder", "repeated", "positions", "head", "last", "gate_up", "down"]
"""Which rows of an input count: those under the attention mask; under the decoder's; the same in the first
call of a pass and all in later ones; all; one per sequence where it has two dimensions, tokens otherwise;
the last token of every sequence; tokens routed to an expert, before and after its activation."""
ENCODER_ALPHA, DECODER_ALPHA = 0.9, 0.1
"""Defaults of regmean.md: shrink large language models more."""


@dataclass(frozen=True)
class Inputs:
    """Modules, by name within a block or a model, that read one and the same tensor."""

    modules: tuple[str, ...]
    rows: Rows = "tokens"


@dataclass(frozen=True)
class Experts:
    """A module of fused experts and its router within a block, and their names in files."""

    module: str
    router: str
    count: str
    """Key of the configuration."""
    stored: str
    """Prefix in files, where each expert has gate `w1`, down `w2` and up `w3` of its own."""


@dataclass(frozen=True)
class Stack:
    """A list of equal blocks that run one after another."""

    path: str
    """Below the model's prefix."""
    depth: str
    """Key of the configuration: how many."""
    inputs: Callable[[Config], tuple[Inputs, ...]]
    """In the order in which a block reads them."""
    embeddings: str
    """The module whose output, or one of its shape, the first block reads."""
    experts: Experts | None = None


@dataclass(frozen=True)
class Family:
    """Models of one `model_type`."""

    prefix: str
    """Name of the body inside a model with a head."""
    stacks: tuple[Stack, ...]
    alpha: float
    transposed: bool = True
    """Whether weights of blocks are stored (out, in), as by torch."""
    front: tuple[Inputs, ...] = ()
    """Linear maps before the first block."""
    generation_rows: Rows = "tokens"
    """Rows that `lm_head` and `qa_outputs` read."""
    unsupported: tuple[tuple[str, Any], ...] = ()
    """Configuration entries that these descriptions do not cover."""


def _bert(_: Config) -> tuple[Inputs, ...]:
    attention = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))
    return (
        Inputs(attention),
        Inputs(("attention.output.dense",)),
        Inputs(("intermediate.dense",)),
        Inputs(("output.dense",)),
    )


def _distilbert(_: Config) -> tuple[Inputs, ...]:
    attention = tuple(f"attention.{name}_lin" for name in "qkv")
    return Inputs(attention), Inputs(("attention.out_lin",)), Inputs(("ffn.lin1",)), Inputs(("ffn.lin2",))


def _deberta(config: Config) -> tuple[Inputs, ...]:
    query, key, value = (f"attention.self.{name}_proj" for name in ("query", "key", "value"))
    rest = _bert(config)[1:]
    if not config.get("relative_attention"):
        return Inputs((query, key, value)), *rest
    if config.get("share_att_key"):
        # Query and key project the relative positions too, the value does not.
        return Inputs((query, key), "repeated"), Inputs((value,)), *rest
    kinds = config.get("pos_att_type") or []
    wanted = {"c2p": "attention.self.pos_key_proj", "p2c": "attention.self.pos_query_proj"}
    positions = tuple(module for kind, module in wanted.items() if kind in kinds)
    return Inputs((query, key, value)), *([Inputs(positions, "positions")] if positions else []), *rest


def _gpt2(_: Config) -> tuple[Inputs, ...]:
    return tuple(Inputs((name,)) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"))


def _attention(_: Config) -> tuple[Inputs, ...]:
    return Inputs(tuple(f"self_attn.{name}_proj" for name in "qkv")), Inputs(("self_attn.o_proj",))


def _llama(config: Config) -> tuple[Inputs, ...]:
    return *_attention(config), Inputs(("mlp.gate_proj", "mlp.up_proj")), Inputs(("mlp.down_proj",))


def _t5_attention(layer: int, rows: Rows) -> tuple[Inputs, ...]:
    own = f"layer.{layer}.SelfAttention"
    return Inputs(tuple(f"{own}.{name}" for name in "qkv"), rows), Inputs((f"{own}.o",), rows)


def _t5_feed_forward(config: Config, layer: int, rows: Rows) -> tuple[Inputs, ...]:
    path = f"layer.{layer}.DenseReluDense"
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated-")
    names = ("wi_0", "wi_1") if gated else ("wi",)
    return Inputs(tuple(f"{path}.{name}" for name in names), rows), Inputs((f"{path}.wo",), rows)


def _t5_encoder(config: Config) -> tuple[Inputs, ...]:
    return *_t5_attention(0, "tokens"), *_t5_feed_forward(config, 1, "tokens")


def _t5_decoder(config: Config) -> tuple[Inputs, ...]:
    cross = "layer.1.EncDecAttention"
    return (
        *_t5_attention(0, "decoder"),
        Inputs((f"{cross}.q",), "decoder"),
        Inputs((f"{cross}.o",), "decoder"),
        *_t5_feed_forward(config, 2, "decoder"),
    )


CROSS = "layer.1.EncDecAttention.k", "layer.1.EncDecAttention.v"
"""In every block of T5's decoder, all of which read the encoder's output."""
_MIXTRAL = Experts("mlp.experts", "mlp.gate", "num_local_experts", "block_sparse_moe")


def _encoder(prefix: str, path: str, depth: str, inputs: Callable[[Config], tuple[Inputs, ...]]) -> Family:
    stack = Stack(path, depth, inputs, "embeddings")
    unsupported = (("is_decoder", True), ("add_cross_attention", True))
    front = (Inputs(("embeddings.embed_proj",)),)
    return Family(prefix, (stack,), ENCODER_ALPHA, front=front, unsupported=unsupported)


def _decoder(inputs: Callable[[Config], tuple[Inputs, ...]], experts: Experts | None = None) -> Family:
    return Family(
        "model", (Stack("layers", "num_hidden_layers", inputs, "embed_tokens", experts),), DECODER_ALPHA
    )


FAMILIES: dict[str, Family] = {
    "bert": _encoder("bert", "encoder.layer", "num_hidden_layers", _bert),
    "roberta": _encoder("roberta", "encoder.layer", "num_hidden_layers", _bert),
    "distilbert": _encoder("distilbert", "transformer.layer", "n_layers", _distilbert),
    "deberta-v2": _encoder("deberta", "encoder.layer", "num_hidden_layers", _deberta),
    "gpt2": Family(
        "transformer",
        (Stack("h", "n_layer", _gpt2, "wte"),),
        DECODER_ALPHA,
        transposed=False,
        unsupported=(("add_cross_attention", True),),
    ),
    "llama": _decoder(_llama),
    "qwen2": _decoder(_llama),
    "qwen3": _decoder(_llama),
    "mixtral": _decoder(_attention, _MIXTRAL),
    "t5": Family(
        "transformer",
        (
            Stack("encoder.block", "num_layers", _t5_encoder, "encoder.embed_tokens"),
            Stack("decoder.block", "num_decoder_layers", _t5_decoder, "decoder.embed_tokens"),
        ),
        DECODER_ALPHA,
        generation_rows="decoder",
    ),
}

HEADS: tuple[Inputs, ...] = (
    *(Inputs((name,), "head") for name in ("pooler.dense", "pre_classifier", "classifier.dense")),
    *(Inputs((name,), "head") for name in ("classifier", "classifier.out_proj", "cls.seq_relationship")),
    *(Inputs((f"classification_head.{name}",), "head") for name in ("dense", "out_proj")),
    *(Inputs((name,)) for name in ("cls.predictions.transform.dense", "cls.predictions.decoder")),
    *(Inputs((name,)) for name in ("lm_predictions.lm_head.dense", "lm_head.dense", "lm_head.decoder")),
    *(Inputs((name,)) for name in ("vocab_transform", "vocab_projector")),
)
"""Linear maps after the last block, of whatever family, beside `score`, `lm_head` and `qa_outputs`."""
TASK = ("classifier.", "pre_classifier.", "score.", "qa_outputs.", "classification_head.")
"""Beginnings of the names of parameters that belong to a task and not to the body."""
LABELLED = ("classifier", "classifier.out_proj", "score", "classification_head.out_proj")
"""Linear maps whose outputs are labels."""
TIED_HEADS = ("lm_head", "lm_head.decoder", "cls.predictions.decoder", "vocab_projector")
"""Heads that may be the embedding over again."""
