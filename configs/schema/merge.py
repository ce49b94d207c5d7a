"""Configuration of `jobs merge`: which models become one, on whose data they are measured, and how.

Models are given as checkpoints, or fine-tuned by the job itself, one for each of some domains of `data`.
Only `regmean`, `regmean_pp` and `fisher` need statistics: from texts of a model's own domain, or from Gram
files that the owner of the data has published.
"""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from configs.schema.base import RESOURCE, Strict

Method = Literal["simple", "fisher", "regmean", "regmean_pp", "task_arithmetic", "ties", "dare", "slerp"]
METHODS: tuple[str, ...] = get_args(Method)
RESERVED_DOMAINS = ("in_domain", "held_out", "against_result")
"""Columns of the results that are no domain."""
RESERVED_MODELS = (*METHODS, "ensemble", "own_expert")
"""Rows of the results that are no model of the user's."""
Unit = Annotated[float, Field(ge=0, le=1)]


class DomainData(Strict):
    """Labelled texts of several domains: one file that is cut, or a folder with train, val and test files."""

    path: str = Field(min_length=1)
    """A `.jsonl`, `.jsonl.gz`, `.csv` or `.parquet` file, or a folder with `train`, `test` (and `val`)."""
    domain: str = "domain"
    """Column of the domain."""
    text: str = "text"
    """Column of the text."""
    label: str = "label_name"
    """Column of the label's name."""
    domains: tuple[str, ...] = ()
    """Domains that the job fine-tunes a model for; the largest `count` when empty."""
    count: PositiveInt = 3
    """See `domains`."""
    held_out: tuple[str, ...] = ()
    """Domains that no model has seen, to judge on; the largest `count` of the others when empty."""
    elsewhere: dict[str, str] = Field(default_factory=dict)
    """Further files with texts to judge on, by the names of their domains; they need no column of domains."""
    train_limit: PositiveInt = 600
    """Texts of a domain at most to learn from."""
    test_limit: PositiveInt = 400
    """Texts of a domain at most to judge on."""
    test_share: float = Field(default=0.3, gt=0, lt=1)
    """Share of a single file that is judged on."""


class FineTuning(Strict):
    """How the job trains a model for each domain, all from the same base and the same new head."""

    model: str | None = None
    """Local folder or hub id of the base; null is the MiniLM-L6 that is installed with the package."""
    layers: NonNegativeInt | None = None
    """How many of the last blocks are trained; all of the model when empty, 0 the head alone."""
    epochs: PositiveInt = 3
    """Passes over the training texts."""
    learning_rate: PositiveFloat = 5e-5
    """Constant step size of Adam."""
    batch_size: PositiveInt = 16
    """Texts per training step."""
    max_length: PositiveInt = 128
    """Tokens of a text that are read; the rest is cut."""


class Checkpoint(Strict):
    """A model to be merged."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """What reports call it."""
    model: str = Field(min_length=1)
    """Folder or hub id of a Hugging Face checkpoint with safetensors."""
    revision: str | None = None
    """Commit, tag or branch of the hub model."""
    domain: str | None = None
    """The domain of `data` whose texts its statistics come from."""
    grams: str | None = None
    """Folder of Gram files that another run has collected (its `grams`), instead of a domain."""
    weight: PositiveFloat = 1.0
    """Its share (lambda), before all are divided by their sum."""


class Statistics(Strict):
    """What is collected about a model's inputs."""

    sequences: PositiveInt = 256
    """Texts that are read."""
    max_length: PositiveInt = 128
    """Tokens of a text that are read; the rest is cut."""
    batch_size: PositiveInt = 16
    """Texts per pass."""
    count_padding: bool = False
    """Count padding as inputs, as the reference implementation does."""
    fisher_samples: PositiveInt = 128
    """Texts whose gradients are squared for `fisher`."""


