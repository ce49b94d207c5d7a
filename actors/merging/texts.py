"""Texts of several domains, cut once into what is learnt from and what is judged on."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.sources import read_rows
from cluster.storage import Run, Step, Storage, digest
from configs.load import locate
from configs.schema.base import ConfigError
from configs.schema.merge import RESERVED_DOMAINS, DomainData
from configs.schema.task import Source

ENDINGS = (".jsonl.gz", ".jsonl", ".parquet", ".csv")
PLACE = "texts/{}.parquet"
COLUMNS = ("part", "domain", "text", "label")


def cut(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Write the texts of each domain, under a name that its content gives. Facts: labels, domains (learnt
    from), held_out, counts, files (by domain). `params`: data, seed."""
    data = DomainData.model_validate(params["data"])
    table = read(data, params["seed"])
    trained, held_out = parts_of(data, table)
    kept = limited(table, data, params["seed"])
    counts, files = dict[str, dict[str, int]](), dict[str, str]()
    for domain in sorted({*trained, *held_out}):
        mine = kept.filter(pc.equal(kept.column("domain"), domain)).select(["part", "text", "label"])
        parts = Counter(mine.column("part").to_pylist())
        counts[domain] = {part: parts[part] for part in ("train", "test")}
        files[domain] = keep(run, mine)
    labels = sorted(set(kept.column("label").to_pylist()))
    return {"labels": labels, "domains": trained, "held_out": held_out, "counts": counts, "files": files}


def read(data: DomainData, seed: int) -> pa.Table:
    """All texts with `part` (train or test), `domain`, `text` and `label`; ConfigError in one line."""
    parts = files_of(data.path)
    tables = []
    for part, path in parts.items():
        columns = _columns(path, {"domain": data.domain, "text": data.text, "label": data.label})
        count = len(columns["text"])
        names = [part] * count
        if len(parts) == 1:
            drawn = np.random.default_rng(seed).random(count) < data.test_share
            names = np.where(drawn, "test", "train").tolist()
        tables.append(pa.table({"part": names, **columns}))
    known = {name for one in tables for name in one.column("domain").to_pylist()}
    tables += [_elsewhere(data, name, path) for name, path in data.elsewhere.items()]
    taken = sorted(known & set(data.elsewhere))
    if taken:
        raise ConfigError(f"data.elsewhere: {taken[0]!r} is also a domain of {data.path}; name it otherwise")
    table = pa.concat_tables(tables)
    if any(table.column(name).null_count for name in COLUMNS):
        raise ConfigError(f"{data.path}: some rows have no domain, text or label")
    return table


def _elsewhere(data: DomainData, name: str, path: str) -> pa.Table:
    """A file that is judged on, as rows of `read`."""
    columns = _columns(path, {"text": data.text, "label": data.label})
    count = len(columns["text"])
    return pa.table({"part": ["test"] * count, "domain": [name] * count, **columns})


def _columns(path: str, wanted: dict[str, str]) -> dict[str, list[str | None]]:
    """Columns of a file as strings, under other names."""
    rows = read_rows(Source(path=path))
    for column in wanted.values():
        if column not in rows.column_names:
            raise ConfigError(f"{path}: no column {column!r}; there are {', '.join(rows.column_names)}")
    return {name: rows.column(column).cast(pa.string()).to_pylist() for name, column in wanted.items()}


def files_of(path: str) -> dict[str, str]:
    """The files by part: one that is to be cut, or `train` and `test` of a folder."""
    remote = "://" in path
    if path.endswith(ENDINGS) if remote else not locate(path).is_dir():
        return {"all": path}
    names = Storage(path if remote else str(locate(path))).names()
    found = {}
    for part in ("train", "test"):
        fits = [name for name in names if name in {part + ending for ending in ENDINGS}]
        if not fits:
            raise ConfigError(f"data.path: {path}: no file {part} ({', '.join(ENDINGS)})")
        found[part] = f"{path.rstrip('/')}/{fits[0]}"
    return found


def parts_of(data: DomainData, table: pa.Table) -> tuple[list[str], list[str]]:
    """Domains that are learnt from, and those that are only judged on; ConfigError for names that clash."""
    trained = chosen(data, table)
    held_out = [*(data.held_out or _others(data, table, trained)), *data.elsewhere]
    both = sorted({*trained} & {*held_out})
    if both:
        raise ConfigError(f"data.held_out: {both[0]!r} is also learnt from; name it once")
    reserved = sorted({*trained, *held_out} & {*RESERVED_DOMAINS})
    if reserved:
        raise ConfigError(f"{data.path}: a domain is called {reserved[0]!r}, as a column of the results is")
    return trained, held_out


def chosen(data: DomainData, table: pa.Table) -> list[str]:
    """The domains that get a model of their own: those named, or the largest."""
    counts = _counts(table, "train")
    unknown = [name for name in (*data.domains, *data.held_out) if name not in counts]
    if unknown:
        known = ", ".join(counts)
        raise ConfigError(f"data.domains: no domain {unknown[0]!r} in {data.path}; there are {known}")
    if data.domains:
        return list(data.domains)
    free = _largest({name: n for name, n in counts.items() if n and name not in data.held_out})
    if len(free) < 2:
        raise ConfigError(f"{data.path}: {len(free)} domains to learn from, two are needed")
    return sorted(free[: data.count])


def _others(data: DomainData, table: pa.Table, trained: Sequence[str]) -> list[str]:
    """The largest domains that no model learns from."""
    counts, known = _counts(table, "test"), {*trained, *data.elsewhere}
    return sorted(_largest({name: n for name, n in counts.items() if n and name not in known})[: data.count])


def _counts(table: pa.Table, part: str) -> dict[str, int]:
    """Texts in a part of every domain."""
    mine = table.filter(pc.equal(table.column("part"), part)).column("domain").to_pylist()
    return {**dict.fromkeys(table.column("domain").to_pylist(), 0), **Counter(mine)}


def _largest(counts: dict[str, int]) -> list[str]:
    return sorted(counts, key=lambda name: (-counts[name], name))


def limited(table: pa.Table, data: DomainData, seed: int) -> pa.Table:
    """Up to so many rows of each part of each domain in use, drawn at random, in their order. What is drawn
    of a domain does not depend on the others."""
    trained, held_out = parts_of(data, table)
    names = np.array(table.column("domain").to_pylist())
    parts = np.array(table.column("part").to_pylist())
    rows = []
    for domain in sorted({*trained, *held_out}):
        rng = np.random.default_rng([seed, int(digest(domain), 16)])
        for part, limit in (("train", data.train_limit), ("test", data.test_limit)):
            mine = np.flatnonzero((names == domain) & (parts == part))
            rows.append(np.sort(rng.permutation(mine)[:limit]))
    return table.take(np.concatenate(rows))


def keep(run: Run, texts: pa.Table) -> str:
    """Write the texts of a domain, with part and label, under a name that their content gives."""
    name = digest(texts.to_pylist())
    run.write_table(PLACE.format(name), texts)
    return name


def part_of(run: Run, texts: str, part: str) -> tuple[list[str], list[str]]:
    """Texts and labels of a part of a domain, of which `texts` names the content."""
    rows = run.read_table(PLACE.format(texts)).to_pylist()
    mine = [row for row in rows if row["part"] == part]
    return [row["text"] for row in mine], [row["label"] for row in mine]
