"""Rehearsals: what a policy is worth on items that it has never seen, found on those that are learnt from.

Stored items are split into folds. The items of a fold are walked over by a policy that stores the others
only: neither the losses it looks up nor its fusers know the items it decides about, so that what comes out
may be expected of new requests (but for what a fifth more stored items would add).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from actors.routing import fitting
from actors.routing.curves import Curve
from actors.routing.pool import Pool
from cluster.storage import Run, Step
from fusion.routing.frugal import Walks

FOLDS = 5
ENOUGH = 1000
"""Items that are rehearsed where there are as many."""
QUANTILES = (0.5, 0.95, 0.99)
FEWEST = 20
"""Walks that must have ended at a subset for its quantiles to be kept."""
Ends = dict[str, np.ndarray]
"""Mean distances to the nearest stored items at the end of walks, by the subset that was asked."""


def folds(stored: int) -> int:
    """How many folds are rehearsed: as many as it takes to see enough items."""
    return int(np.clip(np.ceil(ENOUGH * FOLDS / max(1, stored)), 1, FOLDS))


def held_out(stored: int, fold: int, seed: int) -> np.ndarray:
    """The places of a fold among the stored items, in order; one item at least."""
    order = np.random.default_rng([seed, FOLDS]).permutation(stored)
    return np.sort(order[fold % stored :: min(FOLDS, stored)])


def rehearse(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Walk over a fold at every rate. `params` as of `fitting.policy_of`, and kind, rates, fold."""
    pool = fitting.policy_pool(run, params)
    rows = fitting.stored_rows(pool, params["max_stored"], params["seed"])
    curve, ended = walked(pool, rows, params)
    step.files.write_bytes("ends.safetensors", save(ended))
    return curve.write(step.files)


def walked(pool: Pool, rows: fitting.Rows, params: dict[str, Any]) -> tuple[Curve, Ends]:
    """What walks over a fold of stored rows cost and were worth, and where they ended. `params` as of
    `rehearse`."""
    kind, rates = params["kind"], params["rates"]
    out = held_out(len(rows), params["fold"], params["seed"])
    policy = fitting.fitted(pool, np.delete(rows, out), params, kind)
    walks = policy.sweep(fitting.inputs(pool, kind, rows[out]), rates)
    return fitting.curve_of(policy, walks, pool, rows[out], rates), ends(walks)


def ends(walks: Sequence[Walks]) -> Ends:
    """Where walks ended, and how far from the stored items."""
    found: dict[str, list[np.ndarray]] = {}
    for walk in walks:
        asked = np.sort(np.where(walk.order < 0, np.iinfo(np.intp).max, walk.order), axis=1)
        subsets, of = np.unique(asked, axis=0, return_inverse=True)
        for number, subset in enumerate(subsets):
            name = ",".join(str(expert) for expert in subset if expert < np.iinfo(np.intp).max)
            found.setdefault(name, []).append(walk.distance[of.reshape(-1) == number])
    return {name: np.concatenate(parts) for name, parts in sorted(found.items())}


def distances(parts: Sequence[Ends]) -> dict[str, list[float]]:
    """Quantiles of the distances at the ends of walks, by subset: what is usual for known domains."""
    names = sorted({name for part in parts for name in part})
    joined = {name: np.concatenate([part[name] for part in parts if name in part]) for name in names}
    return {
        name: [round(float(q), 9) for q in np.quantile(values, QUANTILES)]
        for name, values in joined.items()
        if len(values) >= FEWEST
    }


def joined(run: Run, keys: Sequence[str]) -> tuple[Curve, dict[str, list[float]]]:
    """The curve over the items of all rehearsed folds, and the usual distances."""
    files = [run.below(f"steps/{key}") for key in keys]
    curve = Curve.joined([Curve.read(of) for of in files])
    return curve, distances([load(of.read_bytes("ends.safetensors")) for of in files])
