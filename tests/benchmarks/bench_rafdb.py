"""FrugalFoE on boosted trees against FrugalML and the cascade, at equal prices, over several splits.

Four recorded services that read emotions from faces, at their prices ($ per 10,000 requests). Curves are
compared by their hulls at prices from $3 to $30; a paired t-test over the splits says what chance leaves.

    python -m tests.benchmarks.bench_rafdb FOLDER [SPLITS]
"""

import sys

import numpy as np
from threadpoolctl import threadpool_limits

from actors.routing import collected, fitting, rivals
from actors.routing.curves import Curve
from configs.load import load
from configs.schema.base import identity
from configs.schema.foe import FoeConfig, rates
from fusion.routing.evaluation import Point, paired, quality_at

CONFIG = "configs/foe/frugalml_rafdb.yaml"
PRICES = (3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30)
SPLITS = 5


def curves(folder: str, seed: int) -> dict[str, list[Point]]:
    """The curves of one split."""
    config = load(CONFIG, FoeConfig, [f"experts.path={folder}", f"seed={seed}"])
    pool = collected.read(config)
    fit, test = pool.rows("fit"), pool.rows("test")
    chosen = list(rates(float(pool.expected_prices.max())))
    settings = {"policy": identity(config.policy), "neighbours": 51, "sample": config.policy.sample}
    policy = fitting.fitted(pool, fit, {**settings, "seed": seed}, "trees")
    walks = policy.sweep(fitting.inputs(pool, "trees", test), chosen)
    found = {"frugal": fitting.curve_of(policy, walks, pool, test, chosen)}
    params = {"rates": chosen, "seed": seed, "policy": settings["policy"]}
    found |= {name: rivals.RIVALS[name](pool, params) for name in ("frugalml", "cascade")}
    return {name: _points(curve) for name, curve in found.items()}


def _points(curve: Curve) -> list[Point]:
    return [Point(point["cost"], point["accuracy"]) for point in curve.points()]


def main(arguments: list[str]) -> None:
    """Print the table."""
    if not arguments:
        print("bench_rafdb: skipped; give the folder of the recorded services")
        return
    folder, splits = arguments[0], int(arguments[1]) if len(arguments) > 1 else SPLITS
    with threadpool_limits(1):
        found = [curves(folder, seed) for seed in range(splits)]
    print(
        f"{'price':>6}{'FrugalFoE':>11}{'FrugalML':>10}{'gain':>8}{'p':>9}{'cascade':>10}{'gain':>8}{'p':>9}"
    )
    for price in PRICES:
        at = {name: [quality_at(of[name], price) for of in found] for name in found[0]}
        line = f"{price:6}{np.mean(at['frugal']):11.4f}"
        for name in ("frugalml", "cascade"):
            test = paired(at["frugal"], at[name])
            line += f"{np.mean(at[name]):10.4f}{test.difference:+8.4f}{test.p:9.2g}"
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
