"""Labelled texts for pretraining: written by a voice, or read from JSON lines and Parquet."""

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyarrow import ArrowException

from configs.load import locate
from configs.schema.base import ConfigError
from configs.schema.pretrain import Corpus
from jobs.pretraining.grammar import load_grammar, write

Row = tuple[str, str]
"""A text and its label's name."""

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


def read(corpus: Corpus, labels: tuple[str, ...], *, clean: bool = False) -> list[Row]:
    """The texts of a corpus without duplicates; ConfigError when there are none or a label has no prompt.

    `clean` leaves out the label noise of a voice.
    Line breaks become spaces and double quotes single ones, as a double quote ends a text in a prompt.
    """
    origin = corpus.voice or str(corpus.path)
    rows = list(dict.fromkeys(_tidy(_rows(corpus, clean))))
    if not rows:
        raise ConfigError(f"{origin}: the corpus is empty")
    unknown = sorted({label for _, label in rows} - set(labels))
    if unknown:
        raise ConfigError(
            f"{origin}: no prompt for the label {unknown[0]!r}; the task has {', '.join(labels)}"
        )
    return rows


def _rows(corpus: Corpus, clean: bool) -> Iterable[Row]:
    if corpus.voice is not None:
        grammar = load_grammar(locate(corpus.voice))
        return write(
            replace(grammar, noise=0.0) if clean else grammar, corpus.count, corpus.seed, corpus.alike
        )
    path = locate(str(corpus.path))
    return (row for file in _files(path) for row in _of_file(file, corpus))


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    readable = [file for file in files if file.name.endswith(SUFFIXES)]
    if not readable:
        raise ConfigError(f"{path}: no file ends in {', '.join(SUFFIXES)}")
    return readable


def _of_file(file: Path, corpus: Corpus) -> Iterator[Row]:
    try:
        for number, record in enumerate(_records(file), 1):
            missing = [name for name in (corpus.text, corpus.label, *corpus.where) if name not in record]
            if missing:
                raise ConfigError(
                    f"{file}: row {number}: no column {missing[0]!r}; found {', '.join(record)}"
                )
            if all(str(record[name]) == value for name, value in corpus.where.items()):
                yield str(record[corpus.text]), str(record[corpus.label])
    except (ValueError, TypeError, OSError, EOFError, ArrowException) as error:
        raise ConfigError(f"{file}: not readable: {' '.join(str(error).split())}") from None


def _records(file: Path) -> Iterator[dict[str, Any]]:
    if file.suffix == ".parquet":
        yield from pq.read_table(file).to_pylist()
        return
    with (
        gzip.open(file, "rt", encoding="utf-8")
        if file.suffix == ".gz"
        else file.open(encoding="utf-8") as lines
    ):
        for line in lines:
            yield json.loads(line)


def _tidy(rows: Iterable[Row]) -> Iterator[Row]:
    for text, label in rows:
        tidy = " ".join(text.split()).replace('"', "'")
        if tidy:
            yield tidy, label
