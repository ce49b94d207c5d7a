"""Replays stored generations as if a language model had just written them.

Two modes. `exact` answers feedback requests of round r with the rows of round r, by index, and zero-shot
requests, by ordinal, with the rows of round 0 followed by those of `zero_shot_split` that are not among
them. `pool` ignores rounds and shots: a permutation of all rows of a label, drawn from the run's seed and
read by ordinal, so nothing is drawn twice. Labels are mapped by name. Tokens are counted as words between
white space, since a file does not say which tokenizer wrote it.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.json
import pyarrow.parquet as pq

from actors.engines.base import Completion, EngineError, Request
from configs.load import locate
from configs.schema.plm import RecordedEngine, Sampling

TEXT_COLUMNS = ("split", "label_name", "text")
NUMBER_COLUMNS = ("seed", "round")


class Recorded:
    """The stored generations of one PLM."""

    def __init__(self, spec: RecordedEngine, name: str, labels: Sequence[str], seed: int) -> None:
        """Read the rows of PLM `name`; `EngineError` if the file lacks it, its labels or what is selected."""
        if spec.path is None:
            raise EngineError(f"plm {name}: its recorded engine needs a path")
        self._spec = spec
        self._source = spec.plm or name
        table = _rows_of(spec, self._source)
        _check_labels(table, labels, spec.path, self._source)
        self._fingerprint = _digest(*(f"{row}" for row in table.to_pylist()))
        self._rounds: dict[tuple[int, int], list[str]] = defaultdict(list)
        self._zero_shot: dict[int, list[str]] = {}
        for label, label_name in enumerate(labels):
            rows = table.filter(pc.equal(table["label_name"], label_name))
            if spec.mode == "pool":
                self._zero_shot[label] = _permuted(_texts(_main(rows, spec)), f"{seed}/{name}/{label_name}")
            else:
                self._sort_rounds(rows, label)

    def _sort_rounds(self, rows: pa.Table, label: int) -> None:
        main = _main(rows, self._spec)
        for round_, text in zip(main["round"].to_pylist(), _texts(main), strict=True):
            if round_ is not None:
                self._rounds[int(round_), label].append(text)
        first = self._rounds[0, label]
        more: list[str] = []
        if self._spec.zero_shot_split is not None:
            more = _texts(rows.filter(pc.equal(rows["split"], self._spec.zero_shot_split)))
        known = set(first)
        self._zero_shot[label] = first + [text for text in more if text not in known]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:  # noqa: ARG002
        """Return the stored texts; `exhausted` completions where there are no more."""
        time.sleep(self._spec.latency_s)
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        texts, position = self._at(
            request.round, request.label, request.zero_shot, request.ordinal, request.index
        )
        words = len(request.prompt.split())
        if position >= len(texts):
            return Completion("", "exhausted", prompt_tokens=words)
        text = texts[position]
        return Completion(text, "stop", words, len(text.split()), cut=True)

    def _at(
        self, round_: int, label: int, zero_shot: bool, ordinal: int, index: int
    ) -> tuple[list[str], int]:
        if zero_shot or self._spec.mode == "pool":
            return self._zero_shot.get(label, []), ordinal
        return self._rounds.get((round_, label), []), index

    def available(self, round: int, label: int, zero_shot: bool, ordinal: int, index: int = 0) -> int:
        """Return the number of stored texts left: from `index` for exact feedback, else from `ordinal`."""
        texts, position = self._at(round, label, zero_shot, ordinal, index)
        return max(0, len(texts) - position)

    def describe(self) -> dict[str, str]:
        """Return the file, the PLM's name in it and a digest of the rows read."""
        return {
            "engine": f"recorded ({self._spec.mode})",
            "model": self._source,
            "path": str(self._spec.path),
            "fingerprint": self._fingerprint,
        }


