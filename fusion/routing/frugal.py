"""FrugalFoE (section 4 of the paper): ask one expert after another while the gain is worth its price.

For a request x of which the outputs of the experts S are known, the M stored items nearest in those outputs
stand for it: the expected loss of any wider S' is the mean of its stored losses there (eq. 4.4). The next
expert is the one with the lowest expected loss plus rate x cost; the walk stops when nobody lowers it. As
stored losses do not depend on prices, one `Expectations` serves every rate, budget and choice of experts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fusion.routing.lookup import Lookup
from fusion.routing.losses import Stored, Subset, SubsetLosses
from fusion.routing.neighbours import GRID, Floats, Ints, Ties

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


class Expectations:
    """What the stored items say about a chunk of requests, each number computed once.

    Where experts are chosen, `charges` (K,) are the losses that their calls are worth, which an answer adds
    that was not asked for before.
    """

    def __init__(
        self,
        lookup: Lookup,
        losses: SubsetLosses,
        *,
        neighbours: int = 30,
        ties: Ties = "inclusive",
        charges: Floats,
    ) -> None:
        self.lookup, self.losses, self.stored = lookup, losses, lookup.stored
        self.neighbours, self.ties, self.charges = neighbours, ties, charges
        self._expected: dict[tuple[Subset, Subset], Floats] = {}

    def expect(self, asked: Subset, wider: Sequence[Subset], rows: Ints) -> Floats:
        """Expected losses (len(wider), len(rows)) of the fusers on `wider`, given the outputs of `asked`."""
        missing = self._missing(asked, wider, rows)
        if len(missing):
            near = self.lookup.near(asked, missing, self.neighbours, self.ties)
            items, columns = np.unique(near.indices, return_inverse=True)
            ones = np.ones(len(columns))
            near = csr_array((ones, columns, near.indptr), shape=(len(missing), len(items)))
            count = np.maximum(near.sum(axis=1), 1)
            for subset, table in zip(wider, self._tables(asked, wider, items.astype(np.intp)), strict=True):
                self._expected[asked, subset][missing] = (near @ table) / count
        return np.stack([self._expected[asked, subset][rows] for subset in wider])

    def _tables(self, asked: Subset, wider: Sequence[Subset], items: Ints) -> Iterator[Floats]:
        added = {subset: tuple(set(subset) - set(asked)) for subset in wider}
        single = [subset for subset in wider if len(added[subset]) == 1]
        tables = self.losses.children(asked, [added[s][0] for s in single], items)
        found = dict(zip(single, tables, strict=True))
        for subset in wider:
            table = found[subset] if subset in found else self.losses.at(subset, items)
            yield missed(self.stored, subset, table, items, self.charges)

    def _missing(self, asked: Subset, wider: Sequence[Subset], rows: Ints) -> Ints:
        unknown = np.zeros(len(rows), bool)
        for subset in wider:
            if (asked, subset) not in self._expected:
                self._expected[asked, subset] = np.full(self.lookup.size, np.nan)
            unknown |= np.isnan(self._expected[asked, subset][rows])
        return rows[unknown]

    def scores(self, asked: Subset, rows: Ints) -> tuple[Floats, Floats]:
        """Scores (len(rows), A) of the fuser on the experts asked, and mean squared distances (len(rows),) to
        the nearest stored items."""

        def near(count: int, ties: Ties) -> csr_array:
            return self.lookup.near(asked, rows, count, ties)

        around = near(self.neighbours, self.ties)
        distance = around.sum(axis=1) / np.maximum(np.diff(around.indptr), 1) / GRID
        items = None if self.lookup.exclude is None else self.lookup.exclude[rows]
        return self.losses.scores(asked, near, self.lookup.outputs(asked, rows), items), distance


def missed(stored: Stored, subset: Subset, table: Floats, items: Ints, charges: Floats) -> Floats:
    """Losses (len(items),) at stored items of the fuser on `subset`, of which (len(items), 1 or K) is known.

    Where experts are chosen: what the choice by predicted quality less charges misses, and its charge.
    """
    if not stored.chooses:
        return table[:, 0]
    extra = charges[: stored.values.shape[1]].copy()
    extra[[expert for expert in subset if expert < len(extra)]] = 0
    chosen = (table - extra).argmax(axis=1)
    values = stored.values[items]
    return np.asarray(values.max(axis=1) - values[np.arange(len(items)), chosen] + extra[chosen])


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
        self.order = np.full((m, k), -1, np.intp)
        self.current, self.best = np.full((m, k), np.nan), np.full((m, k), np.nan)
        self.reasons = np.full(m, "", "U11")
        self.scores = np.zeros((m, seen.stored.values.shape[1]))
        self.answers = np.zeros(m, np.intp)

    def run(self) -> Walks:
        """Walk to the end."""
        frontier = self._ask((), np.arange(len(self.spent)), self._first())
        while frontier:
            following: dict[Subset, list[Ints]] = {}
            for asked, rows in frontier.items():
                chosen = self.decide(asked, rows)
                self._answer(asked, rows[chosen < 0])
                for wider, more in self._ask(asked, rows[chosen >= 0], chosen[chosen >= 0]).items():
                    following.setdefault(wider, []).append(more)
            frontier = {asked: np.sort(np.concatenate(parts)) for asked, parts in following.items()}
        if self.seen.stored.chooses:
            rows = np.arange(len(self.answers))
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

    def decide(self, asked: Subset, rows: Ints) -> Ints:
        """The expert to ask next for each of `rows`, all of which have asked `asked`; -1 to stop."""
        rules, step = self.rules, len(asked) - 1
        open_ = self.allowed[rows].copy()
        open_[:, list(asked)] = False
        payable = open_ & (self.spent[rows, None] + self.prices[rows] <= rules.budget + TOLERANCE)
        chosen = np.full(len(rows), -1, np.intp)
        everyone = len(asked) == self.seen.stored.experts
        full = rules.max_experts is not None and len(asked) >= rules.max_experts
        reasons = np.where(payable.any(axis=1), GAIN, np.where(open_.any(axis=1), BUDGET, UNAVAILABLE))
        self.reasons[rows] = ALL if everyone else LIMIT if full else reasons
        current = self.seen.expect(asked, [asked], rows)[0]
        self.current[rows, step] = current
        free = np.flatnonzero(payable.any(axis=1))
        if everyone or full or not len(free):
            return chosen
        best, choice = self._best(asked, rows[free], payable[free])
        self.best[rows[free], step] = best
        gain = current[free] - best
        costs_nothing = rules.rate * self.prices[rows[free], choice] == 0
        least = np.where(costs_nothing & (not rules.continue_on_tie), TOLERANCE, -TOLERANCE)
        goes_on = (gain > least) | (len(asked) < rules.min_experts)
        chosen[free[goes_on]] = choice[goes_on]
        return chosen

    def _best(self, asked: Subset, rows: Ints, payable: NDArray[np.bool_]) -> tuple[Floats, Ints]:
        """The lowest penalised loss after asking further (r,), and whom to ask for it first."""
        left = [expert for expert in range(self.seen.stored.experts) if expert not in asked]
        depth = min(self.rules.lookahead, len(left))
        more = [added for size in range(1, depth + 1) for added in combinations(left, size)]
        wider = [tuple(sorted((*asked, *added))) for added in more]
        expected = self.seen.expect(asked, wider, rows)
        for number, added in enumerate(more):
            price = self.prices[rows][:, list(added)].sum(axis=1)
            within = self.spent[rows] + price <= self.rules.budget + TOLERANCE
            expected[number] += self.rules.rate * price
            expected[number, ~(payable[:, list(added)].all(axis=1) & within)] = np.inf
        winner = expected.argmin(axis=0)
        single = expected[: len(left)]
        members = np.array([[expert in added for expert in left] for added in more]).T
        first = np.where(members[:, winner], single, np.inf).argmin(axis=0)
        return expected.min(axis=0), np.array(left, np.intp)[first]

    def _first(self) -> Ints:
        can = self.allowed & (self.prices <= self.rules.budget + TOLERANCE)
        if not can.any(axis=1).all():
            raise ValueError("no expert that may be asked costs as little as the budget")
        preferred = np.asarray(self.starts)
        return np.asarray(preferred[can[:, preferred].argmax(axis=1)])

    def _ask(self, asked: Subset, rows: Ints, experts: Ints) -> dict[Subset, Ints]:
        following = {}
        for expert in map(int, np.unique(experts)):
            more = rows[experts == expert]
            self.seen.lookup.observe(expert, more)
            self.order[more, len(asked)] = expert
            self.spent[more] += self.prices[more, expert]
            following[tuple(sorted((*asked, expert)))] = more
        return following

    def _answer(self, asked: Subset, rows: Ints) -> None:
        if not len(rows):
            return
        scores, self.distance[rows] = self.seen.scores(asked, rows)
        self.scores[rows] = scores
        if self.seen.stored.chooses:
            prices = self.prices[rows].copy()
            prices[:, list(asked)] = 0
            can = self.allowed[rows] & (self.spent[rows, None] + prices <= self.rules.budget + TOLERANCE)
            can[:, list(asked)] = True
            prices, can = prices[:, : scores.shape[1]], can[:, : scores.shape[1]]
            scores = np.where(can, scores - self.rules.rate * prices, -np.inf)
        self.answers[rows] = scores.argmax(axis=1)
