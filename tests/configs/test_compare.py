"""The configuration of a comparison: what ships, and what the three jobs are told."""

import pytest

from configs.load import PACKAGE_ROOT, load
from configs.schema.compare import CompareConfig
from jobs.compare import describe

SHIPPED = sorted((PACKAGE_ROOT / "configs/compare").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_ships_loads_and_plans(path):
    loaded = load(str(path), CompareConfig)
    plan = describe(loaded)
    assert all(plm.name in plan for plm in loaded.plms) and "judged on eval" in plan
    assert loaded.foe().policy.fusers == ("knn", "logistic")
    assert "regmean" in loaded.merge().methods


def test_outside_scripts_may_set_the_paths_of_the_recorded_comparison():
    overrides = ["generations.path=g.parquet", "eval.path=e.csv", "elsewhere.sst2.path=s.csv"]
    loaded = load("configs/compare/imdb_recorded.yaml", CompareConfig, overrides)
    assert {plm.engine.path for plm in loaded.plms} == {"g.parquet"}
    assert {name: source.path for name, source in loaded.sets.items()} == {"eval": "e.csv", "sst2": "s.csv"}
    assert len(loaded.plms) == 6 and (loaded.stm.final.kind, loaded.stm.final.epochs) == ("full", 1)


def test_what_is_said_of_routing_and_merging_reaches_their_jobs():
    overrides = ["routing.policy.lookahead=2", "routing.fusers=[mlp]", "merging.alpha=0.5", "seed=3"]
    loaded = load("configs/compare/demo.yaml", CompareConfig, overrides)
    foe, merge = loaded.foe(), loaded.merge()
    assert (foe.seed, foe.policy.lookahead, foe.fusers) == (3, 2, ("knn", "logistic", "mlp"))
    assert (merge.seed, merge.alpha, merge.statistics) == (3, 0.5, loaded.merging.statistics)
