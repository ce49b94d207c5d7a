"""FrugalFoE as scikit-learn estimators: `fit` on stored outputs and labels, `decide` on new requests.

X holds the outputs of all experts side by side, `blocks` their widths (None: one column each). When a request
is decided, only the columns of experts that it asked are read. `compat="reference"` reproduces the authors'
code: 0/1 loss with a neighbour's own vote, 10 neighbours, two experts at least, ties by lowest index, the
first expert by mean loss, and a tie goes on.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from fusion.routing.expectations import Expectations, missed
from fusion.routing.fitted import FittedLosses
from fusion.routing.frugal import Plan, Rules, Start, Walk, Walks
from fusion.routing.losses import KnnLosses, Loss, SubsetLosses
from fusion.routing.neighbours import Floats, Ints, Ties
from fusion.routing.states import Lone, States
from fusion.routing.stored import Stored, Subset

REFERENCE = {
    "m_neighbors": 10,
    "loss": "zero_one",
    "leave_one_out": False,
    "min_experts": 2,
    "start": "mean_loss",
    "ties": "lowest",
}
"""What `compat="reference"` sets."""
CHUNK = 1 << 25
"""Numbers that a walk over many requests holds at a time: 128 MB of distances in float32."""
SPREAD = 4
"""Different ways that a request takes at different rates, at most, as a guess."""
ROLLOUT, FEWEST, MOST = 6000, 250, 1000
"""Stored items, times experts, that a rollout walks over to compare first experts, and how many at least and
at most: the more experts, the more a step of a walk costs."""
FIRSTS = 6
"""First experts that a rollout compares at each rate: the best by their mean losses (eq. 4.3)."""


class _Frugal(BaseEstimator):
    """What both policies share.

    Parameters: `blocks` widths of the experts' outputs; `prices` per call (None: 1 each); `rate` (lambda) the
    loss that one unit of price must save; `fuser` an estimator, fitted anew for every subset that is asked
    and told the widths of its columns where it has a parameter `blocks` (None: nearest neighbours,
    `n_neighbors` of them); `m_neighbors` of the estimate; `loss` zero_one or soft;
    `leave_one_out`; `ties` inclusive or lowest; `start` rollout (walk over stored items from each of the
    experts that are best alone, and take the best) or mean_loss (eq. 4.3); `min_experts`, `max_experts`,
    `lookahead`, `budget`. Where fewer items than neighbours are stored, all are neighbours.
    """

    _chooses = False

    def __init__(
        self,
        blocks: Sequence[int] | None = None,
        prices: Sequence[float] | None = None,
        rate: float = 0.0,
        fuser: Any = None,  # noqa: ANN401
        n_neighbors: int = 9,
        m_neighbors: int = 30,
        loss: Loss = "soft",
        leave_one_out: bool = True,
        ties: Ties = "inclusive",
        start: Start = "rollout",
        min_experts: int = 1,
        max_experts: int | None = None,
        lookahead: int = 1,
        budget: float | None = None,
        compat: Literal["reference"] | None = None,
        random_state: int = 0,
    ) -> None:
        self.blocks, self.prices, self.rate, self.fuser = blocks, prices, rate, fuser
        self.n_neighbors, self.m_neighbors, self.loss = n_neighbors, m_neighbors, loss
        self.leave_one_out, self.ties, self.start = leave_one_out, ties, start
        self.min_experts, self.max_experts, self.lookahead = min_experts, max_experts, lookahead
        self.budget, self.compat, self.random_state = budget, compat, random_state

    def attach(self, blocks: Sequence[Floats], values: Floats, classes: Sequence[Any] = ()) -> Self:
        """What `fit` does, with outputs (n, d_k) of each expert that stay where they are, and what each
        answer is worth (n, A); `classes` are the labels, where answers are labels."""
        if not self._chooses:
            self.classes_ = np.asarray(classes)
        self.n_features_in_ = sum(block.shape[1] for block in blocks)
        self._store(blocks, values)
        return self

    def _store(self, blocks: Sequence[Floats], values: Floats) -> None:
        self.stored_ = Stored(tuple(blocks), values, self._chooses)
        self.prices_ = self._checked_prices()
        self.losses_: SubsetLosses = self._losses()
        self.starts_: dict[float, list[int]] = {}

    def _losses(self) -> SubsetLosses:
        used = self._used()
        if self.fuser is not None:
            return FittedLosses(self.stored_, self._estimator, loss=used["loss"], seed=self.random_state)
        return KnnLosses(
            self.stored_,
            neighbours=self.n_neighbors,
            loss=used["loss"],
            leave_one_out=used["leave_one_out"],
            ties=used["ties"],
        )

    def _estimator(self, subset: Subset) -> Any:  # noqa: ANN401
        made = clone(self.fuser)
        if "blocks" in made.get_params():
            widths = [self.stored_.blocks[block].shape[1] for block in subset]
            made.set_params(blocks=widths, contexts=sum(block >= self._experts for block in subset))
        return made

    @property
    def _experts(self) -> int:
        """Blocks that are experts; those behind them are contexts."""
        return self.stored_.values.shape[1] if self.stored_.chooses else self.stored_.experts

    def decide(self, X: ArrayLike, **rules: Any) -> Walks:  # noqa: N803, ANN401
        """What is done for each request; `rules` as of `sweep`."""
        return self.sweep(X, [self.rate], **rules)[0]

    def sweep(
        self,
        X: ArrayLike,  # noqa: N803
        rates: Iterable[float],
        *,
        prices: ArrayLike | None = None,
        allowed: ArrayLike | None = None,
        budget: float | None = None,
    ) -> list[Walks]:
        """Walks for each rate, in the time of little more than one: expected losses do not depend on it.

        `prices` (K,) or (m, K) of these requests; `allowed` (K,) or (m, K) who may be asked.
        """
        check_is_fitted(self)
        x, rates = np.asarray(validate_data(self, X, reset=False), np.float64), list(rates)
        self.find_starts(rates)
        plans = [(self._rules(rate, budget), self.starts(rate)) for rate in rates]
        return self._walks(self._split(x), plans, *self._may(len(x), prices, allowed), None)

    def begin(
        self,
        size: int,
        rate: float | None = None,
        *,
        prices: ArrayLike | None = None,
        allowed: ArrayLike | None = None,
        budget: float | None = None,
        min_experts: int | None = None,
        max_experts: int | None = None,
        paid: Sequence[int] = (),
    ) -> Walk:
        """A walk over `size` requests about which nobody has been asked yet, to be taken step by step; the
        rest as of `sweep`. At a new rate the experts are preferred as at the known one that is nearest.
        Experts that are `paid`, as they are asked in any case, cost nothing more."""
        check_is_fitted(self)
        rate = self.rate if rate is None else rate
        known = min(self.starts_, key=lambda one: (abs(one - rate), one), default=rate)
        charged, may = self._may(size, prices, allowed)
        if paid:
            charged, already = charged.copy(), list(paid)
            if budget is not None:
                budget -= float(charged[:, already].sum(axis=1).max(initial=0))
            charged[:, already] = 0
        rules = self._rules(rate, budget)
        free = self.stored_.experts - self._experts
        rules = replace(
            rules,
            min_experts=rules.min_experts if min_experts is None else min_experts + free,
            max_experts=rules.max_experts if max_experts is None else max_experts + free,
        )
        return self._walk([(rules, self.starts(known))], charged, may, None)

    def forward(
        self,
        size: int,
        rate: float | None = None,
        *,
        allowed: ArrayLike | None = None,
        budget: float | None = None,
    ) -> list[int]:
        """Up to `size` experts within the budget, chosen one after another so that the stored items lose as
        little as they can: whom to ask at once, without looking at a request."""
        check_is_fitted(self)
        rate = self.rate if rate is None else rate
        may = np.ones(self._experts, bool) if allowed is None else np.asarray(allowed, bool)
        left, found = self._rules(rate, budget).budget, list[int]()
        while len(found) < size:
            fits = [e for e in np.flatnonzero(may).tolist() if e not in found and self.prices_[e] <= left]
            if not fits:
                break
            found.append(min(fits, key=lambda expert: self._lost((*found, expert), rate)))
            left -= self.prices_[found[-1]]
        return found

    def _lost(self, experts: Sequence[int], rate: float) -> float:
        """What asking some experts, and no others, loses at the stored items, prices included."""
        rows, contexts = np.arange(len(self.stored_)), range(self._experts, self.stored_.experts)
        table = self.losses_.at(tuple(sorted((*experts, *contexts))), rows)
        if self.stored_.chooses:
            charges = rate * self.prices_[: self._experts]
            charges[list(experts)] = 0
            table = missed(self.stored_.values, table[:, None], charges[None, None])
        return float(table.mean() + rate * self.prices_[list(experts)].sum())

    def _may(
        self, size: int, prices: ArrayLike | None, allowed: ArrayLike | None
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Prices (m, K) and marks (m, K) of who may be asked, with those of contexts."""
        k, free = self._experts, self.stored_.experts - self._experts
        charged = self.prices_[:k] if prices is None else np.asarray(prices, float)
        may = np.ones(k, bool) if allowed is None else np.asarray(allowed, bool)
        charged, may = np.broadcast_to(charged, (size, k)), np.broadcast_to(may, (size, k))
        if free:
            charged = np.concatenate([charged, np.zeros((size, free))], axis=1)
            may = np.concatenate([may, np.ones((size, free), bool)], axis=1)
        return charged, may

    def _rehearsed(self, items: Ints, plans: Sequence[Plan]) -> list[Walks]:
        size = (len(items), self.stored_.experts)
        outputs = [block[items] for block in self.stored_.blocks]
        return self._walks(
            outputs, plans, np.broadcast_to(self.prices_, size), np.ones(size, bool), np.asarray(items)
        )

    def _walks(
        self,
        outputs: Sequence[Floats],
        plans: Sequence[Plan],
        prices: Floats,
        allowed: NDArray[np.bool_],
        exclude: Ints | None,
    ) -> list[Walks]:
        """Walks for each plan, chunk by chunk."""
        parts = []
        ways = min(len(plans), SPREAD * len({starts[0] for _, starts in plans}))
        widest = max(*self.stored_.values.shape[1:], self.stored_.experts**self.lookahead)
        size = max(1, CHUNK // max(ways * len(self.stored_), len(plans) * widest))
        for start in range(0, len(prices), size):
            rows = np.arange(start, min(len(prices), start + size))
            walk = self._walk(plans, prices[rows], allowed[rows], None if exclude is None else exclude[rows])
            parts.append(walk.run(_reader(outputs, rows)))
        return [Walks.joined(walks) for walks in zip(*parts, strict=True)]

    def _walk(
        self, plans: Sequence[Plan], prices: Floats, allowed: NDArray[np.bool_], exclude: Ints | None
    ) -> Walk:
        used = self._used()
        alone = len(prices) == len(plans) == 1 and exclude is None
        states = Lone(self.stored_) if alone else States(self.stored_, len(prices), exclude)
        near = {"neighbours": used["m_neighbors"], "ties": used["ties"]}
        return Walk(Expectations(states, self.losses_, self.prices_, **near), plans, prices, allowed)

    def starts(self, rate: float) -> list[int]:
        """All experts, the best to ask first at the front, for one rate."""
        self.find_starts([rate])
        return self.starts_[rate]

    def find_starts(self, rates: Iterable[float]) -> None:
        """Put the experts in order for several rates at once, in `starts_`."""
        missing = [rate for rate in dict.fromkeys(rates) if rate not in self.starts_]
        for rate, found in zip(missing, self._first_losses(missing) if missing else [], strict=True):
            self.starts_[rate] = [int(expert) for expert in np.argsort(found, kind="stable")]

    def _first_losses(self, rates: Sequence[float]) -> list[Floats]:
        """What asking each expert first loses (K,), its price included, at each rate."""
        k = self.stored_.experts
        if self._experts < k:  # contexts cost nothing: they are looked at first
            return [np.arange(k)[::-1].astype(float) for _ in rates]
        if self._used()["start"] == "mean_loss" or k == 1:
            return self._mean_losses(rates)
        size = int(np.clip(ROLLOUT // k, FEWEST, MOST))
        items = np.sort(np.random.default_rng(self.random_state).permutation(len(self.stored_))[:size])
        alone = self._mean_losses(rates)
        tried = [np.argsort(losses, kind="stable")[:FIRSTS].tolist() for losses in alone]
        orders = [[first, *(e for e in range(k) if e != first)] for first in range(k)]
        plans = [
            (self._rules(rate, None), orders[e]) for rate, few in zip(rates, tried, strict=True) for e in few
        ]
        walks = iter(self._rehearsed(items, plans))
        values = self.stored_.values[items]
        best = values.max(axis=1)
        found = []
        for rate, few, losses in zip(rates, tried, alone, strict=True):
            most = float(np.ptp(values)) + rate * float(self.prices_.sum())
            found.append(losses + most)  # those that are not tried come last
            for expert in few:
                walk = next(walks)
                lost = best - values[np.arange(len(items)), walk.answers] + rate * walk.spent
                found[-1][expert] = lost.mean()
        return found

    def _mean_losses(self, rates: Sequence[float]) -> list[Floats]:
        """What asking each expert alone loses (K,), its price included, at each rate (eq. 4.3)."""
        return [np.array([self._lost((e,), rate) for e in range(self.stored_.experts)]) for rate in rates]

    def _used(self) -> dict[str, Any]:
        return REFERENCE if self.compat == "reference" else {name: getattr(self, name) for name in REFERENCE}

    def _rules(self, rate: float, budget: float | None) -> Rules:
        free = self.stored_.experts - self._experts
        return Rules(
            rate=rate,
            min_experts=1 if free else self._used()["min_experts"],
            max_experts=None if self.max_experts is None else self.max_experts + free,
            lookahead=self.lookahead,
            budget=next((float(limit) for limit in (budget, self.budget) if limit is not None), np.inf),
            continue_on_tie=self.compat == "reference",
        )

    def _split(self, x: Floats) -> tuple[Floats, ...]:
        widths = [1] * x.shape[1] if self.blocks is None else list(self.blocks)
        if sum(widths) != x.shape[1]:
            raise ValueError(f"blocks sum to {sum(widths)} columns, X has {x.shape[1]}")
        return tuple(np.ascontiguousarray(b) for b in np.split(x, np.cumsum(widths)[:-1], axis=1))

    def _checked_prices(self) -> Floats:
        k = self._experts
        prices = np.ones(k) if self.prices is None else np.asarray(self.prices, float)
        if prices.shape != (k,) or not (np.isfinite(prices) & (prices >= 0)).all():
            raise ValueError(f"prices must be {k} finite numbers of at least 0, are {prices.tolist()}")
        return np.concatenate([prices, np.zeros(self.stored_.experts - k)])


class FrugalPolicy(ClassifierMixin, _Frugal):
    """Ask as few classifiers as it pays to, one after another, and fuse what they say; parameters above."""

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Store outputs (n, sum of widths) and labels (n,)."""
        x, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        blocks = self._split(np.asarray(x, np.float64))
        self._store(blocks, np.eye(len(self.classes_))[labels])
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Labels (m,) after as many experts as it paid to ask."""
        answers = self.decide(X).answers
        return np.asarray(self.classes_[answers])

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Scores (m, C) of the last fuser, as shares."""
        scores = self.decide(X).scores
        return np.asarray(scores / scores.sum(axis=1, keepdims=True))


class FrugalRouter(_Frugal):
    """Ask as few generators as it pays to, and choose whose response is given: the highest predicted quality
    less its price. A chosen expert that had not been asked is called once more, and paid for. Parameters as
    above, but for `loss`, which is regret."""

    _chooses = True

    def __init__(
        self,
        blocks: Sequence[int] | None = None,
        prices: Sequence[float] | None = None,
        rate: float = 0.0,
        fuser: Any = None,  # noqa: ANN401
        n_neighbors: int = 9,
        m_neighbors: int = 30,
        leave_one_out: bool = True,
        ties: Ties = "inclusive",
        start: Start = "rollout",
        min_experts: int = 1,
        max_experts: int | None = None,
        lookahead: int = 1,
        budget: float | None = None,
        random_state: int = 0,
    ) -> None:
        super().__init__(
            blocks=blocks,
            prices=prices,
            rate=rate,
            fuser=fuser,
            n_neighbors=n_neighbors,
            m_neighbors=m_neighbors,
            leave_one_out=leave_one_out,
            ties=ties,
            start=start,
            min_experts=min_experts,
            max_experts=max_experts,
            lookahead=lookahead,
            budget=budget,
            random_state=random_state,
        )

    def fit(self, X: ArrayLike, quality: ArrayLike) -> Self:  # noqa: N803
        """Store features of the responses (n, sum of widths) and their quality (n, K). Blocks behind those of
        the K experts are contexts: what is known of an item for nothing, and looked at first."""
        x = np.asarray(validate_data(self, X), np.float64)
        worth = check_array(quality, dtype=np.float64)
        self._store(self._split(x), worth)
        return self

    def predict(self, X: ArrayLike) -> Ints:  # noqa: N803
        """Indices (m,) of the experts whose response is given."""
        return self.decide(X).answers


def _reader(outputs: Sequence[Floats], rows: Ints) -> Callable[[int, Ints], Floats]:
    """Answers of experts that are known already, to a chunk of requests."""
    return lambda expert, at: outputs[expert][rows[at]]
