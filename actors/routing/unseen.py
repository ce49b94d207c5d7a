"""The step that tests the unseen-domain score: leave some of the domains out of the stored items, and see
whether the distance to the nearest stored items tells requests from there apart."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from actors.routing.fitting import read_pool, stored_rows
from actors.routing.pool import Pool
from cluster.storage import Run, Step
from configs.schema.foe import Unseen
from fusion.routing.neighbours import GRID
from fusion.routing.states import States
from fusion.routing.stored import Stored

MOST = 2000
POINTS = 60
QUANTILE = 0.95
Floats = NDArray[np.float64]


def unseen(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Area under the ROC of the score after one expert, half of them, and all; the ROC of the last. `params`:
    pool, unseen, sample, max_stored, seed. Nothing where the items have no groups to leave out."""
    pool = read_pool(run, params["pool"])
    column, values = _left_out(pool, Unseen.model_validate(params["unseen"]))
    if not values:
        return {"column": None}
    groups = np.array([str(value) for value in pool.items[column].to_pylist()])
    new = np.isin(groups, values)
    rows = stored_rows(pool, params["max_stored"], params["seed"])
    stored = rows[~new[rows]]
    test = _sample(pool.rows("test"), params["seed"])
    truth = new[test]
    if not truth.any() or truth.all() or len(stored) < 2:
        return {"column": None}
    k = len(pool.about.experts)
    own = _sample(np.arange(len(stored)), params["seed"])
    found = {}
    for count in sorted({1, (k + 1) // 2, k}):
        known = _distances(pool, stored, stored[own], own, count, params["sample"])
        score = _distances(pool, stored, test, None, count, params["sample"])
        limit = float(np.quantile(known, QUANTILE))
        found[str(count)] = {
            "auroc": round(float(roc_auc_score(truth, score)), 6),
            "limit": limit,
            "flagged_seen": round(float((score[~truth] > limit).mean()), 6),
            "flagged_unseen": round(float((score[truth] > limit).mean()), 6),
        }
    false, true, _ = roc_curve(truth, score)
    at = np.unique(np.linspace(0, len(false) - 1, POINTS).round().astype(int))
    return {
        "column": column,
        "values": [_name(pool, column, value) for value in values],
        "n": [int((~truth).sum()), int(truth.sum())],
        "experts": found,
        "roc": [[round(float(f), 5), round(float(t), 5)] for f, t in zip(false[at], true[at], strict=True)],
    }


def _left_out(pool: Pool, spec: Unseen) -> tuple[str, list[str]]:
    column = spec.column or ("domain" if "domain" in pool.items.column_names else "label")
    if column not in pool.items.column_names:
        return column, []
    if spec.values:
        return column, list(spec.values)
    every = sorted({str(value) for value in pool.items[column].to_pylist()}, key=lambda v: (len(v), v))
    return column, every[-max(1, len(every) // 6) :] if len(every) > 2 else []


def _name(pool: Pool, column: str, value: str) -> str:
    named = column == "label" and value.isdecimal() and int(value) < len(pool.about.classes)
    return pool.about.classes[int(value)] if named else value


def _sample(rows: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    return rows if len(rows) <= MOST else np.sort(np.random.default_rng(seed).permutation(rows)[:MOST])


def _distances(
    pool: Pool,
    stored: NDArray[np.intp],
    rows: NDArray[np.intp],
    own: NDArray[np.intp] | None,
    count: int,
    near: int,
) -> Floats:
    """Mean squared distance (m,) to the nearest stored items in the outputs of the first `count` experts."""
    kept = Stored(tuple(block[stored] for block in pool.blocks[:count]), pool.values[stored])
    everyone = np.arange(len(rows))
    states, of = States(kept, len(rows), own), np.zeros(len(rows), np.intp)
    for expert in range(count):
        states.tell(expert, everyone, pool.blocks[expert][rows])
        of = states.enter(of, np.full(len(rows), expert), everyone)
    at, items = states.near(near, "inclusive")
    sums = np.bincount(at, states.distances(at, items), minlength=len(states))
    return np.asarray((sums / np.maximum(np.bincount(at, minlength=len(states)), 1) / GRID)[of])
