"""What runs of several seeds say about a claim: paired differences and a t-test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema.evidence import Claim, Measure
from fusion.routing.evaluation import Paired, paired
from jobs.evidence.measuring import Found, Kind, kinds

FEWEST = 3
"""Pairs of runs that an interval needs."""
HOLDS, FAILS, OPEN, FEW, UNTESTED = "holds", "does not hold", "cannot be told", "too few runs", "not measured"


@dataclass(frozen=True)
class Verdict:
    """What came out for a claim: means of `measured` and `against` over `pairs` of runs of some of its
    `configs`, and their difference in the direction that the claim says."""

    claim: Claim
    pairs: int = 0
    configs: tuple[str, ...] = ()
    measured: float = float("nan")
    against: float = float("nan")
    test: Paired | None = None

    @property
    def tested(self) -> bool:
        """Whether there are enough pairs for an interval."""
        return self.pairs >= FEWEST

    @property
    def word(self) -> str:
        """The verdict."""
        if not self.pairs or self.test is None:
            return UNTESTED
        if not self.tested:
            return FEW
        if self.test.low > -self.claim.margin:
            return HOLDS
        return FAILS if self.test.high < -self.claim.margin else OPEN


def judge(claim: Claim, runs: Sequence[Found]) -> Verdict:
    """Hold a claim against the runs that it is about, each with the run of the same seed that it is compared
    with; seeds of a configuration that give the same numbers count once."""
    pairs: list[tuple[float, float]] = []
    configs = []
    for kind, other in zip(kinds(claim, claim.measure), kinds(claim, claim.against), strict=True):
        first, second = _by_seed(kind, claim.measure, runs), _by_seed(other, claim.against, runs)
        found = [(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]
        pairs += dict.fromkeys(found)  # a seed that changes nothing says nothing more
        configs += [kind.config] if found else []
    if not pairs:
        return Verdict(claim)
    ours, theirs = zip(*pairs, strict=True)
    upwards = paired(ours, theirs) if claim.better == "higher" else paired(theirs, ours)
    return Verdict(claim, len(ours), tuple(configs), float(np.mean(ours)), float(np.mean(theirs)), upwards)


def _by_seed(kind: Kind, measure: Measure, runs: Sequence[Found]) -> dict[int, float]:
    return {run.seed: run.number(measure) for run in runs if not run.strays(kind)}
