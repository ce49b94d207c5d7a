"""The FuseGen job: which models write, how much, what is fed back, how samples are weighted, what is trained.

Field names follow the paper (arXiv 2406.12527) where it has one: `candidates` is R, `shots` is S, `rounds`
is J, `alpha` is the share of high-variability candidates, `iterations` of `weights` is E1.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from configs.schema.base import LATER, RESOURCE, Strict
from configs.schema.plm import PlmSpec
from configs.schema.stm import FullStm, LinearStm, StmSpec
from configs.schema.task import Source, Task

Variant = Literal[
    "fusegen",
    "zerogen",
    "sungen",
    "progen",
    "sdg_plus",
    "no_swa",
    "no_cdg",
    "no_influence",
    "no_variability",
    "random_shots",
    "easy_only",
    "ambiguous_only",
    "self_selected",
    "personalised",
]

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "fusegen": {},
    "zerogen": {"selection": {"feedback": "none"}, "weights": {"kind": "uniform"}},
    "sungen": {"selection": {"feedback": "none"}, "weights": {"kind": "sungen"}},
    "progen": {"selection": {"feedback": "progen", "pool": "random"}, "weights": {"kind": "uniform"}},
    "sdg_plus": {"selection": {"feedback": "self", "pool": "random"}, "weights": {"kind": "swa"}},
    "no_swa": {"weights": {"kind": "uniform"}},
    "no_cdg": {"selection": {"feedback": "none"}, "weights": {"kind": "swa"}},
    "no_influence": {"selection": {"pick": "random"}},
    "no_variability": {"selection": {"pool": "random"}},
    "random_shots": {"selection": {"pool": "random", "pick": "random"}},
    "easy_only": {"selection": {"alpha": 0.0}},
    "ambiguous_only": {"selection": {"alpha": 1.0}},
    "self_selected": {"selection": {"feedback": "self"}},
    "personalised": {"selection": {"feedback": "personalised"}},
}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "fixed": {},
    "paper": {
        "selection": {"balance": "none"},
        "filter": {"word_count": "fields", "placeholders": False, "refusals": False, "copies": False,
                   "echoes": False, "duplicates": "off"},
        "samples": {"quota": "plm"},
    },
    "authors": {
        "filter": {"word_count": "fields", "placeholders": False, "refusals": False, "copies": False,
                   "echoes": False, "duplicates": "off"},
        "samples": {"quota": "plm", "exact_end": False},
        "selection": {"balance": "none", "sign": "harmful", "freeze_shots": True},
        "weights": {"beta": "authors"},
    },
}  # fmt: skip


class Generations(Strict):
    """Defaults for every PLM of the job whose engine is `recorded`."""

    path: str
    """File of recorded generations."""
    mode: Literal["exact", "pool"] = "exact"
    """`exact`: round r returns the rows of round r; `pool`: draws without replacement."""
    writer: str = "plm"
    """Column that names the PLM."""
    split: str | None = None
    """Value of the column `split` to use; all rows when empty."""
    zero_shot_split: str | None = None
    """Split that continues the zero-shot texts beyond round 0."""
    seed: int | None = None
    """Value of the column `seed` to use; in exact mode the seed of the job when empty."""


class Samples(Strict):
    """How many samples are written, and when."""

    per_plm: int = Field(default=1000, ge=1)
    """N: samples that each PLM ends with."""
    initial: int = Field(default=200, ge=1)
    """Samples of the zero-shot round, of each PLM."""
    rounds: int = Field(default=4, ge=0, le=100)
    """J: rounds of feedback after the zero-shot round."""
    quota: Literal["label", "plm"] = "label"
    """`label`: equally many samples of each label; `plm`: only the sum per PLM counts."""
    exact_end: bool = True
    """End at exactly `per_plm`; the authors' code loses the remainder of the division by J."""
    oversample: float = Field(default=1.2, ge=1)
    """Requests sent at first, as a multiple of the samples wanted; later requests follow the yield seen."""
    max_attempts: float = Field(default=4, ge=1)
    """Requests allowed in all, as a multiple of the samples wanted; a shortfall is reported."""

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.initial > self.per_plm:
            raise ValueError(f"initial ({self.initial}) must not exceed per_plm ({self.per_plm})")
        return self