def _rows_of(spec: RecordedEngine, plm: str) -> pa.Table:
    """The rows of one PLM in file order, restricted to the splits and the seed that are asked for."""
    path = str(spec.path)
    table = _read(path, spec.writer)
    needed = {spec.writer, "label_name", "text"}
    needed |= {"round"} if spec.mode == "exact" else set()
    needed |= {"split"} if spec.split is not None or spec.zero_shot_split is not None else set()
    needed |= {"seed"} if spec.seed is not None else set()
    missing = sorted(needed - set(table.column_names))
    if missing:
        raise EngineError(
            f"{path}: column {', '.join(missing)} is missing; there are {', '.join(table.column_names)}"
        )
    table = _only(table.select(sorted(needed)), spec.writer, plm, path)
    rows = _only(table, "split", spec.split, path)
    _only(table, "split", spec.zero_shot_split, path)
    _only(rows, "seed", spec.seed, path)
    return table.filter(pc.is_valid(table["text"]))


def _main(table: pa.Table, spec: RecordedEngine) -> pa.Table:
    """The rows of the split and seed that are asked for."""
    for column, value in (("split", spec.split), ("seed", spec.seed)):
        if value is not None:
            table = table.filter(pc.equal(table[column], value))
    return table


def _only(table: pa.Table, column: str, value: str | int | None, path: str) -> pa.Table:
    """The rows with `value` in `column`, all for None; `EngineError` listing the values if there are none."""
    if value is None:
        return table
    rows = table.filter(pc.equal(table[column], value))
    if not len(rows):
        there = sorted(table[column].drop_null().unique().to_pylist())
        raise EngineError(
            f"{path}: no rows with {column} {value!r}; allowed: {', '.join(map(str, there)) or 'none'}"
        )
    return rows


def _check_labels(table: pa.Table, labels: Sequence[str], path: str, plm: str) -> None:
    there = set(table["label_name"].to_pylist())
    if there != set(labels):
        raise EngineError(
            f"{path}: rows of {plm} have the labels {', '.join(sorted(map(str, there)))}, "
            f"the task has {', '.join(labels)}"
        )


def _read(path: str, writer: str) -> pa.Table:
    """The known columns of a Parquet or JSON-lines file, and that of the writer."""
    try:
        if "://" in path:
            filesystem, inside = pyarrow.fs.FileSystem.from_uri(path)
        else:
            filesystem, inside = pyarrow.fs.LocalFileSystem(), str(locate(path))
        if path.endswith(".parquet"):
            return _read_parquet(filesystem, inside, writer)
        if path.endswith((".jsonl", ".jsonl.gz")):
            return _read_json(filesystem, inside, writer)
    except FileNotFoundError:
        raise EngineError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise EngineError(f"{path}: not readable: {str(error).splitlines()[0]}") from None
    raise EngineError(f"{path}: unknown kind of file; allowed: .parquet, .jsonl, .jsonl.gz")


def _read_parquet(filesystem: pyarrow.fs.FileSystem, path: str, writer: str) -> pa.Table:
    with pq.ParquetFile(path, filesystem=filesystem, pre_buffer=True) as file:
        there = set(file.schema_arrow.names)
        columns = [name for name in (writer, *TEXT_COLUMNS, *NUMBER_COLUMNS) if name in there]
        return file.read(columns).select(columns)


def _read_json(filesystem: pyarrow.fs.FileSystem, path: str, writer: str) -> pa.Table:
    # Without types given, pyarrow reads a text that looks like a date as one.
    schema = pa.schema(
        [(name, pa.string()) for name in (writer, *TEXT_COLUMNS)]
        + [(name, pa.int64()) for name in NUMBER_COLUMNS]
    )
    with filesystem.open_input_stream(path, compression="detect") as stream:
        table = pyarrow.json.read_json(
            stream,
            pyarrow.json.ReadOptions(block_size=1 << 24),
            pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    return table.select([name for name in table.column_names if table[name].null_count < len(table)])


def _texts(table: pa.Table) -> list[str]:
    texts: list[str] = table["text"].to_pylist()
    return texts


def _permuted(texts: list[str], key: str) -> list[str]:
    """The texts in an order drawn from `key`; a hash, so that no library version can change it."""
    order = sorted(range(len(texts)), key=lambda row: _digest(key, str(row)))
    return [texts[row] for row in order]


def _digest(*parts: str) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()
