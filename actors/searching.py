"""Which settings of the feedback are best: R candidates, S shots, and alpha, the share of them in dispute.

Settings are tried by successive halving: each writes a round of feedback, the better half writes another, and
so on until one is left, or the rounds are over. No test label is looked at: a model trained on all texts so
far is judged by what it misses of the first round's texts that were held out of its training, which all
settings share. Settings whose texts repeat themselves are left behind, however easy that makes them. The one
that is left is what the job then runs with; what it has written is not written again.
"""

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from actors.fusegen import Fusegen, Outcome
from actors.steps.runner import Call
from configs.schema.fusegen import FusegenConfig, Selection

VARIED = 0.8
"""Share of the median of distinct word pairs below which texts repeat themselves."""


@dataclass
class Trial:
    """Settings that are tried: after each round what is missed, and the distinct word pairs of the texts."""

    selection: Selection
    missed: list[float] = field(default_factory=list)
    distinct: list[float] = field(default_factory=list)
    tokens: int = 0

    def row(self) -> dict[str, Any]:
        """What `summary.json` says of it."""
        settings = {name: getattr(self.selection, name) for name in ("candidates", "shots", "alpha")}
        return {**settings, "missed": self.missed, "distinct_2": self.distinct, "tokens": self.tokens}


def trials_of(config: FusegenConfig) -> list[Trial]:
    """The settings of the configuration, and others drawn from its lists."""
    search = config.search
    assert search is not None  # noqa: S101 - callers check
    given = config.selection
    values = (search.candidates or [given.candidates], search.shots or [given.shots])
    grid = product(*values, search.alpha or [given.alpha])
    tried = [
        given.model_copy(update={"candidates": r, "shots": s, "alpha": alpha})
        for r, s, alpha in grid
        if s <= r and (r, s, alpha) != (given.candidates, given.shots, given.alpha)
    ]
    order = np.random.default_rng(config.seed).permutation(len(tried))[: search.trials - 1]
    return [Trial(given), *(Trial(tried[place]) for place in sorted(order.tolist()))]


def rungs_of(config: FusegenConfig) -> list[int]:
    """How many settings write each round of feedback."""
    found = [len(trials_of(config))]
    while found[-1] > 2 and len(found) < config.samples.rounds:
        found.append((found[-1] + 1) // 2)
    return found


def search(method: Fusegen) -> list[Trial]:
    """Try settings, and have `method` go on with the best, which comes first."""
    config = method.config
    trials = left = trials_of(config)
    for rounds in range(1, config.samples.rounds + 1):
        for number, trial in enumerate(left, 1):
            method.board.enter(f"search: settings {number} of {len(left)}, {rounds} rounds")
            _try(method, trial, rounds)
        left = _better_half(left)
        if len(left) == 1:
            break
    best = left[0]
    method.config = config.model_copy(update={"selection": best.selection})
    return [best, *sorted((t for t in trials if t is not best), key=lambda t: (-len(t.missed), t.missed[-1]))]


def _try(method: Fusegen, trial: Trial, rounds: int) -> None:
    config = method.config.model_copy(update={"selection": trial.selection})
    outcome = Outcome.empty(config)
    method.write(config.as_variant(config.variant[0]), outcome, rounds=rounds)
    method.embed(outcome, config.stm.rounds)
    share = trial.selection.held_out
    (model,) = method.steps.do([method.train_call(outcome, held_out=share, score=True)])
    params = {
        "chain": list(outcome.chain.keys),
        "models": {} if "skipped" in model.facts else {"union": model.key},
        **method.about,
        "held_out": share,
    }
    facts = method.steps.one(Call("trial", "actors.steps.diagnosis:judge_trial", params)).facts
    trial.missed.append(facts["missed"])
    trial.distinct.append(facts["distinct_2"])
    trial.tokens = sum(sum(one.completion_tokens.values()) for one in outcome.rounds)


def _better_half(trials: list[Trial]) -> list[Trial]:
    """Those that miss least among those that do not repeat themselves; the best first."""
    varied = VARIED * float(np.median([trial.distinct[-1] for trial in trials]))
    order = sorted(trials, key=lambda trial: (trial.distinct[-1] < varied, trial.missed[-1]))
    return order[: (len(order) + 1) // 2]
