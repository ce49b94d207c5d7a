"""Steps of what fusers and policies are compared with (foe.md, section 4): votes, single experts and oracles,
fixed orders and random subsets, FrugalML, the cascade, and routers that look at the input alone.

Each writes the curve of one rival. Rules are learnt from the items that fusers learn from, and judged on the
others; prices that a rule may know are means over the first.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from actors.routing.curves import Curve
from actors.routing.fitting import read_pool, stored_rows
from actors.routing.pool import Pool
from cluster.storage import Run, Step
from fusion.routing import baselines
from fusion.routing.cascade import Cascade, Trust
from fusion.routing.frugalml import FrugalML
from fusion.routing.knn import KnnFuser
from fusion.routing.losses import KnnLosses
from fusion.routing.stored import Stored

DRAWS = 10
CHOSEN_ON = 2000
INPUT_NEIGHBOURS = 51
Choice = tuple[NDArray[np.intp], NDArray[np.bool_]]
"""Whose answer is given (m,) and who was called (K, m)."""


def rival(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """One rival. `params`: pool, name, rates, seed, neighbours, max_stored."""
    pool = read_pool(run, params["pool"])
    return RIVALS[params["name"]](pool, params).write(step.files)


def names(pool_answer: str, *, inputs: bool, experts: int) -> list[str]:
    """The rivals that make sense for a pool."""
    found = ["any_correct", "best_single", "mean_single"]
    if pool_answer == "label":
        found += ["ensemble", "majority", "max_softmax", "weighted_vote"]
        found += ["static_order", "random_order", "frugalml", "cascade"] if experts > 1 else []
    return found + (["input_gate", "input_knn"] if inputs and experts > 1 else [])


def _fixed(pool: Pool, chosen: NDArray[np.intp]) -> Curve:
    """One expert per item."""
    test = pool.rows("test")
    return Curve.single(
        pool.quality[test, chosen],
        pool.prices[test, chosen],
        np.ones(len(test), int),
        _says(pool, test, chosen),
    )


def _says(pool: Pool, rows: NDArray[np.intp], chosen: NDArray[np.intp]) -> NDArray[np.intp]:
    """The answers of chosen experts: their labels, or the experts themselves."""
    return chosen if pool.about.answer == "expert" else pool.raw["labels"][rows, chosen]


def _best_single(pool: Pool, params: dict[str, Any]) -> Curve:  # noqa: ARG001
    best = baselines.single_best(pool.quality[pool.rows("fit")].T)
    return _fixed(pool, np.full(len(pool.rows("test")), best))


def _mean_single(pool: Pool, params: dict[str, Any]) -> Curve:  # noqa: ARG001
    test = pool.rows("test")
    none = np.full(len(test), -1)
    return Curve.single(pool.quality[test].mean(axis=1), pool.prices[test].mean(axis=1), none * 0 + 1, none)


def _any_correct(pool: Pool, params: dict[str, Any]) -> Curve:  # noqa: ARG001
    """The cheapest of the best answers, as an oracle would know."""
    test = pool.rows("test")
    quality, prices = pool.quality[test], pool.prices[test]
    best = quality == quality.max(axis=1, keepdims=True)
    return _fixed(pool, np.where(best, prices, np.inf).argmin(axis=1))


def _vote(rule: Callable[[NDArray[np.float64]], NDArray[np.intp]]) -> Callable[[Pool, dict[str, Any]], Curve]:
    def voted(pool: Pool, params: dict[str, Any]) -> Curve:  # noqa: ARG001
        test = pool.rows("test")
        answers = rule(np.stack([block[test] for block in pool.blocks]))
        everyone = np.full(len(test), len(pool.blocks))
        return Curve.single(pool.values[test, answers], pool.prices[test].sum(axis=1), everyone, answers)

    return voted


def _subsets(pool: Pool, subsets: list[list[tuple[int, ...]]], params: dict[str, Any]) -> Curve:
    """Nearest-neighbour fusers on fixed subsets; where there are several at a place, what they are worth on
    average."""
    stored = stored_rows(pool, params["max_stored"], params["seed"])
    test, found = pool.rows("test"), []
    for drawn in subsets:
        parts = []
        for subset in drawn:
            x = np.concatenate([pool.blocks[expert] for expert in subset], axis=1)
            model = KnnFuser(min(params["neighbours"], len(stored))).fit(x[stored], pool.labels[stored])
            answers = model.predict(x[test])
            parts.append(
                (pool.values[test, answers], pool.prices[test][:, list(subset)].sum(axis=1), answers)
            )
        worth, cost = (np.mean([part[i] for part in parts], axis=0) for i in (0, 1))
        found.append((worth, cost, np.full(len(test), len(drawn[0])), parts[0][2]))
    return Curve(
        np.arange(1.0, len(found) + 1),
        *(np.stack([of[i] for of in found]) for i in range(4)),  # type: ignore[arg-type]
    )


def _static_order(pool: Pool, params: dict[str, Any]) -> Curve:
    """The best fixed order by losses of stored items that are left out, at every length."""
    rows = stored_rows(pool, params["max_stored"], params["seed"])
    stored = Stored(tuple(block[rows] for block in pool.blocks), pool.values[rows])
    tried = np.sort(np.random.default_rng(params["seed"]).permutation(len(rows))[:CHOSEN_ON])
    losses = KnnLosses(stored, neighbours=params["neighbours"], loss="zero_one")
    order = baselines.forward_selection(
        len(pool.blocks), lambda subset: float(losses.at(subset, tried).mean())
    )
    asked: list[int] = []
    subsets = []
    for expert, _ in order:
        asked.append(expert)
        subsets.append([tuple(sorted(asked))])
    return _subsets(pool, subsets, params)


def _random_order(pool: Pool, params: dict[str, Any]) -> Curve:
    """Random subsets of every size (of sizes 1, 2, 4, … of many experts), what they are worth on average."""
    k = len(pool.blocks)
    sizes = range(1, k + 1) if k <= 6 else [size for size in (1, 2, 4, 6, 8, 12, 16, 24, 32, k) if size <= k]
    draws = DRAWS if k <= 6 else 3
    return _subsets(
        pool,
        [list(baselines.random_subsets(k, size, draws, params["seed"])) for size in sorted(set(sizes))],
        params,
    )


def _ruled(pool: Pool, params: dict[str, Any], choose: Callable[[float], Choice]) -> Curve:
    """A rule that gives one expert's answer, at every rate."""
    test, found = pool.rows("test"), []
    for rate in params["rates"]:
        chosen, called = choose(rate)
        found.append(
            (
                pool.quality[test, chosen],
                (called.T * pool.prices[test]).sum(axis=1),
                called.sum(axis=0),
                _says(pool, test, chosen),
            )
        )
    return Curve(np.asarray(params["rates"], float), *(np.stack([of[i] for of in found]) for i in range(4)))  # type: ignore[arg-type]


