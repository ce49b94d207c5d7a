"""The fusion-of-experts job: who answers what at which price, which fusers learn from it, who is compared.

Names follow the papers (Fusion of Experts and FrugalFoE, arXiv 2310.01542): `neighbours` of a fuser is kappa,
`sample` is M, `rates` are values of lambda, the loss that one unit of price must save.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from configs.schema.base import RESOURCE, Strict
from configs.schema.expert import LiveExperts
from configs.schema.stm import HeadStm

Fuser = Literal["knn", "logistic", "mlp", "trees"]


class RecordedExperts(Strict):
    """Outputs that were recorded: a folder with `items.parquet` (a row per item: `item`, and what is known of
    it) and `outputs.parquet` (a row per item and expert: `item`, `expert`, and what it returned).

    Classifiers: `pred`, `confidence`, and `label` of the items. Generators: `correct` or `score` or any one
    column that the configuration names, `response` or `pred` or `answer` where recorded, `text` of the items.
    """

    kind: Literal["recorded"] = "recorded"
    path: str | None = None
    """The folder."""
    names: tuple[str, ...] = ()
    """Experts to use, in this order; all when empty, in their order in the file."""
    quality: str | None = None
    """Column of `outputs.parquet` that says how good a response is, from 0 to 1; found by itself when empty:
    `score`, `correct`, or the only column whose name begins with `win_`."""


class DigitsExperts(Strict):
    """Ten experts that are trained on the spot, on the handwritten digits that come with scikit-learn; expert
    k knows the digits k, k + 1, … k + `known` - 1 (mod 10)."""

    kind: Literal["digits"] = "digits"
    known: int = Field(default=4, ge=2, le=10)
    """Digits that an expert knows."""


Experts = Annotated[RecordedExperts | DigitsExperts | LiveExperts, Field(discriminator="kind")]


class Split(Strict):
    """Which items the fusers learn from, and which they are judged on."""

    column: str | None = None
    """Column of the items that says so; a random half of the items each when empty."""
    fit: tuple[str, ...] = ("train", "validation")
    """Values of the column whose items are learnt from."""
    test: tuple[str, ...] = ("test",)
    """Values of the column whose items are judged."""
    share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the items that a random split learns from."""
    max_stored: int = Field(default=10_000, ge=10)
    """Items at most that policies store: a random choice of those that are learnt from."""
    limit: PositiveInt | None = None
    """Use at most so many items, drawn at random."""


class Features(Strict):
    """What fusers see of an item."""

    vectors: Literal["spread", "one_hot"] = "spread"
    """How a label and its confidence become a vector: the rest shared by the other labels, or 0 there."""
    prompt: bool = True
    """Routing among generators, and live experts: a vector of the item's text, which costs nothing."""
    responses: bool = True
    """Routing among generators: what an expert answered, as a vector of its text, or by its short answer."""
    encoder: HeadStm = HeadStm(max_length=64)
    """The model that turns texts into vectors."""
    dimensions: PositiveInt = 32
    """Principal components that are kept of a text's vector."""


class Policy(Strict):
    """How the experts are asked one after another."""

    fusers: tuple[Fuser, ...] | None = None
    """Fusers that a frugal policy is built on; each is a curve of the report. By default nearest neighbours,
    and with up to six experts `trees` too."""
    neighbours: PositiveInt | Literal["auto"] = "auto"
    """Neighbours of the nearest-neighbour fuser (kappa); auto takes the best of 5, 9, 15, 25, 51 on stored
    items that are left out."""
    sample: PositiveInt | Literal["auto"] = "auto"
    """Stored items that an expected loss is estimated from (M); auto is twice `neighbours`, 30 at least."""
    loss: Literal["zero_one", "soft"] = "soft"
    """Loss of a label: right or wrong, or the share of the votes for others."""
    start: Literal["rollout", "mean_loss"] = "rollout"
    """How the first expert is chosen: by walking over stored items from each of the six that are best
    by eq. 4.3, or by that equation alone."""
    compat: Literal["reference"] | None = None
    """`reference` decides as the authors' code does, its faults included."""
    shortlist: PositiveInt | None = 8
    """Routing among generators: the policies know at most so many experts, those that would serve an oracle
    best on the items that are learnt from; null: all."""
    min_experts: PositiveInt = 1
    """Experts that are asked at least."""
    max_experts: PositiveInt | None = None
    """Experts that are asked at most."""
    lookahead: PositiveInt = 1
    """How many further experts a decision looks ahead."""
    budget: PositiveFloat | None = None
    """What a request may cost at most."""
    rates: tuple[NonNegativeFloat, ...] | None = Field(default=None, min_length=1)
    """Rates (lambda) whose points make the curve; twenty-three by default, spread over what prices allow."""
    eager_depth: int = Field(default=3, ge=1)
    """Subsets of up to so many experts have their tables computed beforehand, where there are at most
    `eager_tables` of them."""
    eager_tables: PositiveInt = 2000
    """See `eager_depth`."""


