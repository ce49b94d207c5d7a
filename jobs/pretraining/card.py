"""The model card of a miniature: what it is, what it was trained on, and what its samples are like."""

from collections.abc import Mapping
from pathlib import Path

from configs.schema.pretrain import PretrainConfig
from jobs.pretraining.quality import Figures
from jobs.pretraining.training import Trained

HEAD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# {name}

A miniature to see the pipeline with, not a language model to use: a Llama of {millions:.1f} million
parameters, trained to continue the prompts of the task `{task}` and nothing else. It knows no language beyond
its corpus and no facts.

"""

TRAINING = """## Training

| | |
|---|---|
| started from | {start} |
| corpus | {corpus} |
| other authors' texts among the shots | {company} |
| tokens read / learned | {tokens:,} / {learned:,} |
| loss per token, last tenth of the training | {loss:.3f} |
| steps, seed, threads | {steps}, {seed}, {threads} |

"""

FIGURES = """## Samples

Sampled at temperature {temperature:g} and top-p {top_p:g}, up to {max_new_tokens} new tokens. The label is
judged by a fixed classifier (word uni- and bigram TF-IDF, logistic regression) trained on the texts of this
and the other authors with the labels that they meant.

| | {names} |
|---|{rules}
"""


def card(
    config: PretrainConfig, about: str, texts: int, trained: Trained, figures: Mapping[str, Figures]
) -> str:
    """README.md of the model's folder."""
    parameters = sum(weight.numel() for weight in trained.model.parameters())
    head = HEAD.format(name=config.name, millions=parameters / 1e6, task=config.task.name)
    habits = f"{about}\n\n" if about else ""
    return head + habits + _training(config, texts, trained) + _figures(config, figures)


def _training(config: PretrainConfig, texts: int, trained: Trained) -> str:
    corpus, company = (
        ", ".join(f"`{c.voice or c.path}`" for c in of) for of in (config.corpus, config.company)
    )
    return TRAINING.format(
        start=f"the model `{Path(config.start).name}`" if config.start else "random weights",
        corpus=f"{texts:,} texts, from {corpus}",
        company=company or "none",
        tokens=trained.tokens,
        learned=trained.learned,
        loss=trained.loss,
        steps=config.training.steps,
        seed=config.seed,
        threads=config.threads,
    )


def _figures(config: PretrainConfig, figures: Mapping[str, Figures]) -> str:
    if not figures:
        return ""
    head = FIGURES.format(**config.check.model_dump(), names=" | ".join(figures), rules="---|" * len(figures))
    rows = {
        "texts": [f"{f.texts}" for f in figures.values()],
        "closes its quote": [f"{f.closed:.1%}" for f in figures.values()],
        "different texts": [f"{f.distinct:.1%}" for f in figures.values()],
        "carries the label asked for": [f"{f.agrees:.1%}" for f in figures.values()],
        "content words found in its shots": [f"{f.follows:.1%}" for f in figures.values()],
        "the same, in another prompt's shots": [f"{f.by_chance:.1%}" for f in figures.values()],
        "copies a shot": [f"{f.copied:.1%}" for f in figures.values()],
    }
    table = "".join(f"| {name} | {' | '.join(cells)} |\n" for name, cells in rows.items())
    texts = "".join(
        f"* {label}, {name}: {text}\n" for name, f in figures.items() for text, label in f.samples[:3]
    )
    return f"{head}{table}\n{texts}"
