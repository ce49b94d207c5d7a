"""A task: what a label is called, how a text with that label is asked for, and how an answer is cut.

Tasks that ship lie in `configs/tasks`; a job names one (`task: imdb`), a YAML file, or writes it in place.
The order of the labels is the order of the class ids. Everything that maps labels maps them by name.
"""

from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from configs.schema.base import LATER, Strict


class Source(Strict):
    """A table of texts: a file, or a data set of the Hugging Face hub."""

    path: str | None = None
    """A `.jsonl`, `.jsonl.gz`, `.csv` or `.parquet` file, local or on any storage that pyarrow opens."""
    dataset: str | None = None
    """Hub id of a data set, instead of `path`."""
    subset: str | None = None
    """Configuration of the hub data set."""
    split: str = "test"
    """Split of the hub data set."""
    text: str = "text"
    """Column of the text (of a pair task: of the first sentence; of a span task: of the context)."""
    text_b: str | None = None
    """Column of the second sentence of a pair task, or of the question of a span task."""
    answer: str | None = Field(default=None, json_schema_extra=LATER)
    """Column of the answer of a span task: a text, a list of texts any of which is right, or a record whose
    field `text` is one of these, as in SQuAD. Contexts without it are searched for names, numbers and
    quotations."""
    label: str = "label_name"
    """Column of the label."""
    label_names: dict[str, str] = Field(default_factory=dict)
    """What the values of the label column are called in the task; the values themselves when empty."""
    marked: dict[str, str] = Field(default_factory=dict)
    """Texts that contain a key get its label instead of the one in the column."""
    limit: int | None = Field(default=None, ge=1)
    """Read at most so many rows."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give either path (a file) or dataset (a hub id)")
        return self


class Label(Strict):
    """One class of the task."""

    name: str = Field(min_length=1)
    """The class name, as users and evaluation files write it."""
    zero_shot: str = Field(min_length=1)
    """The prompt that asks for a text of this class; ends in an open double quote. `<C>` stands for a
    context sentence, `<Y>` for the answer found in it."""
    feedback: str = Field(min_length=1)
    """The instruction that follows the shots; ends in an open double quote."""
    required: str | None = None
    """Marker that every text of this class must contain."""
    forbidden: str | None = None
    """Marker that no text of this class may contain."""


class Task(Strict):
    """A task for small models, known by its description only: telling texts apart, or finding answers."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Short name, used in reports and run names."""
    description: str = ""
    """One sentence for the report and the model card."""
    kind: Literal["label", "span"] = Field(default="label", json_schema_extra=LATER)
    """`label`: a text has one of several labels; `span`: a phrase of the context answers the question that
    was written about it."""
    labels: tuple[Label, ...]
    """The classes in the order of their ids, at least two; of a span task one, which holds its prompts."""
    shot_prefix: str
    """What precedes each shot in a feedback prompt."""
    blank_lines: int = Field(default=1, ge=0, le=4)
    """Blank lines between the shots and the instruction (two for pair tasks)."""
    cut: Literal["quote", "question"] = "quote"
    """How an answer is cut: at the closing quote, or after the first question mark."""
    pair: bool = False
    """Whether a sample is a pair: the context sentence and what was written, stored as `first[SEP]second`."""
    contexts: Source | None = None
    """Where the context sentences of a pair task or span task come from."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Class names, by class id."""
        return tuple(label.name for label in self.labels)

    @property
    def named_kind(self) -> dict[str, str]:
        """The kind as steps are told of it: they take a task for one of labels unless something is said."""
        return {} if self.kind == "label" else {"kind": self.kind}

    @property
    def about(self) -> dict[str, Any]:
        """What steps that learn and judge are told of the task."""
        return {"labels": list(self.label_names), **self.named_kind}

    @field_validator("labels")
    @classmethod
    def _as_many_as_the_kind_has(cls, labels: tuple[Label, ...], info: ValidationInfo) -> tuple[Label, ...]:
        if info.data.get("kind") == "span":
            if len(labels) != 1:
                raise ValueError("a span task has one label, which holds its prompts")
        elif len(labels) < 2:
            raise ValueError("at least two labels are needed")
        return labels

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = self.label_names
        if len(set(names)) < len(names):
            raise ValueError(f"labels must have different names, got {', '.join(names)}")
        for label in self.labels:
            for form in ("zero_shot", "feedback"):
                if not getattr(label, form).rstrip(" ").endswith('"'):
                    raise ValueError(
                        f"label {label.name}: the {form} prompt must end in an open double quote"
                    )
        if self.pair != any("<C>" in label.zero_shot for label in self.labels):
            raise ValueError("a pair task has the slot <C> in its prompts, and only a pair task has it")
        if self.pair and self.contexts is None:
            raise ValueError("a pair task needs contexts (where its first sentences come from)")
        if self.kind == "span" and not self.pair:
            raise ValueError("a span task is a pair task: context and question")
        span = self.kind == "span"
        if any(
            ("<Y>" in form) != span for label in self.labels for form in (label.zero_shot, label.feedback)
        ):
            raise ValueError("a span task has the slot <Y> in its prompts, and only a span task has it")
        return self
