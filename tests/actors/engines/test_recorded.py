"""Replaying stored generations."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.engines.base import EngineError, Request, load_engine
from configs.schema.plm import PlmSpec, RecordedEngine, Sampling

LABELS = ("good", "bad")


def row(*values: str | int | None) -> dict:
    return dict(zip(("plm", "split", "seed", "round", "label_name", "text"), values, strict=True))


ROWS = [
    row("a", "more", None, None, "good", "good 2"),
    row("a", "more", None, None, "good", "good 0"),
    row("a", "more", None, None, "bad", "bad 9"),
    row("a", "main", 1, 0, "good", "good 0"),
    row("a", "main", 1, 0, "bad", "bad 0"),
    row("a", "main", 1, 0, "good", 'says "good" twice.\n"good"'),
    row("a", "main", 1, 1, "good", "good r1 0"),
    row("a", "main", 1, 1, "bad", "bad r1 0"),
    row("a", "main", 1, 1, "good", "good r1 1"),
    row("a", "main", 2, 0, "good", "other seed"),
    row("a", "main", 2, 1, "bad", "other seed"),
    row("b", "main", 1, 0, "good", "other plm"),
    row("b", "main", 1, 0, "bad", "2024-01-01"),
]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "texts.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), file)
    return str(file)


def engine(path: str, name: str = "a", labels=LABELS, run_seed: int = 0, **fields):
    fields = {"split": "main", "zero_shot_split": "more", "seed": 1, **fields}
    return load_engine(PlmSpec(name=name, engine=RecordedEngine(path=path, **fields)), labels, run_seed)


def ask(engine, round_: int, label: int, index: int, ordinal: int, zero_shot: bool):
    request = Request("id", "two words", 5, label, round_, index, ordinal, zero_shot)
    (completion,) = engine.generate([request], Sampling())
    return completion


def zero_shot(engine, label: int, n: int, round_: int = 0) -> list[str]:
    return [ask(engine, round_, label, 0, ordinal, True).text for ordinal in range(n)]


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_texts_of_domains_may_stand_for_those_of_models(tmp_path, ending):
    rows = [{"domain": d, "label_name": n, "text": f"{d} {n}"} for d in ("films", "books") for n in LABELS]
    path = tmp_path / f"texts.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    none = {"mode": "pool", "split": None, "zero_shot_split": None, "seed": None}
    assert zero_shot(engine(str(path), "films", writer="domain", **none), 0, 1) == ["films good"]
    with pytest.raises(EngineError, match="no rows with domain 'toys'; allowed: books, films"):
        engine(str(path), "toys", writer="domain", **none)


def test_exact_feedback_returns_the_rows_of_the_round_by_index(path):
    replay = engine(path)
    assert [ask(replay, 1, 0, index, 50, False).text for index in range(3)] == ["good r1 0", "good r1 1", ""]
    assert ask(replay, 1, 1, 0, 50, False).text == "bad r1 0"
    assert ask(replay, 2, 1, 0, 50, False).finish_reason == "exhausted"


def test_exact_zero_shot_returns_round_0_and_then_the_rest_of_the_split(path):
    replay = engine(path)
    assert zero_shot(replay, 0, 4) == ["good 0", 'says "good" twice.\n"good"', "good 2", ""]
    assert zero_shot(replay, 0, 4, round_=3) == zero_shot(replay, 0, 4)
    assert zero_shot(replay, 1, 3) == ["bad 0", "bad 9", ""]
    assert zero_shot(engine(path, zero_shot_split=None), 1, 2) == ["bad 0", ""]


def test_texts_come_back_whole_and_counted(path):
    completion = ask(engine(path), 0, 0, 0, 1, True)
    assert completion.cut
    assert completion.finish_reason == "stop"
    assert (completion.prompt_tokens, completion.completion_tokens, completion.logprob) == (2, 4, None)


def test_available_counts_down_from_where_the_requests_stand(path):
    replay = engine(path)
    assert [replay.available(0, 0, True, ordinal) for ordinal in (0, 2, 3, 9)] == [3, 1, 0, 0]
    assert [replay.available(1, 0, False, 7, index) for index in (0, 1, 2)] == [2, 1, 0]
    assert replay.available(5, 0, False, 0) == 0


def test_labels_are_mapped_by_name(path):
    assert ask(engine(path, labels=("bad", "good")), 1, 0, 0, 0, False).text == "bad r1 0"


def test_the_seed_chooses_its_rows(path):
    assert ask(engine(path, seed=2), 1, 1, 0, 0, False).text == "other seed"


def test_the_name_in_the_file_may_differ(path):
    assert zero_shot(engine(path, name="mine", plm="b", zero_shot_split=None), 0, 1) == ["other plm"]


def test_pool_draws_every_row_once_in_an_order_of_the_run_seed(tmp_path):
    texts = [f"text {i}" for i in range(40)]
    file = tmp_path / "pool.parquet"
    rows = [{"plm": "a", "label_name": label, "text": f"{label} {t}"} for t in texts for label in LABELS]
    pq.write_table(pa.Table.from_pylist(rows), file)
    free = {"mode": "pool", "split": None, "zero_shot_split": None, "seed": None}
    drawn = zero_shot(engine(str(file), **free), 0, 41)
    assert sorted(drawn[:40]) == sorted(f"good {t}" for t in texts)
    assert drawn[:40] != [f"good {t}" for t in texts]
    assert drawn[40] == ""
    feedback = [ask(engine(str(file), **free), 3, 0, 0, o, False).text for o in range(40)]
    assert feedback == drawn[:40]
    assert zero_shot(engine(str(file), run_seed=1, **free), 0, 40) != drawn[:40]
    assert engine(str(file), **free).available(4, 1, False, 15) == 25


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_json_lines_say_the_same_as_parquet(path, tmp_path, suffix):
    file = tmp_path / f"texts{suffix}"
    lines = "\n".join(json.dumps({**r, "extra": {"x": 1}}) for r in ROWS)
    file.write_bytes(gzip.compress(lines.encode()) if suffix.endswith("gz") else lines.encode())
    replay = engine(str(file))
    assert zero_shot(replay, 0, 4) == zero_shot(engine(path), 0, 4)
    assert zero_shot(engine(str(file), name="b", zero_shot_split=None), 1, 1) == ["2024-01-01"]


def test_a_storage_address_works_too(path):
    assert zero_shot(engine(f"file://{path}"), 1, 1) == ["bad 0"]


def test_description_pins_down_the_rows(path):
    described = engine(path).describe()
    assert described["model"] == "a"
    assert described == engine(path).describe()
    assert described["fingerprint"] != engine(path, name="b", zero_shot_split=None).describe()["fingerprint"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "c"}, "no rows with plm 'c'; allowed: a, b"),
        ({"split": "test"}, "no rows with split 'test'; allowed: main, more"),
        ({"zero_shot_split": "x"}, "no rows with split 'x'; allowed: main, more"),
        ({"seed": 7}, "no rows with seed 7; allowed: 1, 2"),
        ({"labels": ("good", "poor")}, "rows of a have the labels bad, good, the task has good, poor"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(path, fields, message):
    with pytest.raises(EngineError, match=message):
        engine(path, **fields)


def test_unusable_files_are_refused_in_one_line(tmp_path):
    table = pa.Table.from_pylist(ROWS)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "broken.jsonl").write_text('{"plm": "a"\n')
    (tmp_path / "broken.jsonl.gz").write_bytes(b"nothing compressed")
    (tmp_path / "texts.csv").write_text("plm,text\n")
    pq.write_table(table.drop_columns(["round", "text"]), tmp_path / "fewer.parquet")
    for name, message in {
        "none.parquet": "no such file",
        "broken.parquet": "not readable",
        "broken.jsonl": "not readable",
        "broken.jsonl.gz": "not readable",
        "texts.csv": "unknown kind of file; allowed: .parquet, .jsonl, .jsonl.gz",
        "fewer.parquet": "column round, text is missing; there are plm, split, label_name, seed",
    }.items():
        with pytest.raises(EngineError, match=message) as caught:
            engine(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_released_generations_replay_exactly(shared):
    file = shared / "data" / "fusegen_imdb" / "generations.parquet"
    if not file.is_file():
        pytest.skip("needs the recorded generations")
    labels = ("positive", "negative")
    rows = pq.read_table(file).to_pylist()
    mine = [r for r in rows if r["plm"] == "opt-6.7b" and r["seed"] == 42]
    replay = engine(str(file), "opt-6.7b", labels, split="fusegen", zero_shot_split="initial", seed=42)
    for round_ in range(5):
        for label, name in enumerate(labels):
            want = [r["text"] for r in mine if r["round"] == round_ and r["label_name"] == name]
            assert replay.available(round_, label, round_ == 0, 0) >= len(want) > 80
            assert [ask(replay, round_, label, i, i, round_ == 0).text for i in range(len(want))] == want
