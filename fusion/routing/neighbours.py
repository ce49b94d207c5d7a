"""Exact nearest neighbours in the outputs of any subset of experts.

The squared Euclidean distance over the concatenated outputs of a subset is the sum of the distances over its
blocks (one block per expert), so distances are computed once per block and added. They are counted in whole
billionths and kept as float64: below 2^53 such sums are exact, hence the same in whatever order experts were
asked, and outputs that are equal are exactly as far away, which tie-inclusive neighbourhoods need.
"""

from collections.abc import Iterator
from typing import Literal

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
GROUP = 16


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
    """Ones (m, n) at the `count` smallest of each row of distances (m, n); infinite ones are never taken.

    `inclusive` takes everyone as near as the last one, `lowest` cuts equal distances by lowest column.
    """
    m, n = distances.shape
    if n <= count:
        rows, columns = np.nonzero(distances < np.inf)
        return _ones(rows, columns, (m, n))
    rows, columns = np.nonzero(distances <= _bound(distances, count)[:, None])
    values = distances[rows, columns]
    finite = values < np.inf
    rows, columns, values = rows[finite], columns[finite], values[finite]
    order = np.lexsort((columns, values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    sizes = np.bincount(rows, minlength=m)
    starts = np.cumsum(sizes) - sizes
    if ties == "lowest":
        kept = np.arange(len(rows)) - starts[rows] < count
    else:
        last = np.full(m, np.inf)
        full = sizes >= count
        last[full] = values[starts[full] + count - 1]
        kept = values <= last[rows]
    return _ones(rows[kept], columns[kept], (m, n))


def _bound(distances: Floats, count: int) -> Floats:
    """A number per row that at least `count` of its distances do not exceed, and few more.

    The `count`-th smallest of minima over groups: as tight as needed, and far cheaper than a partition.
    """
    m, n = distances.shape
    groups = n // GROUP
    if groups < 4 * count:
        return np.asarray(np.partition(distances, count - 1, axis=1)[:, count - 1])
    minima = distances[:, : groups * GROUP].reshape(m, GROUP, groups).min(axis=1)
    return np.asarray(np.partition(minima, count - 1, axis=1)[:, count - 1])


def _ones(rows: Ints, columns: Ints, shape: tuple[int, int]) -> csr_array:
    """A sparse matrix of ones; `rows` are sorted."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
    matrix = csr_array((np.ones(len(rows)), columns, starts), shape=shape)
    matrix.sort_indices()
    return matrix
