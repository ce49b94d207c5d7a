"""What steps read of each other: the accepted samples of a chain of filter steps, and their splits."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.storage import Run

Indices = NDArray[np.int64]


def read_step(run: Run, key: str, file: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file of a committed step."""
    return run.read_table(f"steps/{key}/{file}", columns)


def read_kept(run: Run, chain: Sequence[str], columns: list[str] | None = None) -> pa.Table:
    """Accepted samples of all filter steps of a chain, in their order: id, plm, round, label, text, …"""
    return pa.concat_tables([read_step(run, key, "kept.parquet", columns) for key in chain])


def held_out(ids: Sequence[str], owners: Sequence[str], share: float) -> NDArray[np.bool_]:
    """Which samples are held out: of each owner the share whose ids hash lowest, the same in every round.

    A sample held out early can only be trained on later when many new ones hash lower.
    """
    counts = {owner: int(n * share) for owner, n in Counter(owners).items()}
    return _lowest(ids, owners, counts)


def first_of_each(ids: Sequence[str], owners: Sequence[str], count: int) -> NDArray[np.bool_]:
    """At most `count` samples of each owner: those whose ids hash highest, the last to be held out."""
    return ~_lowest(ids, owners, {owner: max(0, n - count) for owner, n in Counter(owners).items()})


def _lowest(ids: Sequence[str], owners: Sequence[str], counts: Mapping[str, int]) -> NDArray[np.bool_]:
    """So many samples of each owner: those whose ids hash lowest."""
    order = np.array([hashlib.blake2b(i.encode(), digest_size=8).digest() for i in ids], dtype="S8")
    names = np.asarray(owners, dtype=object)
    mask = np.zeros(len(order), dtype=bool)
    for owner, count in counts.items():
        mine = np.flatnonzero(names == owner)
        mask[mine[np.argsort(order[mine], kind="stable")[:count]]] = True
    return mask


def seed_of(*parts: object) -> int:
    """A 63-bit seed from what identifies a piece of work."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