class Unseen(Strict):
    """The test of the unseen-domain score: what is left out of the stored items and must be noticed."""

    column: str | None = None
    """Column of the items; `domain` where there is one, else `label`."""
    values: tuple[str, ...] = ()
    """Values that are left out; the last one or, of many, the last sixth, when empty."""


class FoeConfig(Strict):
    """Several experts answer the same items; fusers and policies learn whom to trust, and whom to ask."""

    job: Literal["foe"]
    """Which job this file is for."""
    name: str = Field(default="foe", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the run directory under `runs/`, unless `--run` names one."""
    description: str = ""
    """One sentence for the report."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random."""
    answer: Literal["label", "expert"] = "label"
    """What is decided: a label, or whose response is given."""
    experts: Experts
    """The experts and the items."""
    prices: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Price of a call by expert, in `unit`; what is recorded, or 1, where absent."""
    unit: str | None = None
    """What prices are counted in; `$ per 10,000 requests` where they are recorded so."""
    cost_column: str | None = None
    """Column of `experts.csv` in the folder that stands for prices where none are recorded."""
    own_domains: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Which values of the items' `domain` each expert was trained on; for the oracle and for warnings."""
    in_sample: bool = False
    """Whether experts were trained on items that fusers learn from; silences the warning about it."""
    split: Split = Split()
    """Which items are learnt from."""
    features: Features = Features()
    """What fusers see."""
    fusers: tuple[Fuser, ...] | None = Field(default=None, min_length=1)
    """Fusers of all experts' outputs; all kinds by default."""
    policy: Policy = Policy()
    """How experts are asked one after another."""
    unseen: Unseen = Unseen()
    """The test of the unseen-domain score."""
    num_cpus: float = Field(default=1, ge=0, json_schema_extra=RESOURCE)
    """CPUs that Ray reserves for the training of one fuser."""
    max_cost: PositiveFloat | None = Field(default=None, json_schema_extra=RESOURCE)
    """What live experts' answers may cost, by their prices, those taken over from another run included; then
    the run stops, and goes on once it is raised."""
    max_tokens: PositiveInt | None = Field(default=None, json_schema_extra=RESOURCE)
    """How many tokens live experts may read and write; then the run stops, and goes on once it is raised."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.answer == "expert" and self.experts.kind == "digits":
            raise ValueError("answer: the experts on digits give labels; allowed: label")
        for kind, chosen in (("fusers", self.fusers), ("policy.fusers", self.policy.fusers)):
            trained = [name for name in chosen or () if self.answer == "expert" and name == "mlp"]
            if trained:
                raise ValueError(f"{kind}: mlp predicts labels only; allowed: knn, logistic, trees")
        if isinstance(self.experts, LiveExperts):
            self._check_live(self.experts)
        elif self.max_cost or self.max_tokens:
            raise ValueError("max_cost, max_tokens: belong to live experts; others are not asked anything")
        return self

    def _check_live(self, experts: LiveExperts) -> None:
        if self.cost_column:
            raise ValueError("cost_column: belongs to recorded experts; live ones have price_per_call")
        unknown = [name for name in self.prices if name not in experts.names]
        if unknown:
            raise ValueError(f"prices: no expert {unknown[0]!r}; there are {', '.join(experts.names)}")
        free = [e.name for e in experts.pool if not e.priced and e.name not in self.prices]
        if self.max_cost and free:
            raise ValueError(
                f"max_cost: expert {free[0]} has no price; give it price_per_call, or max_tokens"
            )
        if free and len(free) < len(experts.pool):
            raise ValueError(f"experts.pool: {free[0]} has no price, others have one; give it price_per_call")
        if self.answer == "label":
            others = [e.name for e in experts.pool if not e.judges_labels]
            if others:
                raise ValueError(
                    f"experts.pool: {others[0]} does not answer with labels; allowed for answer: label are "
                    "classifiers, and generators with judge: label"
                )

    def fuser_kinds(self) -> tuple[Fuser, ...]:
        """The fusers of all outputs."""
        every: tuple[Fuser, ...] = ("knn", "logistic", "mlp", "trees")
        labels = self.answer == "label"
        return self.fusers or (every if labels else tuple(k for k in every if k != "mlp"))

    def policy_kinds(self, experts: int) -> tuple[Fuser, ...]:
        """The fusers that policies are built on, for so many experts."""
        if self.answer == "expert":
            return self.policy.fusers or ("knn", "logistic")
        return self.policy.fusers or (("knn", "trees") if experts <= 6 else ("knn",))


def rates(largest_price: float) -> tuple[float, ...]:
    """Twenty-three rates: at the first any gain is worth any price, at the last none is worth the dearest."""
    if largest_price <= 0:
        return (0.0,)
    steps: tuple[Any, ...] = (0, *(0.002 * 1.38**step for step in range(21)), 10)
    return tuple(float(f"{step / largest_price:.4g}") for step in steps)