def _frugalml(pool: Pool, params: dict[str, Any]) -> Curve:
    fit, test = pool.rows("fit"), pool.rows("test")
    labels, confidence = pool.raw["labels"].T, pool.raw["confidence"].T
    right = pool.quality[fit].T > 0.5

    def choose(rate: float) -> Choice:
        rule = FrugalML(pool.expected_prices, rate).fit(labels[:, fit], confidence[:, fit], right)
        return rule.decide(labels[:, test], confidence[:, test])

    return _ruled(pool, params, choose)


def _cascade(pool: Pool, params: dict[str, Any]) -> Curve:
    fit, test = pool.rows("fit"), pool.rows("test")
    right, trust = pool.quality[fit].T > 0.5, Trust()
    known = trust.fit_predict(tuple(block[fit] for block in pool.blocks), right)
    new = trust.predict(tuple(block[test] for block in pool.blocks))
    return _ruled(
        pool, params, lambda rate: Cascade(pool.expected_prices, rate).fit(known, right).decide(new)
    )


def _routed(predict: Callable[[Pool, dict[str, Any]], NDArray[np.float64]]) -> Callable[..., Curve]:
    """A router that asks the one expert of the highest predicted quality (m, K) less its price."""

    def routed(pool: Pool, params: dict[str, Any]) -> Curve:
        quality = predict(pool, params)

        def choose(rate: float) -> Choice:
            chosen = (quality - rate * pool.expected_prices).argmax(axis=1)
            return chosen, np.eye(len(pool.blocks), dtype=bool)[:, chosen]

        return _ruled(pool, params, choose)

    return routed


def _known_inputs(pool: Pool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    assert pool.inputs is not None  # noqa: S101 - `names` offers these rivals only then
    scale = StandardScaler().fit(pool.inputs[pool.rows("fit")])
    return scale.transform(pool.inputs[pool.rows("fit")]), scale.transform(pool.inputs[pool.rows("test")])


def _gate(pool: Pool, params: dict[str, Any]) -> NDArray[np.float64]:  # noqa: ARG001
    """One logistic regression per expert: whether it is right, from the input."""
    known, new = _known_inputs(pool)
    quality = pool.quality[pool.rows("fit")]
    found = np.empty((len(new), quality.shape[1]))
    for expert, worth in enumerate(quality.T):
        right = worth > 0.5
        if right.all() or not right.any():
            found[:, expert] = worth.mean()
        else:
            found[:, expert] = LogisticRegression(max_iter=1000).fit(known, right).predict_proba(new)[:, 1]
    return found


def _input_knn(pool: Pool, params: dict[str, Any]) -> NDArray[np.float64]:  # noqa: ARG001
    """Mean quality among the nearest inputs (Shnitzer et al., arXiv 2309.15789)."""
    known, new = _known_inputs(pool)
    near = NearestNeighbors(n_neighbors=min(INPUT_NEIGHBOURS, len(known)), algorithm="brute").fit(known)
    return np.asarray(
        pool.quality[pool.rows("fit")][near.kneighbors(new, return_distance=False)].mean(axis=1)
    )


RIVALS: dict[str, Callable[[Pool, dict[str, Any]], Curve]] = {
    "any_correct": _any_correct,
    "best_single": _best_single,
    "mean_single": _mean_single,
    "ensemble": _vote(baselines.ensemble),
    "majority": _vote(baselines.majority),
    "max_softmax": _vote(baselines.max_softmax),
    "weighted_vote": _vote(baselines.weighted_vote),
    "static_order": _static_order,
    "random_order": _random_order,
    "frugalml": _frugalml,
    "cascade": _cascade,
    "input_gate": _routed(_gate),
    "input_knn": _routed(_input_knn),
}
