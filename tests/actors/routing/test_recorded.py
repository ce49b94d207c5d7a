import numpy as np
import pandas as pd
import pytest

from actors.routing import collected
from actors.routing.pool import Pool
from cluster.storage import Storage
from configs.schema.base import ConfigError
from tests.actors.routing.conftest import config_of, folder_of


def changed(folder, table, change):
    """The folder with one of its tables changed by a function."""
    path = folder / f"{table}.parquet"
    change(pd.read_parquet(path)).to_parquet(path)
    return folder


def test_a_pool_has_every_expert_and_item(services):
    pool = collected.read(config_of(services))
    assert pool.about.experts == ("dear", "middle", "cheap")
    assert pool.about.classes == ("0", "1", "2")
    assert pool.about.unit == "$ per 10,000 requests"
    assert pool.expected_prices.tolist() == [10, 4, 0.5]
    assert len(pool.rows("fit")) == len(pool.rows("test")) == 150
    label, sure = pool.raw["labels"][0, 1], pool.raw["confidence"][0, 1]
    assert pool.blocks[1][0, label] == sure
    assert pool.blocks[1][0].sum() == pytest.approx(1)
    assert (pool.quality == (pool.raw["labels"] == pool.labels[:, None])).all()


def test_a_pool_is_read_as_it_was_written(services, tmp_path):
    pool = collected.read(config_of(services))
    pool.write(Storage(str(tmp_path / "pool")))
    again = Pool.read(Storage(str(tmp_path / "pool")))
    assert again.about == pool.about
    assert again.items.equals(pool.items)
    assert all((a == b).all() for a, b in zip(again.blocks, pool.blocks, strict=True))
    assert (again.prices == pool.prices).all()
    assert again.inputs is None


def test_experts_are_chosen_and_ordered_by_name(services):
    chosen = {"kind": "recorded", "path": str(services), "names": ["cheap", "dear"]}
    assert collected.read(config_of(services, experts=chosen)).about.experts == ("cheap", "dear")
    with pytest.raises(ConfigError, match="no expert 'best'; there are dear, middle, cheap"):
        collected.read(config_of(services, experts={**chosen, "names": ["best"]}))


def test_prices_can_be_given(services):
    pool = collected.read(config_of(services, prices={"dear": 99}, unit="cents"))
    assert pool.expected_prices.tolist() == [99, 4, 0.5]
    assert pool.about.unit == "cents"
    with pytest.raises(ConfigError, match="prices: no expert 'best'"):
        collected.read(config_of(services, prices={"best": 1}))


def test_items_without_every_answer_are_left_out_and_counted(services):
    changed(services, "outputs", lambda t: t[~((t.expert == "cheap") & (t.item < 5))])
    changed(services, "outputs", lambda t: t.assign(confidence=t.confidence.where(t.item != 7)))
    pool = collected.read(config_of(services))
    assert (len(pool), pool.about.dropped) == (294, 6)
    assert "7" not in pool.items["item"].to_pylist()


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("outputs", lambda t: t[(t.expert != "cheap") | (t.item > 50)], "cheap lacks a usable answer to 17%"),
        ("outputs", lambda t: pd.concat([t, t[:1]]), "expert dear has item 0 more than once"),
        ("items", lambda t: pd.concat([t, t[:1]]), "item 0 occurs more than once"),
        (
            "outputs",
            lambda t: t.assign(confidence=1.5),
            "confidence of expert dear for item 0 is 1.5; allowed",
        ),
        ("outputs", lambda t: t.assign(cost_per_10k=-1.0), "cost_per_10k of expert dear for item 0 is -1"),
        ("outputs", lambda t: t.assign(pred=-1), "pred of expert dear for item 0 is -1; allowed: 0 to 2"),
        ("outputs", lambda t: t.drop(columns="pred"), "no column 'pred'.*there are confidence, cost_per_10k"),
        ("outputs", lambda t: t.drop(columns="expert"), "no column 'expert'; there are item, pred"),
        ("outputs", lambda t: t[:0], "holds no rows"),
        ("items", lambda t: t.assign(label=1), "all items have label 1; two are needed"),
        ("items", lambda t: t.assign(label=t.label.astype(float) + 0.5), "label must be an integer"),
        (
            "items",
            lambda t: t.assign(label_name=np.where(t.item > 9, "x", "y")),
            "label .* has several names",
        ),
        ("items", lambda t: t.assign(label_name="x"), "several labels have the same label_name"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(services, table, change, message):
    changed(services, table, change)
    with pytest.raises(ConfigError, match=message) as error:
        collected.read(config_of(services))
    assert "\n" not in str(error.value)


def test_what_is_no_folder_or_no_table(tmp_path):
    with pytest.raises(ConfigError, match=r"experts.path: missing"):
        collected.read(
            config_of(tmp_path).model_copy(
                update={"experts": config_of(tmp_path).experts.model_copy(update={"path": None})}
            )
        )
    with pytest.raises(ConfigError, match=r"no such file: .*items.parquet"):
        collected.read(config_of(tmp_path))
    for name in ("items.parquet", "outputs.parquet"):
        (tmp_path / name).write_text("nonsense")
    with pytest.raises(ConfigError, match="not readable as Parquet"):
        collected.read(config_of(tmp_path))


def test_a_split_of_the_data_is_kept(llms):
    split = {"column": "split"}
    pool = collected.read(config_of(llms, answer="expert", split=split))
    assert (len(pool.rows("fit")), len(pool.rows("test"))) == (120, 80)
    with pytest.raises(ConfigError, match="no column 'fold'; there are item, task, split, text"):
        collected.read(config_of(llms, answer="expert", split={"column": "fold"}))
    with pytest.raises(ConfigError, match="the part 'test' has 0 of the 200 items"):
        collected.read(config_of(llms, answer="expert", split={**split, "test": ["ood"]}))


def test_a_single_expert_is_a_pool_too(services):
    chosen = {"kind": "recorded", "path": str(services), "names": ["dear"]}
    assert collected.read(config_of(services, experts=chosen)).quality.shape == (300, 1)


def test_prices_from_a_list_of_experts(llms):
    pd.DataFrame({"expert": ["good", "small", "tiny"], "size": [70, 7, 1]}).to_csv(llms / "experts.csv")
    outputs = pd.read_parquet(llms / "outputs.parquet").drop(columns="cost_usd")
    folder_of(llms, pd.read_parquet(llms / "items.parquet"), outputs)
    assert collected.read(config_of(llms, answer="expert")).about.unit == "calls"
    pool = collected.read(config_of(llms, answer="expert", cost_column="size"))
    assert (pool.expected_prices.tolist(), pool.about.unit) == ([70, 7, 1], "size")
    with pytest.raises(ConfigError, match="holds no columns 'expert' and 'params'"):
        collected.read(config_of(llms, answer="expert", cost_column="params"))
