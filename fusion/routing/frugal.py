"""FrugalFoE (section 4 of the paper): ask one expert after another while the gain is worth its price.

Around a request x, of which the outputs of the experts S are known, `Expectations` gives the expected loss of
any wider S'. The next expert is the one with the lowest expected loss plus rate x cost; the walk stops when
nobody lowers it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fusion.routing.expectations import Expectations, additions, members
from fusion.routing.losses import Groups, widened
from fusion.routing.neighbours import Floats, Ints
from fusion.routing.stored import Subset

TOLERANCE = 1e-6
"""Differences of expected losses up to this are none: 0.3 - 0.2 is not 0.1 in floating point."""
Start = Literal["rollout", "mean_loss"]
GAIN, BUDGET, ALL, LIMIT, UNAVAILABLE = "gain", "budget", "all", "limit", "unavailable"
"""Why a walk stops: no gain is worth its price; none that is left can be paid; everyone, or as many as are
allowed, has been asked; nobody that is left may be asked or answers."""


@dataclass(frozen=True)
class Rules:
    """How a walk decides. `rate` is the loss that one unit of cost must save at least (lambda)."""

    rate: float = 0.0
    min_experts: int = 1
    max_experts: int | None = None
    lookahead: int = 1
    budget: float = np.inf
    continue_on_tie: bool = False
    """Go on when a free expert changes nothing; the reference code does."""


@dataclass(frozen=True)
class Walks:
    """What was done for m requests: `order` (m, K) experts as asked, -1 behind the last; `current` and `best`
    (m, K) expected losses with prices after each, the second of the best that asking further promised (NaN:
    nothing was left to ask); `reasons` (m,); `spent` (m,) with the call of a chosen expert that had not been
    asked; `scores` (m, A); `answers` (m,); `distance` (m,) mean squared distance to the nearest stored
    items."""

    order: Ints
    current: Floats
    best: Floats
    reasons: NDArray[np.str_]
    spent: Floats
    scores: Floats
    answers: Ints
    distance: Floats

    @property
    def asked(self) -> Ints:
        """How many experts each request asked (m,)."""
        return np.asarray((self.order >= 0).sum(axis=1))


class Walk:
    """Asks about every request of a chunk until it does not pay any more.

    `prices` (m, K) of a call, `starts` all experts by preference, `allowed` (m, K) who may be asked. A
    request about which nobody may be asked within the budget raises ValueError.
    """

    def __init__(
        self,
        seen: Expectations,
        rules: Rules,
        prices: Floats,
        starts: Sequence[int],
        allowed: NDArray[np.bool_],
    ) -> None:
        m, k = prices.shape
        self.seen, self.rules, self.prices, self.starts, self.allowed = seen, rules, prices, starts, allowed
        self.spent, self.distance = np.zeros(m), np.zeros(m)
        self.asked = np.zeros((m, k), bool)
        self.order = np.full((m, k), -1, np.intp)
        self.current, self.best = np.full((m, k), np.nan), np.full((m, k), np.nan)
        self.reasons = np.full(m, "", "U11")
        self.scores = np.zeros((m, seen.stored.values.shape[1]))
        self.answers = np.zeros(m, np.intp)

    def run(self) -> Walks:
        """Walk to the end."""
        rows = np.arange(len(self.spent))
        groups = self._ask({(): rows}, self._first())
        last: dict[int, Subset] = {}
        while groups:
            last.update((row, asked) for asked, some in groups.items() for row in some.tolist())
            groups = self._ask(groups, self.decide(groups))
        self._answer(last)
        if self.seen.stored.chooses:
            called = (self.order == self.answers[:, None]).any(axis=1)
            self.spent += np.where(called, 0, self.prices[rows, self.answers])
        return Walks(
            order=self.order,
            current=self.current,
            best=self.best,
            reasons=self.reasons,
            spent=self.spent,
            scores=self.scores,
            answers=self.answers,
            distance=self.distance,
        )

    def decide(self, groups: Groups) -> Ints:
        """The expert to ask next (r,) for each request, group after group, all of which have asked equally
        many; -1 to stop."""
        rules, asked = self.rules, len(next(iter(groups)))
        rows = np.concatenate(list(groups.values()))
        open_ = self.allowed[rows] & ~self.asked[rows]
        payable = open_ & (self.spent[rows, None] + self.prices[rows] <= rules.budget + TOLERANCE)
        everyone = asked == self.seen.stored.experts
        full = rules.max_experts is not None and asked >= rules.max_experts
        free = payable.any(axis=1)
        reasons = np.where(free, GAIN, np.where(open_.any(axis=1), BUDGET, UNAVAILABLE))
        self.reasons[rows] = ALL if everyone else LIMIT if full else reasons
        free &= not full
        ends = np.cumsum([0, *map(len, groups.values())]).tolist()
        depth = min(rules.lookahead, self.seen.stored.experts - asked)
        depths = [depth if free[a:b].any() else 0 for a, b in pairwise(ends)]
        expected = self.seen.expect(groups, depths)
        current = np.concatenate([some[:, 0] for some in expected])
        self.current[rows, asked - 1] = current
        chosen = np.full(len(rows), -1, np.intp)
        if not free.any():
            return chosen
        further = np.concatenate([some[:, 1:] for some, d in zip(expected, depths, strict=True) if d])
        looked = np.repeat(np.array(depths) > 0, np.diff(ends))
        best, choice = self._best(rows[free], further[free[looked]], payable[free], depth)
        self.best[rows[free], asked - 1] = best
        costs_nothing = rules.rate * self.prices[rows[free], choice] == 0
        least = np.where(costs_nothing & (not rules.continue_on_tie), TOLERANCE, -TOLERANCE)
        goes_on = (current[free] - best > least) | (asked < rules.min_experts)
        chosen[free] = np.where(goes_on, choice, -1)
        return chosen

    def _best(
        self, rows: Ints, expected: Floats, payable: NDArray[np.bool_], depth: int
    ) -> tuple[Floats, Ints]:
        """The lowest penalised loss after asking further (r,), and whom to ask for it first."""
        experts = payable.shape[1]
        prices, start = self.prices[rows], 0
        for added in additions(experts, depth):
            price = prices[:, added].sum(axis=2)
            within = self.spent[rows, None] + price <= self.rules.budget + TOLERANCE
            part = expected[:, start : start + len(added)]
            part += self.rules.rate * price
            part[~(payable[:, added].all(axis=2) & within)] = np.inf
            start += len(added)
        winner = expected.argmin(axis=1)
        first = winner.copy()
        if depth > 1:
            first = np.where(members(experts, depth)[winner], expected[:, :experts], np.inf).argmin(axis=1)
        return expected[np.arange(len(rows)), winner], first

    def _first(self) -> Ints:
        can = self.allowed & (self.prices <= self.rules.budget + TOLERANCE)
        if not can.any(axis=1).all():
            raise ValueError("no expert that may be asked costs as little as the budget")
        preferred = np.asarray(self.starts)
        return np.asarray(preferred[can[:, preferred].argmax(axis=1)])

    def _ask(self, groups: Groups, chosen: Ints) -> Groups:
        """Ask for all requests that go on, and put those together that have now asked the same."""
        rows = np.concatenate(list(groups.values()))
        on = chosen >= 0
        for expert in np.unique(chosen[on]).tolist():
            self.seen.lookup.observe(expert, np.sort(rows[chosen == expert]))
        self.order[rows[on], self.asked[rows[on]].sum(axis=1)] = chosen[on]
        self.spent[rows[on]] += self.prices[rows[on], chosen[on]]
        self.asked[rows[on], chosen[on]] = True
        following: dict[Subset, list[int]] = {}
        before = [asked for asked, some in groups.items() for _ in some]
        for asked, row, expert in zip(before, rows.tolist(), chosen.tolist(), strict=True):
            if expert >= 0:
                following.setdefault(widened(asked, (expert,))[0], []).append(row)
        return {asked: np.array(some) for asked, some in following.items()}

    def _answer(self, last: dict[int, Subset]) -> None:
        groups: dict[Subset, list[int]] = {}
        for row, asked in last.items():
            groups.setdefault(asked, []).append(row)
        rows = np.concatenate([np.array(some) for some in groups.values()])
        scores, self.distance[rows] = self.seen.scores({a: np.array(some) for a, some in groups.items()})
        self.scores[rows] = scores
        if self.seen.stored.chooses:
            prices = np.where(self.asked[rows], 0, self.prices[rows])
            can = self.allowed[rows] & (self.spent[rows, None] + prices <= self.rules.budget + TOLERANCE)
            prices, can = prices[:, : scores.shape[1]], (can | self.asked[rows])[:, : scores.shape[1]]
            scores = np.where(can, scores - self.rules.rate * prices, -np.inf)
        self.answers[rows] = scores.argmax(axis=1)
