"""Which settings of the feedback are best: R candidates, S shots, alpha, the share of them in dispute, and J,
the number of rounds.

R, S and alpha are tried by successive halving: each writes a round of feedback, the better half writes
another, and so on until one is left, or the rounds are over. With the one that is left, numbers of rounds are
tried at equal numbers of texts: each writes all of them. No test label is looked at: a model trained on all
texts so far is judged by what it misses of the zero-shot texts that were held out of its training, which all
settings share. Settings whose texts repeat themselves are left behind, however easy that makes them. The best
is what the job then runs with; what it has written is not written again.
"""

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from actors.fusegen import Fusegen, Outcome
from actors.steps.runner import Call
from configs.schema.fusegen import FusegenConfig, Selection
from fusion.generation.schedule import sizes

VARIED = 0.8
"""Share of the median of distinct word pairs below which texts repeat themselves."""


@dataclass
class Trial:
    """Settings that are tried: each time they are judged, after how many texts per PLM, what is missed, and
    the distinct word pairs of the texts."""

    selection: Selection
    rounds: int
    written: list[int] = field(default_factory=list)
    missed: list[float] = field(default_factory=list)
    distinct: list[float] = field(default_factory=list)
    tokens: int = 0

    def row(self) -> dict[str, Any]:
        """What `summary.json` says of it."""
        settings = {name: getattr(self.selection, name) for name in ("candidates", "shots", "alpha")}
        judged = {"written": self.written, "missed": self.missed, "distinct_2": self.distinct}
        return {**settings, "rounds": self.rounds, **judged, "tokens": self.tokens}


def trials_of(config: FusegenConfig) -> list[Trial]:
    """The settings of the configuration, and others drawn from its lists; all with its number of rounds."""
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
    drawn = [given, *(tried[place] for place in sorted(order.tolist()))]
    return [Trial(selection, config.samples.rounds) for selection in drawn]


def numbers_of_rounds(config: FusegenConfig) -> list[int]:
    """Values of J that are tried: that of the configuration first, none with rounds in which nothing is
    written."""
    search, samples = config.search, config.samples
    assert search is not None  # noqa: S101 - callers check
    most = samples.per_plm - samples.initial
    return list(dict.fromkeys([samples.rounds, *(j for j in search.rounds if j <= most)]))


def rungs_of(config: FusegenConfig) -> list[int]:
    """How many settings write each round of feedback."""
    found = [len(trials_of(config))]
    while found[-1] > 2 and len(found) < config.samples.rounds:
        found.append((found[-1] + 1) // 2)
    return found


def search(method: Fusegen) -> list[Trial]:
    """Try settings, and have `method` go on with the best, which comes first; nothing where there is no
    choice."""
    config = method.config
    trials = left = trials_of(config)
    _, *others = numbers_of_rounds(config)
    if len(trials) == 1 and not others:
        return []
    rounds = 0
    while len(left) > 1 and rounds < config.samples.rounds:
        rounds += 1
        for number, trial in enumerate(left, 1):
            method.board.enter(f"search: settings {number} of {len(left)}, {rounds} rounds")
            _try(method, trial, rounds)
        left = _better_half(left)
    best = left[0]
    finalists = [best, *(Trial(best.selection, number) for number in others)]
    if others:
        for trial in (one for one in finalists if len(one.written) < one.rounds):
            method.board.enter(f"search: all texts in {trial.rounds} rounds")
            _try(method, trial, trial.rounds)
    chosen, *_ = _ranked(finalists)
    method.config = _with(config, chosen)
    rest = [trial for trial in (*trials, *finalists[1:]) if trial is not chosen]
    return [chosen, *sorted(rest, key=lambda trial: (-trial.written[-1], trial.missed[-1]))]


def _with(config: FusegenConfig, trial: Trial) -> FusegenConfig:
    samples = config.samples.model_copy(update={"rounds": trial.rounds})
    return config.model_copy(update={"selection": trial.selection, "samples": samples})


def _try(method: Fusegen, trial: Trial, rounds: int) -> None:
    """Judge settings by what they write in their first `rounds` rounds of feedback."""
    config = _with(method.config, trial)
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
    samples = config.samples
    per_plm = sizes(samples.per_plm, samples.initial, samples.rounds, exact_end=samples.exact_end)
    trial.written.append(per_plm[rounds])
    trial.missed.append(facts["missed"])
    trial.distinct.append(facts["distinct_2"])
    trial.tokens = sum(sum(one.completion_tokens.values()) for one in outcome.rounds)


def _ranked(trials: list[Trial]) -> list[Trial]:
    """Those that do not repeat themselves first, and among them those that miss least."""
    varied = VARIED * float(np.median([trial.distinct[-1] for trial in trials]))
    return sorted(trials, key=lambda trial: (trial.distinct[-1] < varied, trial.missed[-1]))


def _better_half(trials: list[Trial]) -> list[Trial]:
    """The better half, the best first."""
    return _ranked(trials)[: (len(trials) + 1) // 2]