class FilterRules(Strict):
    """Which texts are rejected; each rule has its own counter in the report."""

    min_words: int = Field(default=10, ge=1)
    """Shortest text, in words."""
    word_count: Literal["words", "fields"] = "words"
    """`fields` counts as the authors do: pieces between single spaces."""
    placeholders: bool = True
    """Reject unfilled slots such as `<C>`."""
    refusals: bool = True
    """Reject texts in which a chat model refuses or speaks of itself."""
    echoes: bool = True
    """Reject texts that repeat the prompt's own wording."""
    copies: bool = True
    """Reject copies of a shot."""
    copy_overlap: float = Field(default=0.8, gt=0, le=1)
    """Share of a text's word triples found in one shot from which it counts as a copy."""
    duplicates: Literal["off", "exact", "near"] = "near"
    """Reject texts already accepted, from any PLM; `near` also those that differ in few words."""
    near_threshold: float = Field(default=0.8, gt=0, le=1)
    """Similarity (Jaccard index of word triples) from which two texts count as near-duplicates."""


class Selection(Strict):
    """Which samples are fed back as shots."""

    feedback: Literal["none", "self", "cross", "personalised", "progen"] = "cross"
    """`cross`: the same shots for all PLMs, chosen from all; `self`: each PLM's own; `personalised`: for each
    PLM what the others know and it does not; `progen`: own shots of the label asked for; `none`: no shots."""
    pool: Literal["variability", "random"] = "variability"
    """How the candidates are chosen."""
    candidates: int = Field(default=40, ge=1)
    """R: number of candidates."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Share of candidates on which the PLMs' models disagree most; the rest are those they agree on most."""
    confidence_margin: float | None = Field(default=None, ge=0, lt=1)
    """When given, candidates of low variability need a mean confidence above 1/C plus this."""
    balance: Literal["none", "label", "plm_and_label"] = "label"
    """Take candidates and shots from all labels (or all pairs of PLM and label) in turn: influence alone
    tends to choose the texts of one label."""
    pick: Literal["influence", "random"] = "influence"
    """How the shots are chosen among the candidates."""
    influence: Literal["last_layer", "last_layer_hessian", "gradient_dot", "lissa", "tracin"] = "last_layer"
    """How influence on the validation loss is computed."""
    sign: Literal["helpful", "harmful"] = "helpful"
    """`harmful` takes the largest scores, as the authors' code does."""
    shots: int = Field(default=8, ge=1)
    """S: shots in a feedback prompt."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of each PLM's samples that its model does not train on."""
    freeze_shots: bool = False
    """Keep the shots of the first selection in all rounds, as the released runs did."""

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.shots > self.candidates:
            raise ValueError(f"shots ({self.shots}) must not exceed candidates ({self.candidates})")
        return self


class Search(Strict):
    """Settings of `selection`, and numbers of rounds, that are tried before the job goes on with the best.
    Texts that others write cost too, and are not used. A list that is empty leaves the setting as it is."""

    candidates: tuple[PositiveInt, ...] = (10, 20, 40, 80)
    """Values of R."""
    shots: tuple[PositiveInt, ...] = (2, 4, 8, 16)
    """Values of S; only up to R."""
    alpha: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Values of alpha."""
    trials: int = Field(default=8, ge=2)
    """How many combinations are tried, drawn by the seed; the settings of `selection` are one of them."""
    rounds: tuple[Annotated[int, Field(ge=1, le=100)], ...] = (2, 4, 8)
    """Values of J, tried with the best of the combinations; each writes as many texts as the job."""


class Weights(Strict):
    """How the samples are weighted for the final model."""

    kind: Literal["uniform", "swa", "sungen"] = "swa"
    """`swa`: self-boosting weight adjustment of FuseGen; `sungen`: bi-level re-weighting of SunGen."""
    iterations: int = Field(default=30, ge=1)
    """E1: outer iterations."""
    beta: Literal["paper", "authors"] = "paper"
    """Rule for the factor by which wrong samples shrink."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many iterations without a rise in the share of samples judged right."""


