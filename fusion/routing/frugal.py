"""FrugalFoE (section 4 of the paper): ask one expert after another while the gain is worth its price.

Around a request x, of which the outputs of the experts S are known, `Expectations` gives the expected loss of
any wider S'. The next expert is the one with the lowest expected loss plus rate x cost; the walk stops when
nobody lowers it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fusion.routing.expectations import Expectations, additions, members
from fusion.routing.neighbours import Floats, Ints, distinct

TOLERANCE = 1e-6
"""Differences of expected losses up to this are none: 0.3 - 0.2 is not 0.1 in floating point."""
Ask = Callable[[int, Ints], Floats]
"""Outputs (len(rows), d_k) of an expert for some of the requests."""
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


Plan = tuple[Rules, Sequence[int]]
"""Rules, and all experts by preference for the first."""


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

    @classmethod
    def joined(cls, walks: "Sequence[Walks]") -> "Walks":
        """Those of several chunks of requests, one after another."""
        return cls(**{f.name: np.concatenate([getattr(w, f.name) for w in walks]) for f in fields(cls)})


class Walk:
    """Asks about every request of a chunk until it does not pay any more, for each of some plans, which
    differ in rates and first experts only.

    `run` asks and waits; or else `tell` what is `wanted`, or that it is `lost`, and `step`, until `done`.
    `prices` (m, K) of a call, `allowed` (m, K) who may be asked. A request about which nobody may be asked
    within the budget raises ValueError. All walks go step by step together, so that what they have in common
    is looked up once.
    """

    def __init__(
        self, seen: Expectations, plans: Sequence[Plan], prices: Floats, allowed: NDArray[np.bool_]
    ) -> None:
        (m, k), self.states = prices.shape, seen.states
        self.seen, self.plans, self.prices, self.allowed = seen, plans, prices, allowed
        self.rules = plans[0][0]
        self.rates = np.repeat([rules.rate for rules, _ in plans], m)
        self.rows = np.tile(np.arange(m), len(plans))
        w = len(self.rows)
        self.asked = np.zeros((w, k), bool)
        self.order = np.full((w, k), -1, np.intp)
        self.current, self.best = np.full((w, k), np.nan), np.full((w, k), np.nan)
        self.reasons = np.full(w, "", "U11")
        self.spent, self.distance = np.zeros(w), np.zeros(w)
        self.scores = np.zeros((w, seen.stored.values.shape[1]))
        self.answers = np.full(w, -1, np.intp)
        self._steps = 0
        self._on, self._of = np.arange(w), np.zeros(w, np.intp)  # walks that go on, and their states
        self._expected = np.empty((w, 0))
        self._chosen = self._first()
        if (self._chosen < 0).any():
            raise ValueError("no expert that may be asked costs as little as the budget")

    @property
    def done(self) -> bool:
        """Whether all walks have ended."""
        return not len(self._on)

    def run(self, ask: Ask) -> list[Walks]:
        """Walk to the end; what was done for each of the plans."""
        while not self.done:
            for expert, rows in self.wanted().items():
                self.tell(expert, rows, ask(expert, rows))
            self.step()
        return self.result()

    def wanted(self) -> dict[int, Ints]:
        """The requests about which experts are to be asked now."""
        rows = self.rows[self._on]
        wanted = {
            expert: self.states.lacking(expert, rows[self._chosen == expert])
            for expert in sorted(set(self._chosen.tolist()))
        }
        return {expert: some for expert, some in wanted.items() if len(some)}

    def tell(self, expert: int, rows: Ints, outputs: Floats) -> None:
        """What an expert says (len(rows), d_k) about requests."""
        self.states.tell(expert, rows, outputs)

    def lost(self, expert: int, rows: Ints) -> None:
        """An expert has been asked about requests, which costs, but does not answer: others are chosen."""
        self.allowed = self.allowed.copy()
        self.allowed[rows, expert] = False
        mine = np.isin(self.rows[self._on], rows)
        self.spent[self._on[mine]] += self.prices[self.rows[self._on[mine]], expert]
        hit = np.flatnonzero(mine & (self._chosen == expert))
        self._chosen[hit] = self._choose(hit) if self._steps else self._first()[hit]
        self._end(self._chosen < 0)

    def stop(self, reason: str) -> None:
        """End all walks where they are; those that have heard nobody have no answer (-1)."""
        self.reasons[self._on] = reason
        self._end(np.ones(len(self._on), bool))

    def step(self) -> None:
        """Go on with what was told, and choose whom to ask next."""
        walks, chosen = self._on, self._chosen
        rows = self.rows[walks]
        self.order[walks, self._steps] = chosen
        self.asked[walks, chosen] = True
        self.spent[walks] += self.prices[rows, chosen]
        self._of = self.states.enter(self._of, chosen, rows)
        self._steps += 1
        self.seen.update()
        most = self.rules.max_experts
        can = (most is None or self._steps < most) and (self.allowed[rows] & ~self.asked[walks]).any()
        depth = min(self.rules.lookahead, self.seen.stored.experts - self._steps) if can else 0
        self._expected = self.seen.expect(self._of, self.rates[walks], depth)
        self.current[walks, self._steps - 1] = self._expected[:, 0]
        self._chosen = self._choose(np.arange(len(walks)))
        self._end(self._chosen < 0)

    def result(self) -> list[Walks]:
        """What was done for each of the plans."""
        m = len(self.prices)
        return [
            Walks(**{f.name: getattr(self, f.name)[start : start + m] for f in fields(Walks)})
            for start in range(0, len(self.rows), m)
        ]

    def _first(self) -> Ints:
        """The first expert (w,) of each walk; -1 where there is none."""
        can = self.allowed & (self.prices <= self.rules.budget + TOLERANCE)
        found = []
        for _, starts in self.plans:
            preferred = np.asarray(starts)
            found.append(np.where(can.any(axis=1), preferred[can[:, preferred].argmax(axis=1)], -1))
        first = np.concatenate(found)
        self.reasons[first < 0] = UNAVAILABLE
        return first[self._on]

    def _choose(self, some: Ints) -> Ints:
        """The expert to ask next (len(some),) in some of the walks that go on; -1 to stop."""
        rules, step, walks = self.rules, self._steps, self._on[some]
        rows, rates, spent = self.rows[walks], self.rates[walks], self.spent[walks]
        prices, open_ = self.prices[rows], self.allowed[rows] & ~self.asked[walks]
        payable = open_ & (spent[:, None] + prices <= rules.budget + TOLERANCE)
        full = rules.max_experts is not None and step >= rules.max_experts
        can = payable.any(axis=1) & (not full)
        choice = np.full(len(some), -1)
        if can.any():
            expected = self._expected[some]
            best, wanted = self._best(expected[:, 1:], payable, prices, rates, spent)
            self.best[walks, step - 1] = np.where(can, best, np.nan)
            costs_nothing = rates * prices[np.arange(len(walks)), wanted] == 0
            least = np.where(costs_nothing & (not rules.continue_on_tie), TOLERANCE, -TOLERANCE)
            goes_on = (expected[:, 0] - best > least) | (step < rules.min_experts)
            choice[can & goes_on] = wanted[can & goes_on]
        for place in (choice < 0).nonzero()[0].tolist():
            left = GAIN if payable[place].any() else BUDGET if open_[place].any() else UNAVAILABLE
            every = step == self.seen.stored.experts
            self.reasons[walks[place]] = ALL if every else LIMIT if full else left
        return choice

    def _best(
        self, expected: Floats, payable: NDArray[np.bool_], prices: Floats, rates: Floats, spent: Floats
    ) -> tuple[Floats, Ints]:
        """The lowest penalised loss after asking further (w,), and whom to ask for it first."""
        experts, start = payable.shape[1], 0
        depth = min(self.rules.lookahead, experts - self._steps)
        for added in additions(experts, depth):
            together, price = payable, prices
            if start:
                price = prices[:, added].sum(axis=2)
                within = spent[:, None] + price <= self.rules.budget + TOLERANCE
                together = payable[:, added].all(axis=2) & within
            part = expected[:, start : start + len(added)]
            part += rates[:, None] * price
            part[~together] = np.inf
            start += len(added)
        winner = expected.argmin(axis=1)
        first = winner
        if depth > 1:
            first = np.where(members(experts, depth)[winner], expected[:, :experts], np.inf).argmin(axis=1)
        return expected[np.arange(len(winner)), winner], first

    def _end(self, ends: NDArray[np.bool_]) -> None:
        """End some of the walks that go on, and answer."""
        if not ends.any():
            return
        if self._steps:
            self._answer(self._on[ends], self._of[ends])
        on = ~ends
        self._on, self._of, self._chosen = self._on[on], self._of[on], self._chosen[on]
        self._expected = self._expected[on]

    def _answer(self, walks: Ints, of: Ints) -> None:
        """What is answered at the end of walks, and what a chosen expert costs that had not been asked."""
        first, place = distinct(of)
        scores, distance = self.seen.scores(of[first])
        self.scores[walks], self.distance[walks] = scores[place], distance[place]
        worth, asked = self.scores[walks], self.asked[walks, : scores.shape[1]]
        if not self.seen.stored.chooses:
            self.answers[walks] = worth.argmax(axis=1)
            return
        rows = self.rows[walks]
        price = np.where(asked, 0, self.prices[rows, : worth.shape[1]])
        may = self.allowed[rows, : worth.shape[1]]
        can = asked | (may & (self.spent[walks, None] + price <= self.rules.budget + TOLERANCE))
        answers = np.where(can, worth - self.rates[walks, None] * price, -np.inf).argmax(axis=1)
        self.spent[walks] += price[np.arange(len(walks)), answers]
        self.answers[walks] = answers
