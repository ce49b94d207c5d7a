"""Configuration of `jobs compare`: one set of models, fused through data, outputs and weights.

What is written, filtered and fed back is configured as for `jobs fusegen`. Each PLM's samples train a small
task model (STM) of its own, all from the same start: these are the experts that are routed among and the
checkpoints that are merged.
"""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from configs.schema.base import Strict
from configs.schema.foe import FoeConfig, Fuser, Policy, RecordedExperts, Unseen
from configs.schema.fusegen import FusegenConfig
from configs.schema.merge import DomainData, FineTuning, MergeConfig, Method, Statistics, Unit
from configs.schema.stm import FullStm, LinearStm
from configs.schema.task import Source, Task

FUSIONS = ("fusegen", "foe", "frugal", "regmean", "ensemble", "best_single", "pooled")
"""What is compared in every run, beside the rivals of `merging.methods`."""
EVAL, FUSING = "eval", "fusing"
"""Names of the texts that are judged on, and of those that fusers learn from."""
POLICIES: tuple[Fuser, ...] = ("knn", "logistic")
"""Fusers that policies are built on, where the configuration does not say."""


class ComparedStms(Strict):
    """The small task models: one kind for the rounds, and a transformer for everything that is compared."""

    rounds: LinearStm | FullStm = Field(default=LinearStm(), discriminator="kind")
    """Model that scores samples in each round, and judges them for weighting."""
    final: FullStm = FullStm(epochs=1)
    """Model that is trained on each PLM's samples, on all, and on FuseGen's weighted set."""


class Routing(Strict):
    """How fusers learn whom to trust."""

    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of each PLM's samples that its STM does not see; fusers learn from what all STMs answer about
    them, unless `items` is given."""
    items: Source | None = None
    """Labelled texts that fusers learn from instead, none of which may be judged on; STMs then see all."""
    fusers: tuple[Fuser, ...] = Field(default=("knn", "logistic", "mlp", "trees"), min_length=1)
    """Further fusers of all STMs' answers, for the report."""
    policy: Policy = Policy()
    """How STMs are asked one after another; its `fusers` are knn and logistic by default."""


class Merging(Strict):
    """How the STMs become one."""

    methods: tuple[Method, ...] = ("regmean", "simple", "fisher", "task_arithmetic", "ties", "dare")
    """RegMean, and its rivals."""
    alpha: Unit | None = None
    """How much of the features' covariance RegMean keeps; .9 for encoders when empty."""
    scale: PositiveFloat = 0.3
    """Length of the step of task arithmetic."""
    density: float = Field(default=0.2, gt=0, le=1)
    """Share of each task vector that TIES keeps."""
    drop: float = Field(default=0.5, ge=0, lt=1)
    """Share of each task vector that DARE drops."""
    statistics: Statistics = Statistics()
    """What is collected about each STM's inputs, from its own samples."""


class Requests(Strict):
    """What serving costs."""

    price_per_call: NonNegativeFloat | None = None
    """Price of asking one model once; where empty, the seconds that it takes are the price."""
    unit: str | None = None
    """What the price is counted in."""
    timed: PositiveInt = 48
    """Requests that are timed one at a time, for latencies and seconds."""


class CompareConfig(FusegenConfig):
    """The same models fused in three ways, beside pooling, ensembling and the best single one."""

    job: Literal["compare"]  # type: ignore[assignment]
    """Which job this file is for."""
    name: str = Field(default="compare", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the run directory under `runs/`, unless `--run` names one."""
    description: str = ""
    """One sentence for the report."""
    stm: ComparedStms = ComparedStms()  # type: ignore[assignment]
    """What is trained."""
    experts: dict[str, str] = Field(default_factory=dict)
    """Checkpoints that are there already, by the PLM on whose samples they would be trained: folders or hub
    ids of classifiers with the labels of the task in its order, all of the architecture of `stm.final`."""
    routing: Routing = Routing()
    """How their outputs are fused."""
    merging: Merging = Merging()
    """How their weights are merged."""
    requests: Requests = Requests()
    """What serving costs."""
    eval: Source
    """Real labelled texts, which everything is judged on; read only after all training."""
    elsewhere: dict[str, Source] = Field(default_factory=dict)
    """Further labelled texts with the same labels, of other domains, by name."""

    @field_validator("task")
    @classmethod
    def _labels(cls, task: Task) -> Task:
        if task.kind == "span":
            raise ValueError("span tasks are not available here; only classifiers are compared")
        return task

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        names = [plm.name for plm in self.plms]
        if len(names) < 2:
            raise ValueError("plms: two at least, or there is nothing to fuse")
        if len(self.variant) > 1:
            raise ValueError("variant: one, the others are compared by `jobs fusegen`")
        if "baselines" in self.model_fields_set:
            raise ValueError("baselines: belongs to `jobs fusegen`; here every rival is trained as stm.final")
        if "regmean" not in self.merging.methods:
            raise ValueError("merging.methods: regmean is missing, it is what its rivals are compared with")
        if "slerp" in self.merging.methods and len(names) != 2:
            raise ValueError("merging.methods: slerp merges two models, no more and no fewer")
        taken = [name for name in self.elsewhere if name in {EVAL, FUSING, *FUSIONS}]
        if taken:
            raise ValueError(f"elsewhere: {taken[0]} is a name of ours; call these texts otherwise")
        unknown = [name for name in self.experts if name not in names]
        if unknown:
            raise ValueError(f"experts: no PLM {unknown[0]!r}; there are {', '.join(names)}")
        return self

    def foe(self) -> FoeConfig:
        """How the STMs' answers are fused, as `jobs foe` is told; their answers are given to it."""
        policy, kinds = self.routing.policy, self.routing.policy.fusers or POLICIES
        return FoeConfig(
            job="foe",
            name=self.name,
            seed=self.seed,
            experts=RecordedExperts(),
            fusers=tuple(dict.fromkeys((*kinds, *self.routing.fusers))),
            policy=policy.model_copy(update={"fusers": kinds}),
            unseen=Unseen(column="label"),
        )

    def merge(self) -> MergeConfig:
        """How the STMs' weights are merged, as `jobs merge` is told; models and texts are given to it."""
        final, merging = self.stm.final, self.merging
        return MergeConfig(
            job="merge",
            name=self.name,
            seed=self.seed,
            data=DomainData(path="given", count=len(self.plms)),
            fine_tuning=FineTuning(model=final.model),
            num_cpus=final.num_cpus,
            num_gpus=final.num_gpus,
            **{name: getattr(merging, name) for name in type(merging).model_fields},
        )

    @property
    def sets(self) -> dict[str, Source]:
        """What is judged on, by name; the first counts."""
        return {EVAL: self.eval, **self.elsewhere}
