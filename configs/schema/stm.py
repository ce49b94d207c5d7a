"""Small task models (STMs): what is trained on synthetic data.

Three kinds of classifiers behind one interface, told apart by `kind`: `linear` (word n-grams, seconds on one
core), `full` (a fine-tuned transformer) and `head` (logistic regression on a frozen encoder's vectors). Tasks
of the kind span have one of their own, `span` (a fine-tuned transformer that finds answers).
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from configs.schema.base import Strict


class LinearStm(Strict):
    """TF-IDF over word n-grams and L2-regularised logistic regression."""

    num_gpus: ClassVar[float] = 0.0
    accelerator_type: ClassVar[str | None] = None

    kind: Literal["linear"] = "linear"
    ngrams: tuple[PositiveInt, PositiveInt] = (1, 2)
    """Shortest and longest n-gram, in words."""
    min_count: PositiveInt = 2
    """An n-gram must occur in this many training texts."""
    max_features: PositiveInt | None = None
    """Keep only the most frequent n-grams; null keeps all."""
    sublinear: bool = True
    """Count a word that occurs f times as 1 + ln f."""
    c: PositiveFloat = 10.0
    """Inverse regularisation: minimises c * sum(w_i * loss_i) + ||W||^2 / 2. Keep it high under SWA: at 2 or
    less the model is too stiff to fit its minority, and SWA weighs that away until one class is left."""
    max_iter: PositiveInt = 200
    """Limit of L-BFGS iterations."""
    num_cpus: float = Field(1.0, ge=0)
    """CPUs that Ray reserves for one training."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.ngrams[0] > self.ngrams[1]:
            raise ValueError("ngrams: the shortest n-gram comes first, e.g. [1, 2]")
        return self


class FullStm(Strict):
    """A fine-tuned Hugging Face sequence classifier."""

    kind: Literal["full"] = "full"
    model: str | None = None
    """Local folder or hub id; null is the MiniLM-L6 that is installed with the package."""
    epochs: PositiveInt = 3
    """Passes over the training texts (E2). Give 1 for MiniLM-L6: a second pass learns the wrong labels among
    synthetic texts, which shows on held-out ones (cross-entropy .357, then .377) and on real reviews."""
    learning_rate: PositiveFloat = 2e-5
    """Constant step size of Adam. 2e-5 suits BERT-like checkpoints, MiniLM-L6 too: 5e-5 and 1e-4 with warm-up
    and decay fitted held-out synthetic texts no better and real reviews worse."""
    batch_size: PositiveInt = 16
    """Texts per training step."""
    layers: NonNegativeInt | None = None
    """How many of the last blocks are trained with the head; null trains everything, 0 the head alone."""
    dropout: bool = False
    """Train with the checkpoint's dropout, which costs a quarter of the time on CPUs."""
    max_length: PositiveInt = 128
    """Tokens of a training text that are read; the rest is cut."""
    eval_max_length: PositiveInt | None = None
    """Tokens that are read when predicting; null is `max_length`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; weights stay float32. auto is bfloat16 where hardware has it."""
    num_cpus: float = Field(1.0, ge=0)
    """CPUs that Ray reserves for one training."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs that Ray reserves for one training; fractions share one."""
    accelerator_type: str | None = None
    """GPU model that Ray must find, e.g. A100."""


class HeadStm(Strict):
    """Logistic regression on mean-pooled vectors of a frozen encoder. For topics and for speed."""

    kind: Literal["head"] = "head"
    encoder: str | None = None
    """Local folder or hub id; null is the MiniLM-L6 that is installed with the package."""
    layer: int = -1
    """Hidden layer that is pooled: 0 is the embedding layer, -1 the last one."""
    pooling: Literal["mean", "first"] = "mean"
    """Average of the tokens, or the first token."""
    max_length: PositiveInt = 256
    """Tokens of a text that are read; the rest is cut."""
    batch_size: PositiveInt = 64
    """Texts per forward pass."""
    c: PositiveFloat = 1.0
    """Inverse regularisation: minimises c * sum(w_i * loss_i) + ||W||^2 / 2."""
    max_iter: PositiveInt = 500
    """Limit of L-BFGS iterations."""
    num_cpus: float = Field(1.0, ge=0)
    """CPUs that Ray reserves for one training or encoder."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs that Ray reserves for one encoder; fractions share one."""
    accelerator_type: str | None = None
    """GPU model that Ray must find, e.g. A100."""


class SpanStm(Strict):
    """A fine-tuned Hugging Face model that finds the phrase of a context that answers a question."""

    kind: Literal["span"] = "span"
    model: str | None = None
    """Local folder or hub id; null is the MiniLM-L6 that is installed with the package."""
    epochs: PositiveInt = 3
    """Passes over the training samples (E2)."""
    learning_rate: PositiveFloat = 5e-5
    """Constant step size of Adam."""
    batch_size: PositiveInt = 16
    """Samples per training step."""
    layers: NonNegativeInt | None = None
    """How many of the last blocks are trained with the head; null trains everything, 0 the head alone."""
    dropout: bool = False
    """Train with the checkpoint's dropout, which costs a quarter of the time on CPUs."""
    max_length: int = Field(384, ge=16)
    """Tokens of a window: the question, of which a quarter of this is read, and a piece of the context."""
    stride: int = Field(128, ge=0)
    """Tokens of the context that a window shares with the next one; at most half of `max_length`."""
    max_answer: PositiveInt = 30
    """Tokens of the longest answer that is predicted."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; weights stay float32. auto is bfloat16 where hardware has it."""
    num_cpus: float = Field(1.0, ge=0)
    """CPUs that Ray reserves for one training."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs that Ray reserves for one training; fractions share one."""
    accelerator_type: str | None = None
    """GPU model that Ray must find, e.g. A100."""

    @model_validator(mode="after")
    def _moving_on(self) -> Self:
        if self.stride > self.max_length // 2:
            raise ValueError(f"stride ({self.stride}) must not exceed half of max_length ({self.max_length})")
        return self


StmSpec = Annotated[LinearStm | FullStm | HeadStm | SpanStm, Field(discriminator="kind")]
