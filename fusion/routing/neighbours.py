"""Exact nearest neighbours in the outputs of any subset of experts.

The squared Euclidean distance over the concatenated outputs of a subset is the sum of the distances over its
blocks (one block per expert), so distances are computed once per block and added. They are counted in whole
billionths and kept as float64: below 2^53 such sums are exact, hence the same in whatever order experts were
asked, and outputs that are equal are exactly as far away, which tie-inclusive neighbourhoods need.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Ties = Literal["inclusive", "lowest"]
GRID = 1e9
"""Distances are whole multiples of 1 / GRID."""
CHUNK = 1 << 19
"""Distances held at a time by functions that walk over rows: 4 MB, what a core's cache keeps near."""
GROUP = 32


def block_distances(a: Floats, b: Floats) -> Floats:
    """Squared Euclidean distances between rows a (m, d) and b (n, d), in whole billionths (m, n)."""
    distances = a @ b.T
    distances *= -2
    distances += np.einsum("ij,ij->i", a, a)[:, None]
    distances += np.einsum("ij,ij->i", b, b)
    np.maximum(distances, 0, out=distances)
    distances *= GRID
    return np.rint(distances, out=distances)


def row_chunks(rows: int, columns: int) -> Iterator[slice]:
    """Slices over `rows` rows of `columns` numbers that are worked on together."""
    size = max(1, CHUNK // max(1, columns))
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))


def nearest(distances: Floats, count: int, ties: Ties = "inclusive") -> csr_array:
    """The `count` smallest of each row of distances (m, n), kept in a sparse matrix; infinite ones never are.

    `inclusive` takes everyone as near as the last one, `lowest` cuts equal distances by lowest column.
    """
    rows, columns = candidates(distances, count)
    m, n = distances.shape
    return select(rows, columns, distances[rows, columns], count, ties, (m, n))


def candidates(
    distances: NDArray[np.floating[Any]], count: int, slack: Floats | None = None
) -> tuple[Ints, Ints]:
    """Rows and columns among which are the `count` smallest finite distances of each row, and few others.

    With `slack` (m,), also everything that much above them. Columns fall into groups; the `count`-th smallest
    of the minima of the groups bounds the `count`-th smallest of all, so only groups with a minimum up to it
    are looked at.
    """
    m, n = distances.shape
    groups = n // GROUP
    if n <= count:
        rows, columns = np.nonzero(distances < np.inf)
        return rows, columns
    if groups < 4 * count:
        bound = np.partition(distances, count - 1, axis=1)[:, count - 1]
        rows, columns = np.nonzero(distances <= _above(bound, slack)[:, None])
    else:
        minima = distances[:, :groups].copy()
        for start in range(groups, GROUP * groups, groups):
            np.minimum(minima, distances[:, start : start + groups], out=minima)
        bound = np.partition(minima, count - 1, axis=1)[:, count - 1]
        hit, group = np.nonzero(minima <= _above(bound, slack)[:, None])
        rest = np.arange(GROUP * groups, n)
        rows = np.concatenate([np.repeat(hit, GROUP), np.repeat(np.arange(m), len(rest))])
        columns = np.concatenate([(group[:, None] + groups * np.arange(GROUP)).ravel(), np.tile(rest, m)])
    values = distances[rows, columns]
    kept = (values <= _above(bound, slack)[rows]) & (values < np.inf)
    return rows[kept], columns[kept]


def select(
    rows: Ints, columns: Ints, values: Floats, count: int, ties: Ties, shape: tuple[int, int]
) -> csr_array:
    """The `count` smallest values of each row in a sparse matrix, of candidates in any order."""
    order = np.lexsort((columns, values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    sizes = np.bincount(rows, minlength=shape[0])
    starts = np.cumsum(sizes) - sizes
    place = np.arange(len(rows)) - starts[rows]
    if ties == "lowest":
        kept = place < count
    else:
        last = np.full(shape[0], np.inf)
        full = sizes >= count
        last[full] = values[starts[full] + count - 1]
        kept = values <= last[rows]
    ends = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=shape[0]))])
    matrix = csr_array((values[kept], columns[kept], ends), shape=shape)
    matrix.sort_indices()
    return matrix


def ones(near: csr_array) -> csr_array:
    """A sparse matrix of ones in the places of another."""
    return csr_array((np.ones(len(near.data)), near.indices, near.indptr), shape=near.shape)


def _above(bound: NDArray[np.floating[Any]], slack: Floats | None) -> NDArray[np.floating[Any]]:
    return bound if slack is None else bound + slack
