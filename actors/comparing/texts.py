"""The texts of a comparison, in one table: what STMs and fusers learn from, and what is judged on.

texts.parquet    part, domain, text and label (its name), as `actors.merging.texts` writes it: `train` has a
                 domain per PLM, in an order drawn at random; `test` has `fusing` and a domain per set
                 that is judged on
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from actors.sources import read_labelled
from actors.steps.data import held_out, read_kept, seed_of
from cluster.storage import Run, Step
from configs.schema.base import ConfigError
from configs.schema.compare import FUSING
from configs.schema.task import Source

FEWEST = 10
"""Texts that fusers need at least."""


def write(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the table; facts: `counts` by part and domain, and `warnings`. `params`: chain, plms, labels,
    seed, held_out (share), items (of fusers, or None), sets {name: source}."""
    labels = params["labels"]
    kept = read_kept(run, params["chain"])
    owners = np.array(kept.column("plm").to_pylist(), dtype=object)
    out = np.zeros(len(owners), dtype=bool)
    if params["items"] is None:
        out = held_out(kept.column("id").to_pylist(), list(owners), params["held_out"])
    tables = []
    for plm in params["plms"]:
        mine = np.flatnonzero((owners == plm) & ~out)
        mine = np.random.default_rng(seed_of(params["seed"], "order", plm)).permutation(mine)
        tables.append(_rows("train", plm, kept.take(mine), labels))
    fusing = kept.filter(pa.array(out & np.isin(owners, params["plms"])))
    if params["items"] is not None:
        fusing = read_labelled(Source.model_validate(params["items"]), labels)
    if fusing.num_rows < FEWEST:
        raise ConfigError(f"routing: fusers have {fusing.num_rows} texts to learn from, {FEWEST} are needed")
    sets = {n: read_labelled(Source.model_validate(s), labels) for n, s in params["sets"].items()}
    if params["items"] is not None:
        check_apart(fusing, sets)
    tables += [_rows("test", name, table, labels) for name, table in {FUSING: fusing, **sets}.items()]
    table = pa.concat_tables(tables)
    step.files.write_table("texts.parquet", table)
    counts: dict[str, dict[str, int]] = {"train": {}, "test": {}}
    for part, domain in zip(table["part"].to_pylist(), table["domain"].to_pylist(), strict=True):
        counts[part][domain] = counts[part].get(domain, 0) + 1
    shared = _shared(fusing, sets)
    return {
        "counts": counts,
        "warnings": [f"{n} texts that fusers learn from are in {s} too" for s, n in shared.items()],
    }


def _rows(part: str, domain: str, table: pa.Table, labels: list[str]) -> pa.Table:
    names = pa.array(labels).take(table.column("label").combine_chunks())
    count = table.num_rows
    text = table.column("text").cast(pa.string()).combine_chunks()
    return pa.table({"part": [part] * count, "domain": [domain] * count, "text": text, "label": names})


def check_apart(items: pa.Table, sets: Mapping[str, pa.Table]) -> None:
    """ConfigError where the texts that fusers were given to learn from are judged on, too."""
    for name, both in _shared(items, sets).items():
        raise ConfigError(f"routing.items: {both} texts are in {name} too; what is judged must be new")


def _shared(fusing: pa.Table, sets: Mapping[str, pa.Table]) -> dict[str, int]:
    """By set, how many of its texts fusers learn from, where there are any."""
    texts = set(fusing.column("text").to_pylist())
    counts = {name: len(texts & set(table.column("text").to_pylist())) for name, table in sets.items()}
    return {name: count for name, count in counts.items() if count}
