"""Learns whom to ask from arrays, in this process: what the steps of a job do, without Ray and files.

Policies of each kind are rehearsed on folds of the items; the one whose rehearsals are worth most for their
price is fitted on all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from actors.routing import artefact, fitting, judging, rehearsing
from actors.routing.artefact import Artefact
from actors.routing.curves import Curve
from actors.routing.pool import About, Floats, Pool, Rows
from configs.schema.base import ConfigError, identity
from configs.schema.foe import FoeConfig, Fuser


def pool_of(blocks: Mapping[str, Floats], labels: Rows, classes: Sequence[str], config: FoeConfig) -> Pool:
    """The pool of experts' outputs (n, d_k), by name, for items of these labels (n,), all to be learnt from.

    ConfigError where prices are given of somebody else.
    """
    stranger = next((name for name in config.prices if name not in blocks), None)
    if stranger is not None:
        raise ConfigError(f"prices: no expert {stranger!r}; there are {', '.join(blocks)}")
    n, count = len(labels), len(classes)
    right = [
        block.argmax(axis=1) == labels if block.shape[1] == count else np.zeros(n)
        for block in blocks.values()
    ]
    names = [classes[label] for label in labels.tolist()]
    return Pool(
        About(tuple(blocks), "label", tuple(classes), config.unit or "calls"),
        pa.table({"item": [str(row) for row in range(n)], "label": names, "part": ["fit"] * n}),
        tuple(blocks.values()),
        np.eye(count)[labels],
        np.stack(right, axis=1).astype(float),
        np.ones((n, len(blocks))) * [config.prices.get(name, 1.0) for name in blocks],
    )


def learn(pool: Pool, config: FoeConfig) -> Artefact:
    """The policy that does best in rehearsals, with all that it was learnt from."""
    rows = fitting.stored_rows(pool, config.split.max_stored, config.seed)

    def best() -> int:
        return int(fitting.best_neighbours(pool, rows, config.seed)["neighbours"])

    settings = fitting.settled(config.policy, best, float(pool.expected_prices.max()))
    about = {"name": config.name, "features": identity(config.features), "seed": config.seed}
    params: dict[str, Any] = {**settings, **about}
    kinds = {f"frugal_{kind}": kind for kind in config.policy_kinds(len(pool.about.experts))}
    rehearsed = {name: _rehearsed(pool, rows, {**params, "kind": kind}) for name, kind in kinds.items()}
    curves = {name: curve for name, (curve, _) in rehearsed.items()}
    chosen = judging.choose(curves, float(pool.expected_prices.sum()))
    curve, distances = rehearsed[chosen]
    policy = fitting.fitted(pool, rows, params, kinds[chosen])
    _look_up(policy, config, kinds[chosen])
    policy.find_starts(params["rates"])
    manifest = {
        **artefact.described(pool, params, kinds[chosen]),
        "calibration": curve.points(),
        "distances": distances,
        "contexts": 0,
        "rate": curve.points()[judging.best_setting(curve)]["lambda"],
        "served": [],
    }
    return Artefact(policy, manifest, pool.items.take(rows))


def _rehearsed(pool: Pool, rows: Rows, params: dict[str, Any]) -> tuple[Curve, dict[str, list[float]]]:
    folds = range(rehearsing.folds(len(rows)))
    walked = [rehearsing.walked(pool, rows, {**params, "fold": fold}) for fold in folds]
    return Curve.joined([curve for curve, _ in walked]), rehearsing.distances([ends for _, ends in walked])


def _look_up(policy: Any, config: FoeConfig, kind: Fuser) -> None:  # noqa: ANN401
    """Compute beforehand what a job's policy looks up: tables of small subsets, or models of all."""
    spec, experts, rows = config.policy, len(policy.prices_), np.arange(len(policy.stored_))
    if kind == "knn":
        subsets = fitting.eager_subsets(experts, spec.eager_depth, spec.eager_tables)
        for subset, table in zip(subsets, policy.losses_.build(subsets, rows), strict=True):
            policy.losses_.add(subset, table)
    elif experts <= fitting.ALL_SUBSETS:
        for subset in fitting.eager_subsets(experts, experts, 2**fitting.ALL_SUBSETS):
            policy.losses_.fit(subset)
