"""Texts of domains: read from a file or a folder, cut, limited, and refused in one line."""

import json

import pytest

from actors.merging.texts import chosen, cut, part_of, parts_of, read
from cluster.storage import Run
from configs.schema.base import ConfigError, identity
from configs.schema.merge import DomainData


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(domain, count, **more):
    return [
        {"domain": domain, "text": f"{domain} {i}", "label_name": "ab"[i % 2], **more} for i in range(count)
    ]


def test_a_file_is_cut_the_same_every_time(tmp_path):
    file = write(tmp_path / "all.jsonl", rows("x", 100) + rows("y", 60) + rows("z", 20))
    data = DomainData(path=str(file), count=2, train_limit=30, test_limit=10)
    assert read(data, 1).equals(read(data, 1)) and not read(data, 1).equals(read(data, 2))
    run = Run.open(str(tmp_path / "run"), {}, {}, "0")
    step = run.step("texts", 0)
    facts = cut(run, step, {"data": identity(data), "seed": 1})
    assert facts["domains"] == ["x", "y"] and facts["held_out"] == ["z"] and facts["labels"] == ["a", "b"]
    assert facts["counts"]["x"] == {"train": 30, "test": 10}
    mine = facts["files"]["x"]
    learnt, judged = part_of(run, mine, "train"), part_of(run, mine, "test")
    assert not set(learnt[0]) & set(judged[0])
    assert all(text.startswith("x ") for text in (*learnt[0], *judged[0]))


def test_what_is_drawn_of_a_domain_does_not_depend_on_the_others(tmp_path):
    file = write(tmp_path / "all.jsonl", rows("x", 100) + rows("y", 60) + rows("z", 40))
    run, files = Run.open(str(tmp_path / "run"), {}, {}, "0"), []
    for domains in (("x", "y"), ("x", "y", "z"), ("z", "x")):
        data = DomainData(path=str(file), domains=domains, train_limit=20, test_limit=10)
        files.append(cut(run, run.step("texts", domains), {"data": identity(data), "seed": 1})["files"])
    assert files[0]["x"] == files[1]["x"] == files[2]["x"] != files[0]["y"] == files[1]["y"]


def test_a_folder_keeps_its_parts_and_files_elsewhere_are_judged_on_only(tmp_path):
    write(tmp_path / "train.jsonl", rows("x", 8) + rows("y", 8))
    write(tmp_path / "test.jsonl", rows("x", 4) + rows("y", 2))
    other = write(tmp_path / "other.jsonl", [{"text": "t", "label_name": "a"}])
    data = DomainData(path=str(tmp_path), elsewhere={"far": str(other)})
    table = read(data, 0).to_pylist()
    assert sum(row["part"] == "train" for row in table) == 16
    assert [row for row in table if row["domain"] == "far"] == [
        {"part": "test", "domain": "far", "text": "t", "label": "a"}
    ]
    assert chosen(data, read(data, 0)) == ["x", "y"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"elsewhere": {"in_domain": "all.jsonl"}}, "a domain is called 'in_domain', as a column of the"),
        ({"elsewhere": {"y": "all.jsonl"}}, "data.elsewhere: 'y' is also a domain of"),
        ({"domains": ["x", "y"], "held_out": ["y"]}, "data.held_out: 'y' is also learnt from"),
        ({"domain": "topic"}, "no column 'topic'; there are domain, text, label_name"),
        ({"domains": ["q"]}, "no domain 'q'"),
        ({"held_out": ["x"]}, "1 domains to learn from, two are needed"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, changes, words):
    file = write(tmp_path / "all.jsonl", rows("x", 10) + rows("y", 10))
    changes["elsewhere"] = {name: str(file) for name in changes.get("elsewhere", {})}
    data = DomainData(path=str(file), **changes)
    with pytest.raises(ConfigError, match=words):
        parts_of(data, read(data, 0))


def test_a_folder_without_its_files_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no file train"):
        read(DomainData(path=str(tmp_path)), 0)
