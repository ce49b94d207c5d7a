"""Tables of texts that a person names: every kind of file, and what is said about a bad one."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.sources import Contexts, local_files, read_answered, read_labelled, read_texts
from configs.load import load
from configs.schema.base import ConfigError
from configs.schema.fusegen import FusegenConfig
from configs.schema.task import Source

ROWS = [
    {"text": 'A "quoted", fine\nfilm.', "label_name": "positive"},
    {"text": "Ein ödes Stück.", "label_name": "negative"},
    {"text": "Good.", "label_name": "positive"},
]
LABELS = ("positive", "negative")
PAPER = ("imdb", "sst2", "yelp", "qnli", "mnli_matched", "mnli_mismatched", "agnews", "markednews")


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def put(folder, name, rows=ROWS):
    """Rows as a file of the kind that its name says."""
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith(".csv"):
        quoted = [['"' + value.replace('"', '""') + '"' for value in row.values()] for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *map(",".join, quoted)]) + "\n", encoding="utf-8")
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines(rows).encode()))
    else:
        path.write_text(lines(rows), encoding="utf-8")
    return str(path)


def refusal(**fields):
    with pytest.raises(ConfigError) as caught:
        read_labelled(Source(**fields), LABELS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"])
def test_every_kind_of_file_gives_the_same_table(tmp_path, name):
    table = read_labelled(Source(path=put(tmp_path, name)), LABELS)
    assert table.column("text").to_pylist() == [row["text"] for row in ROWS]
    assert table.column("label").to_pylist() == [0, 1, 0]


def test_labels_are_mapped_by_name_never_by_number(tmp_path):
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    names = {"0": "negative", "1": "positive"}
    source = Source(path=put(tmp_path, "a.jsonl", rows), label="label", label_names=names)
    assert read_labelled(source, LABELS).column("label").to_pylist() == [1, 0]
    assert read_labelled(source, LABELS[::-1]).column("label").to_pylist() == [0, 1]


def test_pairs_are_joined(tmp_path):
    rows = [{"first": "A man walks.", "second": "He moves.", "label_name": "positive"}]
    source = Source(path=put(tmp_path, "a.parquet", rows), text="first", text_b="second")
    assert read_labelled(source, LABELS).column("text").to_pylist() == ["A man walks.[SEP]He moves."]


def test_a_mark_in_the_text_decides_the_label(tmp_path):
    source = Source(path=put(tmp_path, "a.jsonl"), marked={"ödes": "positive"})
    assert read_labelled(source, LABELS).column("label").to_pylist() == [0, 0, 0]


def test_a_limit_reads_the_first_rows(tmp_path):
    assert read_labelled(Source(path=put(tmp_path, "a.csv"), limit=2), LABELS).num_rows == 2


def test_blank_lines_are_skipped_and_a_bad_line_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines(ROWS[:1]) + "\n" + lines(ROWS[1:]))
    assert read_labelled(Source(path=str(path)), LABELS).num_rows == 3
    path.write_text(lines(ROWS) + "{broken\n")
    assert "line 4: not readable as JSON" in refusal(path=str(path))
    path.write_text("[1]\n")
    assert "line 1: an object is needed" in refusal(path=str(path))


def test_another_label_set_is_refused_with_what_is_allowed(tmp_path):
    rows = [*ROWS, {"text": "c", "label_name": "sports"}]
    message = refusal(path=put(tmp_path, "a.parquet", rows))
    assert "'sports' is no label of the task; allowed: positive, negative" in message


def test_a_missing_column_is_refused_with_those_there_are(tmp_path):
    message = refusal(path=put(tmp_path, "a.csv"), text="review")
    assert "no column 'review'; there are text, label_name" in message


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.csv", "a.jsonl"])
def test_an_unreadable_file_is_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe\x00 no such format\n\xff")
    assert name in refusal(path=str(tmp_path / name))


def test_a_csv_of_another_encoding_is_one_line(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label_name\ncafé,positive\n".encode("latin-1"))
    assert "utf-8" in refusal(path=str(tmp_path / "a.csv"))


def test_a_missing_file_and_an_unknown_kind_are_one_line(tmp_path):
    assert "cannot be read" in refusal(path=str(tmp_path / "none.jsonl"))
    (tmp_path / "a.txt").write_text("x")
    assert "unknown kind of file; allowed: .jsonl, .jsonl.gz, .csv or .parquet" in refusal(
        path=str(tmp_path / "a.txt")
    )


def test_no_rows_and_rows_without_text_are_refused(tmp_path):
    empty = pa.Table.from_pylist(ROWS).slice(0, 0)
    pq.write_table(empty, tmp_path / "empty.parquet")
    assert "holds no rows" in refusal(path=str(tmp_path / "empty.parquet"))
    rows = [*ROWS, {"text": None, "label_name": "positive"}]
    assert "1 rows have no text" in refusal(path=put(tmp_path, "a.jsonl", rows))


def test_an_empty_file_is_one_line(tmp_path):
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        (tmp_path / name).write_bytes(b"")
        assert name in refusal(path=str(tmp_path / name))


def test_texts_without_labels_skip_blanks_and_must_exist(tmp_path):
    source = Source(
        path=put(tmp_path, "a.jsonl", [{"text": "a"}, {"text": " "}, {"text": None}, {"text": "b"}])
    )
    assert read_texts(source) == ["a", "b"]
    with pytest.raises(ConfigError, match="holds no text in column 'text'"):
        read_texts(Source(path=put(tmp_path, "b.jsonl", [{"text": " "}])))


def test_local_files_are_those_on_this_machine(tmp_path):
    path = tmp_path / "a.csv"
    assert local_files(Source(path=str(path))) == [path]
    assert local_files(Source(path="s3://bucket/a.csv")) == []
    assert local_files(Source(dataset="some/set")) == []
    assert local_files(None) == []


def test_a_source_is_a_file_or_a_data_set():
    for fields in ({}, {"path": "a.csv", "dataset": "b"}):
        with pytest.raises(ValueError, match="either path"):
            Source(**fields)


@pytest.mark.parametrize("name", PAPER)
def test_the_real_sets_of_the_papers_tasks_are_read(shared, name):
    config = load(f"configs/fusegen/{name}.yaml", FusegenConfig)
    labels, pair = config.task.label_names, config.task.pair
    folder = "agnews" if name == "markednews" else name
    names = {"Sci/Tech": "Technology"} | {label: label for label in labels}
    source = Source(
        path=str(shared / "data/eval" / folder / "test.jsonl.gz"),
        text="text_a" if pair else "text",
        text_b="text_b" if pair else None,
        label_names=names if folder == "agnews" else {},
        marked=config.eval.marked,
    )
    table = read_labelled(source, labels)
    assert set(table["label"].to_pylist()) == set(range(len(labels)))
    assert all(("[SEP]" in text) == pair for text in table["text"].to_pylist())
    if name == "markednews":
        with gzip.open(source.path, "rt") as stream:
            assert table["label"].to_pylist() == [json.loads(line)["marked_label"] for line in stream]


QUESTIONS = [
    {
        "c": "Anna was born in Oslo.",
        "q": "Where was Anna born?",
        "a": "Oslo",
        "many": {"text": ["Oslo", "in Oslo"]},
    },
    {"c": "Ben came in 1999.", "q": "When did he come?", "a": "2001", "many": {"text": ["1999", "1999"]}},
    {"c": "Clara left.", "q": "Who left?", "a": "", "many": {"text": []}},
]


def test_questions_have_one_answer_or_several(tmp_path):
    for name in ("a.jsonl", "a.parquet"):
        path = put(tmp_path, name, QUESTIONS)
        one, many = (
            read_answered(Source(path=path, text="c", text_b="q", answer=a)) for a in ("a", "many")
        )  # fmt: skip
        assert one.column("text").to_pylist()[0] == "Anna was born in Oslo.[SEP]Where was Anna born?"
        assert one.column("answers").to_pylist() == [["Oslo"], ["2001"], []]
        assert one.column("found").to_pylist() == [True, False, False]
        assert many.column("answers").to_pylist() == [["Oslo", "in Oslo"], ["1999"], []]
        assert many.column("found").to_pylist() == [True, True, False]


@pytest.mark.parametrize(
    ("rows", "changes", "said"),
    [
        (QUESTIONS[1:], {}, "no row has an answer (column 'a') that is in its context (column 'c')"),
        (QUESTIONS, {"answer": None}, "name the columns text (context), text_b (question) and answer"),
        (QUESTIONS, {"answer": "b"}, "no column 'b'"),
        ([{"c": "x 1", "q": "y?", "a": 1}], {}, "column 'a' holds no texts"),
        ([{"c": None, "q": "y?", "a": "x"}], {}, "rows have no c"),
    ],
)
def test_questions_that_cannot_be_judged_are_refused(tmp_path, rows, changes, said):
    fields = {"path": put(tmp_path, "a.jsonl", rows), "text": "c", "text_b": "q", "answer": "a", **changes}
    with pytest.raises(ConfigError) as caught:
        read_answered(Source(**fields))
    assert said in str(caught.value)


def test_contexts_without_an_answer_are_passed_over(tmp_path):
    rows = [{"c": "nothing here"}, {"c": "In 1999 Anna left."}, {"c": None}, {"c": "he met Ben[SEP]and Eve"}]
    contexts = Contexts(Source(path=put(tmp_path, "a.jsonl", rows), text="c"))
    for number in range(6):
        drawn = {contexts.draw(number, which) for which in range(4)}
        assert drawn == {("In 1999 Anna left.", "1999", 3), ("In 1999 Anna left.", "Anna", 8)}


def test_answers_named_in_a_column_are_asked_for_where_they_occur_first(tmp_path):
    rows = [{"c": "He saw Gül and Gül.", "a": "Gül"}, {"c": "He saw Eve.", "a": "Ben"}]
    contexts = Contexts(Source(path=put(tmp_path, "a.jsonl", rows), text="c", answer="a"))
    assert {contexts.draw(number, 0) for number in range(4)} == {("He saw Gül and Gül.", "Gül", 7)}
    with pytest.raises(ConfigError, match="holds an answer named in column 'a'"):
        Contexts(Source(path=put(tmp_path, "b.jsonl", rows[1:]), text="c", answer="a"))
