"""Tables of texts that a person names in a configuration: files, or data sets of the hub.

Labels are mapped by name to the class ids of the task, never by number.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from configs.load import locate
from configs.schema.base import ConfigError
from configs.schema.task import Source
from fusion.generation.filtering import SEPARATOR
from fusion.generation.spans import phrases

READERS = ".jsonl, .jsonl.gz, .csv or .parquet"


def read_texts(source: Source) -> list[str]:
    """The texts of a source, without labels; ConfigError when there are none."""
    table = _columns(source, [source.text])
    texts = [text for text in table.column(source.text).to_pylist() if text and text.strip()]
    if not texts:
        raise ConfigError(f"{_name(source)}: holds no text in column {source.text!r}")
    return texts


def read_labelled(source: Source, labels: Sequence[str]) -> pa.Table:
    """Columns `text` and `label` (class id, by position in `labels`); pairs become `first[SEP]second`."""
    columns = [source.text, *([source.text_b] if source.text_b else []), source.label]
    table = _columns(source, columns)
    if table.num_rows == 0:
        raise ConfigError(f"{_name(source)}: holds no rows")
    texts = texts_of(source, table)
    return pa.table({"text": texts, "label": label_ids(source, names_of(source, table, texts), labels)})


def read_answered(source: Source) -> pa.Table:
    """Questions with their answers: `text` (`context[SEP]question`), `answers` (any of them is right), and
    `found`, whether one of them is in the context. ConfigError when that is so nowhere."""
    if source.text_b is None or source.answer is None:
        raise ConfigError(f"{_name(source)}: name the columns text (context), text_b (question) and answer")
    table = _columns(source, list(dict.fromkeys([source.text, source.text_b, source.answer])))
    if table.num_rows == 0:
        raise ConfigError(f"{_name(source)}: holds no rows")
    texts, contexts = texts_of(source, table), strings_of(source, table, source.text).to_pylist()
    answers = [_answers(source, value) for value in table.column(source.answer).to_pylist()]
    found = [any(a in context for a in mine) for mine, context in zip(answers, contexts, strict=True)]
    if not any(found):
        raise ConfigError(
            f"{_name(source)}: no row has an answer (column {source.answer!r}) that is in its context "
            f"(column {source.text!r})"
        )
    return pa.table({"text": texts, "answers": pa.array(answers, pa.list_(pa.string())), "found": found})


class Contexts:
    """Contexts of a span task and what can be asked for in them: the answers that a column of the source
    names, or else the phrases found in them."""

    def __init__(self, source: Source) -> None:
        """Read the source; ConfigError when no context has an answer."""
        self._source = source
        table = _columns(source, [source.text, *([source.answer] if source.answer else [])])
        rows = table.to_pylist()
        self._rows = [row for row in rows if row[source.text] and SEPARATOR not in str(row[source.text])]
        if not any(self._spans(row) for row in self._rows):
            how = f"named in column {source.answer!r}" if source.answer else "that can be asked for"
            raise ConfigError(f"{_name(source)}: no context (column {source.text!r}) holds an answer {how}")

    def draw(self, number: int, which: int) -> tuple[str, str, int]:
        """A context, an answer in it and where that begins: the first one from a row on that has answers,
        the numbers taken modulo the rows and its answers."""
        for place in range(len(self._rows)):
            row = self._rows[(number + place) % len(self._rows)]
            if spans := self._spans(row):
                start, end = spans[which % len(spans)]
                context = str(row[self._source.text])
                return context, context[start:end], start
        raise AssertionError("some context has an answer")

    def _spans(self, row: Mapping[str, Any]) -> list[tuple[int, int]]:
        context = str(row[self._source.text])
        if self._source.answer is None:
            return phrases(context)
        named = [answer for answer in _answers(self._source, row[self._source.answer]) if answer in context]
        return [(context.index(answer), context.index(answer) + len(answer)) for answer in named]


def _answers(source: Source, value: Any) -> list[str]:  # noqa: ANN401
    """The answers in a cell: a text, a list of texts, or a record with such a field `text`; empty ones are
    none."""
    if isinstance(value, Mapping):
        value = value.get("text")
    texts = value if isinstance(value, list) else [value]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise ConfigError(f"{_name(source)}: column {source.answer!r} holds no texts")
    return list(dict.fromkeys(text for text in texts if text and text.strip()))


def read_rows(source: Source) -> pa.Table:
    """All columns of a source; ConfigError when there are no rows."""
    table = _columns(source, None)
    if table.num_rows == 0:
        raise ConfigError(f"{_name(source)}: holds no rows")
    return table


def texts_of(source: Source, table: pa.Table) -> pa.ChunkedArray:
    """The texts of rows of a source, pairs joined; ConfigError when one is missing."""
    texts = strings_of(source, table, source.text)
    if source.text_b:
        texts = pc.binary_join_element_wise(texts, strings_of(source, table, source.text_b), SEPARATOR)
    if texts.null_count:
        raise ConfigError(f"{_name(source)}: {texts.null_count} rows have no {source.text}")
    return texts


def names_of(source: Source, table: pa.Table, texts: pa.ChunkedArray) -> list[str]:
    """The label names of rows of a source, whose texts are `texts`."""
    _check_columns(source, table, [source.label])
    values = table.column(source.label).to_pylist()
    names = [source.label_names.get(str(value), str(value)) for value in values]
    for mark, label in source.marked.items():
        names = [label if mark in text else name for name, text in zip(names, texts.to_pylist(), strict=True)]
    return names


def label_ids(source: Source, names: Sequence[str], labels: Sequence[str]) -> pa.Array:
    """Class ids by position in `labels`; ConfigError for a name that is none of them."""
    unknown = sorted(set(names) - set(labels))
    if unknown:
        raise ConfigError(
            f"{_name(source)}: {source.label}: {', '.join(map(repr, unknown[:5]))} is no label of the task; "
            f"allowed: {', '.join(labels)} (map other names with label_names)"
        )
    ids = {name: index for index, name in enumerate(labels)}
    return pa.array([ids[name] for name in names], pa.int32())


def strings_of(source: Source, table: pa.Table, column: str) -> pa.ChunkedArray:
    """A column of rows of a source as strings; ConfigError when it is absent or holds something else."""
    _check_columns(source, table, [column])
    try:
        return table.column(column).cast(pa.string())
    except pa.ArrowException:
        raise ConfigError(f"{_name(source)}: column {column!r} holds no texts") from None


def _name(source: Source) -> str:
    return source.path or f"hub data set {source.dataset}"


def _columns(source: Source, columns: list[str] | None) -> pa.Table:
    table = _from_hub(source) if source.path is None else _from_file(source.path)
    if columns is not None:
        _check_columns(source, table, columns)
        table = table.select(columns)
    return table.slice(0, source.limit) if source.limit else table


def _check_columns(source: Source, table: pa.Table, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in table.column_names:
            raise ConfigError(
                f"{_name(source)}: no column {column!r}; there are {', '.join(table.column_names)}"
            )


def _from_file(path: str) -> pa.Table:
    try:
        fs, inner = (
            pafs.FileSystem.from_uri(path) if "://" in path else (pafs.LocalFileSystem(), str(locate(path)))
        )
        if path.endswith(".parquet"):
            with fs.open_input_file(inner) as file:
                return pq.ParquetFile(file, pre_buffer=True).read()
        with fs.open_input_stream(inner, compression="gzip" if path.endswith(".gz") else None) as stream:
            if path.endswith(".csv"):
                whole = pa.BufferReader(stream.read().decode("utf-8").encode())
                return pacsv.read_csv(
                    whole,
                    parse_options=pacsv.ParseOptions(newlines_in_values=True),
                    convert_options=pacsv.ConvertOptions(strings_can_be_null=False, null_values=[]),
                )
            if path.endswith((".jsonl", ".jsonl.gz", ".json.gz")):
                rows = _json_lines(stream.read().decode("utf-8"), path)
                names = dict.fromkeys(name for row in rows for name in row)
                return pa.table({name: [row.get(name) for row in rows] for name in names})
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    raise ConfigError(f"{path}: unknown kind of file; allowed: {READERS}")


def _json_lines(text: str, path: str) -> list[Mapping[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}: line {number}: not readable as JSON: {error}") from None
        if not isinstance(row, dict):
            raise ConfigError(f"{path}: line {number}: an object is needed")
        rows.append(row)
    return rows


def _from_hub(source: Source) -> pa.Table:
    import datasets

    try:
        loaded = datasets.load_dataset(source.dataset, source.subset, split=source.split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        offline = " (the hub is switched off here)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise ConfigError(f"{_name(source)}: cannot be loaded{offline}: {reason}") from None
    return pa.Table.from_batches(loaded.with_format("arrow").data.to_batches())


def local_files(source: Source | None) -> list[Path]:
    """The local file of a source, if it has one."""
    return [locate(source.path)] if source and source.path and "://" not in source.path else []
