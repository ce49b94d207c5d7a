"""The FuseGen method as steps: rounds of writing and choosing, then weighting, training and evaluation.

    write (zero-shot) -> train one model per PLM and one on all -> choose shots -> write with them -> ...
    -> weigh -> train the result -> (only now) read the real labels

Variants (rivals and ablations) run through the same code with other switches. Steps are identified by what
they depend on, so whatever two variants have in common is done once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.board import Board
from actors.budget import Spent
from actors.steps.runner import Call, Done, StepError, Steps, resources_of
from actors.writing import Chain, Round, RoundOfWriting, Tools, Writers
from configs.schema.base import identity
from configs.schema.fusegen import FusegenConfig
from configs.schema.stm import StmSpec
from fusion.generation.schedule import sizes

TRAIN = "actors.steps.training:train"
EMBEDS = {"num_cpus": 0.1}
"""What a step asks for that only waits for Ray Data."""


@dataclass
class Outcome:
    """What one variant left behind: its samples, and the keys of its steps."""

    chain: Chain
    rounds: list[Round] = field(default_factory=list)
    selections: list[str | None] = field(default_factory=list)
    """Per round: the selection that followed it."""
    unions: list[str | None] = field(default_factory=list)
    """Per round: the model trained on all samples so far."""
    models: dict[str, str] = field(default_factory=dict)
    """PLM -> the model of the last round trained on its samples, held-out ones excepted."""
    weights: Done | None = None
    diagnoses: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Round -> what its samples look like to the models."""

    @classmethod
    def empty(cls, config: FusegenConfig) -> "Outcome":
        """Before anything is written."""
        return cls(Chain(len(config.task.labels)))


WITHIN = ("round/", "scaling/")
"""How names of models begin that are no rivals of the result, but show how it came about."""


class Fusegen:
    """Runs the variants of one configuration."""

    def __init__(
        self,
        config: FusegenConfig,
        steps: Steps,
        writers: Writers,
        board: Board,
        after_round: Callable[[dict[str, "Outcome"]], object],
    ) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.paid: dict[str, Spent] = {}
        self.after_round = after_round
        self.config, self.steps, self.writers, self.board = config, steps, writers, board
        self.about = config.task.about
        self.judge = identity(config.stm.rounds)
        self.judge_options = resources_of(config.stm.rounds)

    def variant(self, name: str, *, every_round: bool) -> Outcome:
        """Run one variant up to its weights; `every_round` trains and diagnoses without feedback too."""
        config = self.config.as_variant(name)
        outcome = self.outcomes[name] = Outcome.empty(config)
        self.write(config, outcome, every_round=every_round)
        outcome.weights = self._weigh(config, outcome)
        return outcome

    def write(
        self, config: FusegenConfig, outcome: Outcome, *, rounds: int | None = None, every_round: bool = False
    ) -> None:
        """Write all rounds of a variant, and train after each that is learnt from; or write the first
        `rounds` of feedback only."""
        (name,) = config.variant
        tools = Tools(self.steps, self.writers, self.board, self.paid)
        samples = config.samples
        self.board.rounds = samples.rounds
        shots: str | None = None
        targets = sizes(samples.per_plm, samples.initial, samples.rounds, exact_end=samples.exact_end)
        for number, target in enumerate(targets[: None if rounds is None else rounds + 1]):
            last = number == len(targets) - 1
            self.board.enter(f"{name}: round {number} of {samples.rounds}: writing")
            writing = RoundOfWriting(config, tools, outcome.chain, number=number, target=target, shots=shots)
            outcome.rounds.append(writing.run())
            if self.outcomes:
                self.after_round(self.outcomes)
            chooses = config.selection.feedback != "none" and not last and number != rounds
            if chooses or every_round or (last and rounds is None):
                self.board.enter(f"{name}: round {number} of {samples.rounds}: training")
                self._train(config, outcome)
            if every_round and outcome.models:
                outcome.diagnoses[number] = self._diagnose(config, outcome)
            if chooses and not (config.selection.freeze_shots and shots):
                shots = self._select(config, outcome, number)
            outcome.selections.append(shots if chooses else None)

    def train_call(
        self,
        outcome: Outcome,
        *,
        plms: list[str] | None = None,
        held_out: float = 0.0,
        weights: Done | None = None,
        final: bool = False,
        score: bool = False,
        checkpoints: bool = False,
        per_plm: int | None = None,
    ) -> Call:
        """The step that trains a model on samples of a variant."""
        spec = self.config.stm.final if final else self.config.stm.rounds
        params = {
            "chain": list(outcome.chain.keys),
            "plms": plms,
            "held_out": held_out,
            "weights": weights.key if weights else None,
            "stm": identity(spec),
            **self.about,
            "seed": self.config.seed,
            "score": score,
            "checkpoints": checkpoints,
            **({} if per_plm is None else {"per_plm": per_plm}),
        }
        return Call("train", TRAIN, params, resources_of(spec))

    def embed(self, outcome: Outcome, spec: StmSpec) -> None:
        """Have the texts of a variant embedded where the model needs vectors."""
        if spec.kind == "head":
            params = {"chain": list(outcome.chain.keys), "stm": identity(spec)}
            self.steps.one(Call("embed", "actors.steps.embedding:embed", params, EMBEDS))

    def _train(self, config: FusegenConfig, outcome: Outcome) -> None:
        """One model per PLM, each scoring all samples, and one on all samples, side by side."""
        self.embed(outcome, self.config.stm.rounds)
        share = config.selection.held_out
        writing = [plm.name for plm in config.plms if sum(outcome.chain.of(outcome.chain.kept, plm.name))]
        traced = config.selection.influence == "tracin"
        calls = [
            self.train_call(outcome, plms=[p], held_out=share, score=True, checkpoints=traced)
            for p in writing
        ]
        *mine, union = self.steps.do([*calls, self.train_call(outcome, checkpoints=traced)])
        outcome.models = {
            plm: done.key for plm, done in zip(writing, mine, strict=True) if "skipped" not in done.facts
        }
        for plm in set(writing) - set(outcome.models):
            self.board.note(f"{plm} wrote texts of one label only; no model of its own")
        untrained = [None] * (len(outcome.rounds) - 1 - len(outcome.unions))
        outcome.unions += [*untrained, None if "skipped" in union.facts else union.key]

    def _diagnose(self, config: FusegenConfig, outcome: Outcome) -> dict[str, Any]:
        params = {
            "chain": list(outcome.chain.keys),
            "plms": [plm.name for plm in config.plms],
            "models": outcome.models,
            **self.about,
            "held_out": config.selection.held_out,
        }
        return self.steps.one(Call("diagnose", "actors.steps.diagnosis:diagnose", params)).facts

    def _select(self, config: FusegenConfig, outcome: Outcome, number: int) -> str:
        if not outcome.models or outcome.unions[-1] is None:
            raise StepError(f"round {number}: no shots can be chosen: no PLM wrote texts of two labels")
        params = {
            "chain": list(outcome.chain.keys),
            "plms": [plm.name for plm in config.plms],
            "models": outcome.models,
            "union": outcome.unions[-1],
            "selection": identity(config.selection),
            **self.about,
            "seed": config.seed,
            "round": number,
        }
        return self.steps.one(
            Call(f"r{number}-select", "actors.steps.selection:select", params, self.judge_options)
        ).key

    def _weigh(self, config: FusegenConfig, outcome: Outcome) -> Done | None:
        if config.weights.kind == "uniform":
            return None
        self.board.enter(f"weighing the samples ({config.weights.kind})")
        return self.steps.one(self.weigh_call(config, outcome))

    def weigh_call(self, config: FusegenConfig, outcome: Outcome, plms: list[str] | None = None) -> Call:
        """The step that weighs the samples of a variant, or of some of its PLMs."""
        params = {
            "chain": list(outcome.chain.keys),
            "plms": plms,
            "weights": identity(config.weights),
            "stm": self.judge,
            **self.about,
            "seed": config.seed,
        }
        return Call("weigh", "actors.steps.weighting:weigh", params, self.judge_options)


