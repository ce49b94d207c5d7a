"""The pretrain job: train a tiny Llama from scratch on labelled texts, in the forms of a task's prompts."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from configs.schema.base import RESOURCE, Strict
from configs.schema.task import Task


class Corpus(Strict):
    """Labelled texts: written by a voice (a grammar), or read from files."""

    voice: str | None = None
    """A grammar (see `jobs/pretraining/grammar.py`) to write with."""
    count: int = Field(default=20_000, ge=1)
    """How many different texts the voice writes."""
    seed: int = Field(default=0, ge=0)
    """Seed of the voice."""
    alike: int = Field(default=1, ge=1)
    """How many texts of the voice in a row share a theme: they speak of the same few things."""
    path: str | None = None
    """A `.jsonl`, `.jsonl.gz` or `.parquet` file, or a folder of them, instead of `voice`."""
    text: str = "text"
    """Column of the text."""
    label: str = "label_name"
    """Column of the label's name."""
    where: dict[str, str] = Field(default={})
    """Read only rows in which these columns have these values."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.voice is None) == (self.path is None):
            raise ValueError("give either voice (a grammar) or path (a file or folder)")
        return self


class Shape(Strict):
    """Size of the Llama and of its vocabulary."""

    vocabulary: int = Field(default=2048, ge=300)
    """Tokens of the byte-level BPE tokenizer, its 256 bytes and two special tokens among them."""
    hidden: int = Field(default=256, ge=8)
    """Width."""
    intermediate: int = Field(default=640, ge=8)
    """Width inside the feed-forward blocks."""
    layers: int = Field(default=4, ge=1)
    """Number of blocks."""
    heads: int = Field(default=4, ge=1)
    """Attention heads; divides `hidden` into even parts."""
    positions: int = Field(default=1024, ge=64)
    """Longest prompt and text together, in tokens."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden ({self.hidden}) must be an even multiple of heads ({self.heads})")
        return self


class Windows(Strict):
    """What a training window looks like: a prompt of the task and a text of the label that it asks for."""

    feedback: float = Field(default=0.4, ge=0, le=1)
    """Share of windows in the form of the feedback prompt; the others have the zero-shot form."""
    shots: int = Field(default=8, ge=1)
    """Most shots in a window; fewer are drawn more often."""
    similar: float = Field(default=0.7, ge=0, le=1)
    """Share of feedback windows whose shots resemble the text; the others' are drawn at random."""
    foreign: float = Field(default=0.3, ge=0, le=1)
    """Share of shots taken from `company`, where there is one."""
    learn_shots: bool = True
    """Whether the author's own texts among the shots are learned too: more to learn from, though only the
    text after the shots says how to follow the label and the shots."""


class Training(Strict):
    """The optimiser: AdamW, linear warm-up, cosine decay to a tenth."""

    steps: int = Field(default=1500, ge=1)
    """Optimiser steps."""
    batch_tokens: int = Field(default=2560, ge=64)
    """Tokens in a batch, padding included; one window may exceed it."""
    lr: float = Field(default=2e-3, gt=0)
    """Highest learning rate."""
    warmup: int = Field(default=60, ge=0)
    """Steps of warm-up."""
    weight_decay: float = Field(default=0.05, ge=0)
    """On matrices only."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the matrix products (autocast); weights and optimiser stay in float32."""


class Check(Strict):
    """How the trained model is sampled for its card."""

    samples: int = Field(default=256, ge=0)
    """Texts for each prompt form; 0 leaves the figures out."""
    max_new_tokens: int = Field(default=96, ge=1)
    """Longest text."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature; also the one stored with the model."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """Nucleus of the sampling; also the one stored with the model."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


class PretrainConfig(Strict):
    """A miniature of an author: a language model of a few million parameters for the prompts of one task."""

    job: Literal["pretrain"] = "pretrain"
    """Which job this file is for."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the model."""
    output: str
    """Folder to create for the model."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random."""
    threads: int = Field(default=1, ge=1)
    """Processor cores; another number may change the last bits of the weights."""
    task: Task
    """Whose prompts the model learns to follow; every label of the corpus has its prompts here."""
    corpus: Annotated[tuple[Corpus, ...], BeforeValidator(_listed)] = Field(min_length=1)
    """What the model learns to write: one corpus, or several mixed."""
    company: tuple[Corpus, ...] = ()
    """Texts of other authors: they appear among the shots, without being learned, in the tokenizer's
    sample and in the training set of the classifier that judges the model's samples."""
    start: str | None = None
    """Folder of a model of this job to start from, with its tokenizer and shape; random weights if empty."""
    shape: Shape = Shape()
    """Size, when there is no `start`."""
    windows: Windows = Windows()
    """Form of the training windows."""
    training: Training = Training()
    """Optimiser."""
    check: Check = Field(default=Check(), json_schema_extra=RESOURCE)
    """Figures for the card."""

    @field_validator("task")
    @classmethod
    def _single(cls, task: Task) -> Task:
        if task.pair:
            raise ValueError("tasks with a given sentence are not available here; corpora have single texts")
        return task