class Stms(Strict):
    """The small task models: one kind for the rounds (and for weighting), one for the result."""

    rounds: StmSpec = LinearStm()
    """Model that scores samples in each round, judges them for weighting, and serves the baselines. Where
    PLMs have GPUs, `full` with a GPU is the default, for the result too; of span tasks, `span` is."""
    final: StmSpec = FullStm()
    """Model that is trained on the finished data set and published."""


class Baselines(Strict):
    """What the result is compared with; all share the generations of the job."""

    plms: bool = True
    """One model per PLM, on its own samples."""
    union: bool = True
    """One model on all samples with equal weights, and one with the weights of the job."""
    scaling: bool = Field(default=False, json_schema_extra=LATER)
    """How accuracy grows from one PLM to all, each time with the PLM whose texts help most; no test label
    decides that. Takes K (K + 5) / 2 more models of the kind of the rounds."""
    stm: Literal["rounds", "final"] = "rounds"
    """Kind of model that the baselines use."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class FusegenConfig(Strict):
    """Several language models write a labelled data set together; a small classifier is trained on it."""

    job: Literal["fusegen"] = "fusegen"
    """Which job this file is for."""
    name: str = Field(default="fusegen", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the run directory under `runs/`, unless `--run` names one."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random."""
    preset: Literal["fixed", "paper", "authors"] = "fixed"
    """`fixed`: the method with its known faults mended; `paper`: its formulas; `authors`: their code."""
    variant: Annotated[tuple[Variant, ...], BeforeValidator(_listed)] = Field(
        default=("fusegen",), min_length=1
    )
    """The method, its ablations and rivals; the first is the result, the others are compared with it."""
    task: Task
    """The task."""
    plms: tuple[PlmSpec, ...] = Field(min_length=1)
    """The language models that write."""
    generations: Generations | None = None
    """Defaults for recorded PLMs."""
    samples: Samples = Samples()
    """How much is written."""
    filter: FilterRules = FilterRules()
    """What is rejected."""
    selection: Selection = Selection()
    """What is fed back."""
    search: Search | None = Field(default=None, json_schema_extra=LATER)
    """How settings of `selection` are chosen by the texts that they lead to, without test labels."""
    weights: Weights = Weights()
    """How samples are weighted."""
    stm: Stms = Stms()
    """What is trained."""
    baselines: Baselines = Baselines()
    """What the result is compared with."""
    eval: Source | None = None
    """Real labelled texts; read only after the last round."""
    max_cost: PositiveFloat | None = Field(default=None, json_schema_extra=RESOURCE)
    """What the texts may cost, by `price_per_million_tokens`; then the run stops, and goes on once it is
    raised."""
    max_tokens: PositiveInt | None = Field(default=None, json_schema_extra=RESOURCE)
    """How many tokens may be read and written; then the run stops, and goes on once it is raised."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:  # noqa: ANN401
        if not isinstance(data, dict):
            return data
        data = _under(data, PRESETS.get(str(data.get("preset", "fixed")), {}))
        return _with_span_models(_with_gpus(_with_generations(data)))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [plm.name for plm in self.plms]
        if len(set(names)) < len(names):
            raise ValueError(f"plms must have different names, got {', '.join(names)}")
        for plm in self.plms:
            if plm.engine.kind == "recorded" and plm.engine.path is None:
                raise ValueError(
                    f"plm {plm.name}: its recorded engine needs a path, or give generations.path"
                )
        if len(set(self.variant)) < len(self.variant):
            raise ValueError("variant names each method once")
        fed = self.as_variant(self.variant[0]).selection.feedback != "none" and self.samples.rounds
        if self.search and not fed:
            raise ValueError("search: there is no feedback whose settings could be tried")
        replayed = [
            plm.name for plm in self.plms if plm.engine.kind == "recorded" and plm.engine.mode == "exact"
        ]
        if self.search and self.search.rounds and replayed:
            raise ValueError(
                f"search.rounds: the rounds of {', '.join(replayed)} are recorded as they were; give [], or "
                "generations.mode: pool"
            )
        for fault in _faults_of_kind(self):
            raise ValueError(fault)
        if self.max_cost and not any(plm.price_per_million_tokens for plm in self.plms):
            raise ValueError("max_cost: no plm has price_per_million_tokens; give them, or max_tokens")
        return self

    def as_variant(self, name: str) -> "FusegenConfig":
        """The configuration with the switches of a method or ablation of VARIANTS thrown."""
        update = {
            section: getattr(self, section).model_copy(update=switches)
            for section, switches in VARIANTS[name].items()
        }
        return self.model_copy(update={"variant": (name,), **update})


def _under(data: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """What the file says, over the defaults of its preset."""
    merged = dict(defaults)
    for key, value in data.items():
        below = defaults.get(key)
        merged[key] = _under(value, below) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def _with_generations(data: dict[str, Any]) -> dict[str, Any]:
    shared = data.get("generations")
    if not isinstance(shared, dict) or not isinstance(data.get("plms"), (list, tuple)):
        return data
    if shared.get("mode", "exact") == "exact":
        shared = {"seed": data.get("seed", 0), **shared}
    plms = []
    for plm in data["plms"]:
        engine = plm.get("engine") if isinstance(plm, dict) else None
        if isinstance(engine, dict) and engine.get("kind") == "recorded":
            plm = {**plm, "engine": {**shared, **engine}}  # noqa: PLW2901
        plms.append(plm)
    return {**data, "plms": plms}


def _with_span_models(data: dict[str, Any]) -> dict[str, Any]:
    """Task models of a span task that the file does not name are of its kind."""
    stm = data.get("stm", {})
    if not _finds_spans(data) or not isinstance(stm, dict):
        return data
    return {**data, "stm": {"rounds": {"kind": "span"}, "final": {"kind": "span"}, **stm}}


def _finds_spans(data: dict[str, Any]) -> bool:
    task = data.get("task")
    return (
        task.kind == "span"
        if isinstance(task, Task)
        else isinstance(task, dict) and task.get("kind") == "span"
    )


def _faults_of_kind(config: FusegenConfig) -> Iterator[str]:
    """What does not go with the kind of the task."""
    spans = config.task.kind == "span"
    for name, stm in (("rounds", config.stm.rounds), ("final", config.stm.final)):
        if (stm.kind == "span") != spans:
            allowed = "span" if spans else "linear, full, head"
            yield f"stm.{name}.kind: not {stm.kind} for a {config.task.kind} task; allowed: {allowed}"
    if not spans:
        return
    if any(config.as_variant(name).weights.kind == "sungen" for name in config.variant):
        yield "sungen: not available for span tasks; weights.kind: uniform or swa, variants without sungen"
    if config.selection.influence == "last_layer_hessian":
        yield (
            "selection.influence: last_layer_hessian is not available for span tasks; allowed: last_layer, "
            "gradient_dot, lissa, tracin"
        )
    if config.baselines.scaling:
        yield "baselines.scaling: not available for span tasks"
    if any(plm.sampling.self_debias for plm in config.plms):
        yield "plms: sampling.self_debias is not available for span tasks: there is no other label"
    if config.eval and (config.eval.text_b is None or config.eval.answer is None):
        yield "eval: a span task needs the columns text (context), text_b (question) and answer"


def _with_gpus(data: dict[str, Any]) -> dict[str, Any]:
    """Where PLMs have GPUs, task models that the file does not name have one too."""
    plms, stm = data.get("plms"), data.get("stm", {})
    if not isinstance(plms, (list, tuple)) or not isinstance(stm, dict):
        return data
    if not any(isinstance(plm, dict) and plm.get("num_gpus") for plm in plms):
        return data
    full = {"kind": "span" if _finds_spans(data) else "full", "num_gpus": 1}
    return {**data, "stm": {"rounds": full, "final": full, **stm}}
