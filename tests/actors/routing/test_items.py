"""Items of live experts: labels, parts, columns, and what experts were trained on."""

import json

import pytest

from actors.routing.items import check, read
from configs.schema.base import ConfigError
from configs.schema.expert import Items
from configs.schema.foe import FoeConfig, Split
from tests.experts import LABELS, classifier, texts, write_items


def items(path, labels=(), split=None, labelled=True, **fields):
    source = Items(path=str(path), **fields)
    return read(source, labels, split or Split(), 0, labelled=labelled)


def test_labels_are_found_or_given_and_columns_kept(tmp_path):
    path = write_items(tmp_path, 40, domain=lambda row: f"d{row % 2}", answer=lambda row: row)
    table, classes = items(path, reference="answer")
    assert classes == ("negative", "positive")
    assert table.column_names == ["item", "text", "label", "domain", "reference", "part"]
    first = table.slice(0, 1).to_pylist()[0]
    assert (first["item"], first["label"], first["domain"], first["reference"]) == ("0", 1, "d0", "0")
    assert sorted(table["part"].to_pylist()) == ["fit"] * 20 + ["test"] * 20
    assert items(path, labels=LABELS[::-1])[0]["label"].to_pylist()[0] == 0


def test_only_items_of_a_part_are_kept(tmp_path):
    path = write_items(tmp_path, 40, fold=lambda row: "abc"[row % 3])
    split = Split(column="fold", fit=("a",), test=("b",))
    assert set(items(path, split=split)[0]["part"].to_pylist()) == {"fit", "test"}
    assert len(items(path, split=split)[0]) == 27
    assert len(items(path, split=Split(limit=10))[0]) == 10


def test_labels_are_read_where_they_are_needed_only(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(4)))
    table, classes = items(path, labelled=False)
    assert classes == () and "label" not in table.column_names
    with pytest.raises(ConfigError, match="no column 'label_name'; there are text"):
        items(path)


def test_what_is_wrong_with_items_is_said_in_one_line(tmp_path):
    path = write_items(tmp_path, 10, twice=lambda row: row // 2, same=lambda row: "one")
    with pytest.raises(ConfigError, match="'negative' is no label of the task; allowed: positive, other"):
        items(path, labels=("positive", "other"))
    with pytest.raises(ConfigError, match="column 'twice' does not name every item differently"):
        items(path, id="twice")
    with pytest.raises(ConfigError, match="all items have the label 'one'; two are needed"):
        items(path, label="same")
    with pytest.raises(ConfigError, match="no column 'gold'; there are text"):
        items(path, reference="gold")


def config(tmp_path, **changes):
    known = tmp_path / "known.jsonl"
    rows = [{"body": f"  {text.upper()}\n"} for text, _ in texts(3)] + [{"body": "something else"}]
    known.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expert = {**classifier("a", "x"), "trained_on": {"path": str(known), "text": "body"}}
    live = {"kind": "live", "items": {"path": str(write_items(tmp_path, 20))}, "pool": [expert]}
    return FoeConfig.model_validate({"job": "foe", "experts": live, **changes})


def test_items_that_an_expert_was_trained_on_are_an_error_unless_declared(tmp_path):
    line = "expert a was trained on 3 of 20 items, e.g. item 0; take them out of the items, or allow it with"
    with pytest.raises(ConfigError, match=line):
        check(config(tmp_path))
    check(config(tmp_path, in_sample=True))
