"""Exact nearest neighbours in the outputs of any subset of experts.

The squared Euclidean distance over the concatenated outputs of a subset is the sum of the distances over its
blocks (one block per expert), so distances are computed once per block and added. They are counted in whole
billionths and kept as float64: below 2^53 such sums are exact, hence the same in whatever order experts were
asked, and outputs that are equal are exactly as far away, which tie-inclusive neighbourhoods need.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.intp]
Ties = Literal["inclusive", "lowest"]
GRID = 1e9
"""Distances are whole multiples of 1 / GRID."""
CHUNK = 1 << 19
"""Distances held at a time by functions that walk over rows: what stays near a core."""
CORE = 1 << 16
"""Numbers that stay next to a core."""
GROUP = 16
"""Columns of which one smallest is kept."""


def block_distances(a: Floats, b: Floats) -> Floats:
    """Squared Euclidean distances between rows a (m, d) and b (n, d), in whole billionths (m, n)."""
    distances = a @ b.T
    distances *= -2
    distances += np.einsum("ij,ij->i", a, a)[:, None]
    distances += np.einsum("ij,ij->i", b, b)
    np.maximum(distances, 0, out=distances)
    distances *= GRID
    return np.rint(distances, out=distances)


def pair_distances(a: Floats, b: Floats) -> Floats:
    """Squared Euclidean distances (p,) between rows of the same place of a and b (p, d), in whole billionths,
    from their differences."""
    gap = a - b
    return np.asarray(np.rint(np.einsum("ij,ij->i", gap, gap) * GRID))


def pairs_between(a: Floats, at: Ints, b: Floats, of: Ints) -> Floats:
    """The same between rows `at` (p,) of a and rows `of` (p,) of b, near a core."""
    found = np.empty(len(at))
    for part in row_chunks(len(at), b.shape[1], CORE):
        gap = b[of[part]]
        gap -= a[at[part]]
        np.einsum("ij,ij->i", gap, gap, out=found[part])
    found *= GRID
    return np.rint(found, out=found)


def row_chunks(rows: int, columns: int, numbers: int = CHUNK) -> Iterator[slice]:
    """Slices over `rows` rows of `columns` numbers, `numbers` of which are worked on together."""
    size = max(1, numbers // max(1, columns))
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))


def nearest(distances: Floats, count: int, ties: Ties = "inclusive") -> csr_array:
    """The `count` smallest of each row of distances (m, n), kept in a sparse matrix; infinite ones never are.

    `inclusive` takes everyone as near as the last one, `lowest` cuts equal distances by lowest column.
    """
    m, n = distances.shape
    rows, columns = candidates(distances, count)
    values = distances[rows, columns]
    kept = smallest(rows, columns, values, count, ties, m)
    ends = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=m))])
    return csr_array((values[kept], columns[kept], ends), shape=(m, n))


def members(
    rough: Singles, slack: Floats, count: int, ties: Ties, measure: Callable[[Ints, Ints], Floats]
) -> tuple[Ints, Ints]:
    """Rows and columns of the `count` nearest of each row, ordered; rough distances (m, n) suffice.

    Two rough distances of a row whose difference is beyond `slack` (m,) are in the right order. Others are
    measured, `measure(rows, columns)` giving whole billionths, where it matters.
    """
    m = len(rough)
    rows, columns = candidates(rough, count, slack)
    values = rough[rows, columns]
    last = _last(rows, values, count, m)
    near = values <= (last + slack)[rows]
    rows, columns, values = rows[near], columns[near], values[near]
    crowded = np.bincount(rows, minlength=m) > count
    if not crowded.any():
        return rows, columns
    unsure = crowded[rows] & (values >= (last - slack)[rows])
    exact = np.full(len(rows), -1.0)
    exact[unsure] = measure(rows[unsure], columns[unsure])
    kept = ~crowded[rows]
    some = np.flatnonzero(~kept)
    kept[some] = smallest(rows[some], columns[some], exact[some], count, ties, m)
    return rows[kept], columns[kept]


def closest(
    bounds: Singles,
    minima: Singles,
    lacking: Floats,
    doubt: Floats,
    count: int,
    ties: Ties,
    measure: Callable[[Ints, Ints], Floats],
) -> tuple[Ints, Ints, Floats]:
    """Rows, columns and distances, ordered, of the `count` nearest of each row, by bounds from below.

    Distances are at least `bounds` (m, n) plus `lacking` (m,), and about `doubt` (m,) more; `minima` are what
    `group_minima` makes of the bounds; `measure(rows, columns)` gives whole billionths. The `count`-th of
    what is measured first bounds the one of all from above; if it is beyond what was looked at, all up to it
    are measured too.
    """
    m, n = bounds.shape
    limit = _smallest(minima, count) + doubt if count < n else np.full(m, np.inf)
    rows, columns = _within(bounds, minima, None, limit)
    exact = measure(rows, columns)
    last = _last(rows, exact, count, m)
    needed = last / GRID - lacking
    short = (needed > limit).nonzero()[0]
    if len(short):
        at, more = _within(bounds[short], minima[short], limit[short], needed[short])
        at = short[at]
        rows, columns = np.concatenate([rows, at]), np.concatenate([columns, more])
        exact = np.concatenate([exact, measure(at, more)])
        order = np.lexsort((columns, rows))
        rows, columns, exact = rows[order], columns[order], exact[order]
        last = _last(rows, exact, count, m)
    kept = exact <= last[rows] if ties == "inclusive" else smallest(rows, columns, exact, count, ties, m)
    return rows[kept], columns[kept], exact[kept]


def group_size(columns: int, count: int) -> int:
    """How many columns fall into a group, of which there should be several times `count`: a power of two."""
    size = GROUP
    while size > 1 and size * 4 * count > columns:
        size //= 2
    return size


def group_minima(bounds: Singles, size: int) -> Singles:
    """The smallest (m, n / size) of each group of bounds (m, n): one from each of `size` equal parts."""
    m, n = bounds.shape
    return np.asarray(bounds.reshape(m, size, n // size).min(axis=1))


def _within(bounds: Singles, minima: Singles, over: Floats | None, limit: Floats) -> tuple[Ints, Ints]:
    """Rows and columns, ordered, of finite bounds (m, n) over one limit (m,) and up to another."""
    n, groups = bounds.shape[1], minima.shape[1]
    hit, group = (minima <= limit[:, None]).nonzero()
    keys = (hit * n + group)[:, None] + np.arange(0, n, groups)
    values, most = bounds.reshape(-1)[keys], limit[hit, None]
    near = values <= np.minimum(most, np.finfo(np.float32).max)
    if over is not None:
        near &= values > over[hit, None]
    keys = keys[near]
    keys.sort()
    rows, columns = np.divmod(keys, n)
    return rows, columns


def candidates(
    distances: NDArray[np.floating[Any]], count: int, slack: Floats | None = None
) -> tuple[Ints, Ints]:
    """Rows and columns, ordered, among which are the `count` smallest finite distances of each row, and few
    others.

    With `slack` (m,), also everything that much above them. Columns fall into groups; the `count`-th smallest
    of the minima of the groups bounds the `count`-th smallest of all, so only groups with a minimum up to it
    are looked at.
    """
    m, n = distances.shape
    size = min(GROUP, n // (4 * count))
    if n <= count:
        rows, columns = np.nonzero(distances < np.inf)
        return rows, columns
    if size < 2:
        bound = np.partition(distances, count - 1, axis=1)[:, count - 1]
        keys = np.flatnonzero(distances <= _above(bound, slack)[:, None])
    else:
        groups = n // size
        minima = distances[:, : groups * size].reshape(m, size, groups).min(axis=1)
        bound = np.partition(minima, count - 1, axis=1)[:, count - 1]
        hit, group = np.nonzero(minima <= _above(bound, slack)[:, None])
        first = (hit * n + group)[:, None] + groups * np.arange(size)
        rest = (np.arange(m) * n)[:, None] + np.arange(groups * size, n)
        keys = np.concatenate([first.ravel(), rest.ravel()])
    values = distances.reshape(-1)[keys]
    keys = keys[(values <= _above(bound, slack)[keys // n]) & (values < np.inf)]
    keys.sort()
    rows, columns = np.divmod(keys, n)
    return rows, columns


def smallest(rows: Ints, columns: Ints, values: Floats, count: int, ties: Ties, m: int) -> NDArray[np.bool_]:
    """Which are among the `count` smallest values of their row, one of m; rows are in order."""
    if ties == "inclusive":
        return np.asarray(values <= _last(rows, values, count, m)[rows])
    order = np.lexsort((columns, values, rows))
    kept = np.zeros(len(rows), bool)
    kept[order] = _places(rows, m) < count
    return kept


def distinct(keys: Ints) -> tuple[Ints, Ints]:
    """Where each different key is first, in the order of the keys, and which of those each one (w,) is."""
    if len(keys) == 1:
        return np.zeros(1, np.intp), np.zeros(1, np.intp)
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    return first, place


def ones(near: csr_array) -> csr_array:
    """A sparse matrix of ones in the places of another."""
    return csr_array((np.ones(len(near.data)), near.indices, near.indptr), shape=near.shape)


def _above(bound: NDArray[np.floating[Any]], slack: Floats | None) -> NDArray[np.floating[Any]]:
    return bound if slack is None else bound + slack


def _last(rows: Ints, values: NDArray[np.floating[Any]], count: int, m: int) -> NDArray[np.floating[Any]]:
    """The `count`-th smallest value (m,) of each row, infinite where there are fewer; rows are in order."""
    if m == 1 and len(values) >= count:
        return _smallest(values[None], count)
    places = _places(rows, m)
    table = np.full((m, max(count, int(places.max(initial=0)) + 1)), np.inf, values.dtype)
    table[rows, places] = values
    return _smallest(table, count)


def _smallest(table: NDArray[np.floating[Any]], count: int) -> NDArray[np.floating[Any]]:
    """The `count`-th smallest number (m,) of each row."""
    return np.asarray(np.partition(table, count - 1, axis=1)[:, count - 1])


def _places(rows: Ints, m: int) -> Ints:
    """Places among those of the same row; rows are in order."""
    sizes = np.bincount(rows, minlength=m)
    return np.arange(len(rows)) - (np.cumsum(sizes) - sizes)[rows]
