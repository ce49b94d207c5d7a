import numpy as np
import pandas as pd
import pytest

from actors.routing import collected
from configs.schema.base import ConfigError
from tests.actors.routing.conftest import config_of


def vectors_of(texts):
    """Two numbers that tell questions apart, and how long a text is."""
    return np.array([[text.startswith("add"), len(text), 1.0] for text in texts], float)


def test_a_pool_of_language_models(llms):
    pool = collected.read(config_of(llms, answer="expert"), vectors_of)
    assert pool.about.answer == "expert"
    assert pool.prices[:, 0].max() == pytest.approx(200)
    assert pool.inputs.shape == (200, 3)
    assert [block.shape for block in pool.blocks] == [(200, 2)] * 3
    assert pool.items["domain"].to_pylist()[0] in {"sums", "names"}
    first, second = pool.blocks[0][:, 0], pool.blocks[1][:, 0]
    both_right = (pool.quality[:, :2] == 1).all(axis=1)
    assert (first[both_right] == second[both_right]).all()


def test_distances_do_not_see_codes(llms):
    pool = collected.read(config_of(llms, answer="expert"), vectors_of)
    assert len(pool.seen(numbers=False)) == 4
    assert (pool.seen(numbers=True)[1][:, 0] == 0).all()
    assert (pool.seen(numbers=False)[1][:, 0] != 0).any()


def test_features_can_be_left_out(llms):
    none = {"prompt": False, "responses": False}
    pool = collected.read(config_of(llms, answer="expert", features=none), vectors_of)
    assert pool.inputs is None
    assert [block.tolist() == [[-1.0]] * 200 for block in pool.blocks] == [True] * 3


def test_the_column_of_the_quality(llms):
    path = llms / "outputs.parquet"
    outputs = pd.read_parquet(path)
    outputs.rename(columns={"score": "win_vs_best"}).to_parquet(path)
    assert collected.read(config_of(llms, answer="expert")).quality.mean() > 0.3
    outputs.rename(columns={"score": "stars"}).to_parquet(path)
    with pytest.raises(ConfigError, match="no column score or correct; there are response, stars, cost_usd"):
        collected.read(config_of(llms, answer="expert"))
    named = {"kind": "recorded", "path": str(llms), "quality": "stars"}
    assert collected.read(config_of(llms, answer="expert", experts=named)).quality.mean() > 0.3