class MergeConfig(Strict):
    """Checkpoints of one architecture become one model."""

    job: Literal["merge"]
    """Which job this file is for."""
    name: str = Field(default="merge", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the run directory under `runs/`, unless `--run` names one."""
    description: str = ""
    """One sentence for the report."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random."""
    data: DomainData | None = None
    """Texts to learn, measure and judge on."""
    models: tuple[Checkpoint, ...] = ()
    """What is merged; models that the job fine-tunes when empty. Of one alone Gram files are collected, for
    others to merge."""
    fine_tuning: FineTuning | None = None
    """How those are trained."""
    base: str | None = None
    """Folder or hub id of the model that all descend from; task arithmetic, TIES and DARE need it."""
    methods: tuple[Method, ...] = Field(default=("simple", "regmean"), min_length=1)
    """How models are merged, each into a checkpoint of its own."""
    result: Method = "regmean"
    """The one that becomes `model/` of the run."""
    alpha: Unit | None = None
    """How much of the features' covariance is kept; .9 for encoders and .1 for decoders when empty."""
    alphas: tuple[Unit, ...] = ()
    """Further values, each a checkpoint `regmean@ALPHA`; nothing is collected anew."""
    overrides: dict[str, Unit] = Field(default_factory=dict)
    """Other values by regular expressions of tensor names, anchored at the start; the first that fits."""
    ridge: NonNegativeFloat = 0.0
    """Share of the mean diagonal that is added to every Gram matrix; pulls towards the average."""
    heads: Literal["names", "positions", "own"] = "names"
    """Which outputs of classification heads are the same: those of one name, those of one number whatever
    their names, or none, so that every model keeps its own head."""
    exclude: tuple[str, ...] = ()
    """Regular expressions of tensors that stay those of the first model."""
    average: tuple[str, ...] = ()
    """Regular expressions of tensors that are averaged, not solved for."""
    scale: PositiveFloat = 0.3
    """Length of the step of task arithmetic."""
    density: float = Field(default=0.2, gt=0, le=1)
    """Share of each task vector that TIES keeps."""
    drop: float = Field(default=0.5, ge=0, lt=1)
    """Share of each task vector that DARE drops."""
    statistics: Statistics = Statistics()
    """What is collected."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Number format of the merged checkpoint; that of the first model when empty."""
    shard_bytes: PositiveInt = 5_000_000_000
    """Size of a file of weights at most."""
    num_cpus: float = Field(default=1, ge=0, json_schema_extra=RESOURCE)
    """CPUs that Ray reserves for the work on one model or layer."""
    num_gpus: float = Field(default=0, ge=0, json_schema_extra=RESOURCE)
    """GPUs that Ray reserves for it; fractions share one."""

    @property
    def merges(self) -> bool:
        """Whether there is more than one model."""
        return len(self.models) != 1

    @property
    def texts(self) -> DomainData | None:
        """`data` with the domains of the models, where models are given; None where no text is needed."""
        own = tuple(dict.fromkeys(model.domain for model in self.models if model.domain is not None))
        if self.data is None or not self.models:
            return self.data
        return self.data.model_copy(update={"domains": own}) if own else None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.models) == (self.fine_tuning is not None):
            raise ValueError(
                "models: give either models, or fine_tuning to train some; not both, not neither"
            )
        if self.fine_tuning is not None and self.data is None:
            raise ValueError("fine_tuning: needs data, the texts of the domains")
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError(f"models: different names are needed, got {', '.join(names)}")
        if not self.merges and (self.methods != ("regmean",) or self.models[0].domain is None):
            raise ValueError(
                "models: one alone is not merged; to collect its Gram files, set methods to [regmean] and "
                "give its domain"
            )
        reserved = [name for name in names if name in RESERVED_MODELS]
        if reserved:
            raise ValueError(f"models: {reserved[0]} is the name of a method or baseline; name it otherwise")
        if self.result not in self.methods:
            raise ValueError(f"result: {self.result} is not among methods ({', '.join(self.methods)})")
        tuned = self.fine_tuning is not None
        if not tuned and self.base is None:
            needy = [name for name in self.methods if name in {"task_arithmetic", "ties", "dare"}]
            if needy:
                raise ValueError(f"base: {needy[0]} needs the model that all descend from")
        if "slerp" in self.methods and len(self.models) != 2 and not (tuned and self._experts() == 2):
            raise ValueError("methods: slerp merges two models, no more and no fewer")
        for model in self.models:
            self._check(model)
        return self

    def _experts(self) -> int:
        assert self.data is not None  # noqa: S101 - checked by the caller
        return len(self.data.domains) or self.data.count

    def _check(self, model: Checkpoint) -> None:
        if model.domain is not None and self.data is None:
            raise ValueError(f"models: {model.name}: domain needs data, the texts of the domains")
        if "regmean" in self.methods and model.domain is None and model.grams is None:
            raise ValueError(f"models: {model.name}: regmean needs a domain of data, or Gram files (grams)")
        needy = [name for name in self.methods if name in {"fisher", "regmean_pp"}]
        if needy and model.domain is None:
            raise ValueError(f"models: {model.name}: {needy[0]} needs a domain of data")