SINGLE = ("zerogen", "sungen", "progen", "sdg_plus")
"""Rivals that were made for one PLM: they are also measured on each PLM's samples."""


def baseline_calls(method: Fusegen) -> dict[str, Call]:
    """Models that the result is compared with, by the name they have in the summary; the result comes first.

    `<plm>`: one PLM's samples; `union`, `union_swa`: all samples, weighted equally or by the job;
    `<variant>`: another variant's result; `zerogen/<plm>`: a rival on one PLM's samples.
    """
    config, outcomes = method.config, method.outcomes
    result, *others = config.variant
    final = config.baselines.stm == "final"
    main = outcomes[result]
    calls = {result: method.train_call(main, weights=main.weights, final=True)}
    if config.baselines.plms:
        calls |= {plm: method.train_call(main, plms=[plm], final=final) for plm in writers_of(main)}
    if config.baselines.union:
        calls["union"] = method.train_call(main, final=final)
        if main.weights:
            kind = config.as_variant(result).weights.kind
            calls[f"union_{kind}"] = method.train_call(main, weights=main.weights, final=final)
    for name in others:
        calls[name] = method.train_call(outcomes[name], weights=outcomes[name].weights, final=final)
        if name in SINGLE and config.baselines.plms:
            calls |= _per_plm(method, name, final=final)
    return calls


def _per_plm(method: Fusegen, name: str, *, final: bool) -> dict[str, Call]:
    """A rival's model for each PLM, its samples weighted by the rival's own rule."""
    config, outcome = method.config.as_variant(name), method.outcomes[name]
    plms = writers_of(outcome)
    weights: list[Done | None] = [None] * len(plms)
    if config.weights.kind != "uniform":
        weights = [*method.steps.do([method.weigh_call(config, outcome, [plm]) for plm in plms])]
    return {
        f"{name}/{plm}": method.train_call(outcome, plms=[plm], weights=weighed, final=final)
        for plm, weighed in zip(plms, weights, strict=True)
    }


def writers_of(outcome: Outcome) -> list[str]:
    """The PLMs of which samples were kept."""
    return [plm for plm, counts in outcome.chain.kept.items() if sum(counts)]


def embed_evaluation(config: FusegenConfig, steps: Steps) -> None:
    """Have the evaluation texts embedded once for all models that need vectors."""
    assert config.eval is not None  # noqa: S101 - callers check
    for spec in (config.stm.rounds, config.stm.final):
        if spec.kind == "head":
            source = {"eval": identity(config.eval), **config.task.about}
            params = {**source, "stm": identity(spec)}
            steps.one(Call("embed-eval", "actors.steps.embedding:embed_evaluation", params, EMBEDS))


def predict_calls(config: FusegenConfig, models: dict[str, str]) -> dict[str, Call]:
    """Steps in which each model (by name: its training step) answers the evaluation set."""
    assert config.eval is not None  # noqa: S101 - callers check
    shared: dict[str, Any] = {"eval": identity(config.eval), **config.task.about}
    baseline = getattr(config.stm, config.baselines.stm)
    trained_as = {name: config.stm.rounds if name.startswith(WITHIN) else baseline for name in models}
    trained_as |= {config.variant[0]: config.stm.final}
    return {
        name: Call(
            "predict",
            "actors.steps.evaluation:predict",
            {"model": key, **shared},
            resources_of(trained_as[name]),
        )
        for name, key in models.items()
    }
