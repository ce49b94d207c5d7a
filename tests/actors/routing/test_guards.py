from dataclasses import replace

import numpy as np
import pandas as pd

from actors.routing import collected, guards
from tests.actors.routing.conftest import config_of


def test_nothing_is_doubtful_about_honest_services(services):
    config = config_of(services)
    assert guards.doubts(config, collected.read(config)) == []


def test_experts_that_know_their_own_items_by_heart(services):
    config = config_of(services)
    pool = collected.read(config)
    quality = pool.quality.copy()
    quality[:100, 0], quality[100:, 0] = 1, 0.5
    found = guards.doubts(config, replace(pool, quality=quality, items=pool.items.drop_columns("domain")))
    assert len(found) == 1
    assert "expert dear is right on 100.0%" in found[0]
    assert guards.doubts(config.model_copy(update={"in_sample": True}), replace(pool, quality=quality)) == []


def test_the_recorded_cifar_outputs_are_contaminated(shared):
    config = config_of(shared / "data/experts/foe_cifar100_superclass")
    found = guards.doubts(config, collected.read(config))
    assert len(found) == 1
    assert "18 more experts" in found[0]


def test_recorded_services_are_not(shared):
    for name in ("frugalml_ferplus", "frugalml_shop"):
        config = config_of(shared / "data/experts" / name)
        found = guards.doubts(config, collected.read(config))
        assert not any("trained on" in doubt for doubt in found)


def test_texts_that_are_learnt_from_and_judged(services):
    path = services / "items.parquet"
    pd.read_parquet(path).assign(text=lambda t: [f"Text  {i % 290}" for i in t.item]).to_parquet(path)
    config = config_of(services)
    (found,) = guards.doubts(config, collected.read(config))
    assert found.endswith("items that are judged repeat the text of one that is learnt from")


def test_prices_that_may_be_in_another_unit(services):
    config = config_of(services, prices={"cheap": 0.0001})
    (found,) = guards.doubts(config, collected.read(config))
    assert "expert cheap is 100,000 times below the highest" in found
    assert np.isfinite(collected.read(config).expected_prices).all()
