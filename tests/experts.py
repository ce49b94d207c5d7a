"""Tiny models that answer, and items to ask them about."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from actors.stms import create
from configs.schema.stm import LinearStm
from tests import corpus

LABELS = ("negative", "positive")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
NAMED = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}


def texts(count: int) -> list[tuple[str, str]]:
    """Sentences of the small corpus, with their labels."""
    return [(row["text"], row["label_name"]) for row in corpus.evaluation(count)]


def write_items(folder: Path, count: int = 60, **columns: Callable[[int], Any]) -> Path:
    """A file of items; `columns` make further ones from the row's number."""
    path = folder / "items.jsonl"
    with path.open("w") as stream:
        for row, (text, label) in enumerate(texts(count)):
            more = {name: make(row) for name, make in columns.items()}
            stream.write(json.dumps({"text": text, "label_name": label, **more}) + "\n")
    return path


def bert(folder: Path, labels: Sequence[str], seed: int, positions: int = 64) -> Path:
    """A random BERT of two tiny layers, with these labels in this order."""
    wordpieces = Tokenizer(models.WordLevel(unk_token="[UNK]"))  # noqa: S106
    wordpieces.pre_tokenizer = pre_tokenizers.Whitespace()
    sentences = [text for text, _ in texts(60)]
    wordpieces.train_from_iterator(sentences, trainers.WordLevelTrainer(special_tokens=SPECIAL))
    wordpieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=wordpieces, **NAMED)
    torch.manual_seed(seed)
    names = dict(enumerate(labels))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=positions,
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.mul_(40)  # a random model is nearly indifferent; this one has a taste
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write(folder: Path) -> Path:
    """Fill a folder: `ab` and `ba` (one BERT, its labels the other way round), `linear`, `items.jsonl`."""
    ab = bert(folder / "ab", LABELS, seed=1)
    model = BertForSequenceClassification.from_pretrained(ab)
    with torch.no_grad():
        model.classifier.weight.copy_(model.classifier.weight.flip(0))
        model.classifier.bias.copy_(model.classifier.bias.flip(0))
    bert(folder / "ba", LABELS[::-1], seed=1)
    model.config.id2label = dict(enumerate(LABELS[::-1]))
    model.config.label2id = {name: index for index, name in enumerate(LABELS[::-1])}
    model.save_pretrained(folder / "ba")
    stm = create(LinearStm(min_count=1), LABELS, seed=1)
    known = texts(90)[60:]
    stm.fit(stm.encode([t for t, _ in known], learn=True), [LABELS.index(label) for _, label in known])
    stm.save_pretrained(folder / "linear", "# A card\n")
    write_items(folder)
    return folder


def classifier(name: str, folder: Path | str, **fields: Any) -> dict[str, Any]:
    """An expert that classifies."""
    model = {"kind": "classifier", "model": str(folder), "max_length": 64, "batch_size": 8}
    return {"name": name, "model": {**model, **fields}, "num_cpus": 0.5}


def generator(name: str, **fields: Any) -> dict[str, Any]:
    """An expert that writes."""
    model = {
        "kind": "generator",
        "engine": {"model": f"configs/embedded/{name}"},
        "sampling": {"max_new_tokens": 12, "stop": ['"']},
        "prompt": '{text} The movie review is: "',
        "judge": "contains",
    }
    return {"name": name, "model": {**model, **fields}, "num_cpus": 0.5}


def remote(name: str, url: str, engine: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """An expert behind a URL, that is asked for its likeliest answer and given up soon."""
    asked = {"kind": "openai", "url": url, "model": name, "timeout_s": 10, "retries": 1, **(engine or {})}
    model = {"kind": "generator", "engine": asked, "prompt": "About: {text}", "judge": "contains", **fields}
    return {"name": name, "model": model, "num_cpus": 0.2}
