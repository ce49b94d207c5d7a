"""The texts of a comparison, kept as `actors.merging.texts` keeps those of a domain: what each PLM wrote
(`train`), in an order drawn at random; what fusers learn from, and the sets that are judged on (`test`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from actors.merging.texts import keep
from actors.sources import read_labelled
from actors.steps.data import held_out, read_kept, seed_of
from cluster.storage import Run, Step
from configs.schema.base import ConfigError
from configs.schema.compare import FUSING
from configs.schema.task import Source

FEWEST = 10
"""Texts that fusers need at least."""


def write(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Write the texts; facts: `files` by PLM, `sets` by name with `fusing`, `counts` by part, and `warnings`.
    `params`: chain, plms, labels, seed, held_out (share), items (of fusers, or None), sets {name: source}."""
    labels = params["labels"]
    kept = read_kept(run, params["chain"])
    owners = np.array(kept.column("plm").to_pylist(), dtype=object)
    out = np.zeros(len(owners), dtype=bool)
    if params["items"] is None:
        out = held_out(kept.column("id").to_pylist(), list(owners), params["held_out"])
    written = {}
    for plm in params["plms"]:
        mine = np.flatnonzero((owners == plm) & ~out)
        mine = np.random.default_rng(seed_of(params["seed"], "order", plm)).permutation(mine)
        written[plm] = kept.take(mine)
    fusing = kept.filter(pa.array(out & np.isin(owners, params["plms"])))
    if params["items"] is not None:
        fusing = read_labelled(Source.model_validate(params["items"]), labels)
    if fusing.num_rows < FEWEST:
        raise ConfigError(f"routing: fusers have {fusing.num_rows} texts to learn from, {FEWEST} are needed")
    sets = {n: read_labelled(Source.model_validate(s), labels) for n, s in params["sets"].items()}
    if params["items"] is not None:
        check_apart(fusing, sets)
    shared, judged = _shared(fusing, sets), {FUSING: fusing, **sets}
    return {
        "files": {name: keep(run, _rows("train", table, labels)) for name, table in written.items()},
        "sets": {name: keep(run, _rows("test", table, labels)) for name, table in judged.items()},
        "counts": {
            part: {name: table.num_rows for name, table in tables.items()}
            for part, tables in (("train", written), ("test", judged))
        },
        "warnings": [f"{n} texts that fusers learn from are in {s} too" for s, n in shared.items()],
    }


def _rows(part: str, table: pa.Table, labels: list[str]) -> pa.Table:
    names = pa.array(labels).take(table.column("label").combine_chunks())
    text = table.column("text").cast(pa.string()).combine_chunks()
    return pa.table({"part": [part] * table.num_rows, "text": text, "label": names})


def check_apart(items: pa.Table, sets: Mapping[str, pa.Table]) -> None:
    """ConfigError where the texts that fusers were given to learn from are judged on, too."""
    for name, both in _shared(items, sets).items():
        raise ConfigError(f"routing.items: {both} texts are in {name} too; what is judged must be new")


def _shared(fusing: pa.Table, sets: Mapping[str, pa.Table]) -> dict[str, int]:
    """By set, how many of its texts fusers learn from, where there are any."""
    texts = set(fusing.column("text").to_pylist())
    counts = {name: len(texts & set(table.column("text").to_pylist())) for name, table in sets.items()}
    return {name: count for name, count in counts.items() if count}
