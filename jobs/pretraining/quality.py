"""How well a miniature writes: it is sampled, and what it wrote is measured, for its card.

The judge of labels is fixed: word uni- and bigram TF-IDF and logistic regression, trained on the texts of all
authors with the labels that they meant, before label noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from configs.schema.pretrain import Check
from configs.schema.task import Label, Task
from fusion.generation.prompts import feedback, zero_shot
from fusion.generation.text import shingles, words
from jobs.pretraining.corpus import Row

BATCH = 16
SHOTS = 8
COPIED = 0.8


@dataclass(frozen=True)
class Figures:
    """Shares between 0 and 1 over the texts of one prompt form; `follows` and `by_chance` are the shares of a
    text's content words found in its own shots and in another prompt's shots (0 without shots)."""

    texts: int
    closed: float
    distinct: float
    agrees: float
    copied: float
    follows: float
    by_chance: float
    samples: tuple[Row, ...]


def judge(rows: Sequence[Row]) -> Pipeline:
    """The fixed classifier, fitted."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        LogisticRegression(C=4, max_iter=300),
    )
    return model.fit([text for text, _ in rows], [label for _, label in rows])


def measure(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Sequence[Row],
    judged_by: Pipeline,
    check: Check,
    seed: int,
    with_shots: bool,
) -> Figures:
    """Sample `check.samples` texts, labels in turn; with shots, each batch has eight rows that are alike."""
    random = np.random.default_rng([seed, with_shots])
    torch.manual_seed(seed)
    texts: list[str] = []
    labels: list[str] = []
    shots: list[list[str]] = []
    closed = 0
    while len(texts) < check.samples:
        chosen = _alike(rows, random) if with_shots else []
        left = min(BATCH, check.samples - len(texts))
        asked = [task.labels[place % len(task.labels)] for place in range(left)]
        prompts = [_prompt(task, label, chosen) for label in asked]
        for raw, label in zip(_continue(model, tokenizer, prompts, check), asked, strict=True):
            closed += '"' in raw
            texts.append(raw.partition('"')[0].strip())
            labels.append(label.name)
            shots.append(chosen)
    return Figures(
        texts=len(texts),
        closed=closed / len(texts),
        distinct=len(set(texts)) / len(texts),
        agrees=float(np.mean(judged_by.predict(texts) == np.array(labels))),
        copied=float(np.mean([_copied(text, own) for text, own in zip(texts, shots, strict=True)])),
        follows=_overlap(texts, shots),
        by_chance=_overlap(texts, shots[BATCH:] + shots[:BATCH]),
        samples=tuple(zip(texts, labels, strict=True)),
    )


def _prompt(task: Task, label: Label, shots: list[str]) -> str:
    if not shots:
        return zero_shot(label.zero_shot)
    return feedback(shots, task.shot_prefix, label.feedback, blank_lines=task.blank_lines)


def _continue(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[str], check: Check
) -> list[str]:
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        output = model.generate(  # type: ignore[misc]
            **inputs,
            do_sample=True,
            temperature=check.temperature,
            top_p=check.top_p,
            top_k=0,
            max_new_tokens=check.max_new_tokens,
        )
    return tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def _alike(rows: Sequence[Row], random: np.random.Generator) -> list[str]:
    """Eight texts that share content words with a ninth."""
    pool = [rows[place][0] for place in random.choice(len(rows), min(600, len(rows)), replace=False)]
    anchor = _content(pool[0])
    nearest = sorted(pool[1:], key=lambda text: -len(anchor & _content(text)) / (1 + len(_content(text))))
    return nearest[:SHOTS]


def _content(text: str) -> set[str]:
    return set(words(text)).difference(ENGLISH_STOP_WORDS)


def _overlap(texts: list[str], shots: list[list[str]]) -> float:
    shares = []
    for text, own in zip(texts, shots, strict=True):
        mine = _content(text)
        if mine and own:
            shares.append(len(mine & set().union(*map(_content, own))) / len(mine))
    return float(np.mean(shares)) if shares else 0.0


def _copied(text: str, shots: list[str]) -> bool:
    """Whether most word triples of the text stand in one shot."""
    mine = shingles(words(text), 3)
    return bool(mine) and any(len(mine & shingles(words(shot), 3)) >= COPIED * len(mine) for shot in shots)
