"""Gram matrices: all that RegMean keeps of the inputs x of a linear map (arXiv 2212.09849, section 3).

    S = sum over rows x of x x^T,   G = S / rows

Sums are never rescaled on the way, so that parts add up, and the division by the number of rows comes last.
Wide matrices are accumulated as block triangles, (k + 1) / 2k of the work with k panels, by plain matrix
products that every device has: the first half of the panels with the second half, then each half for itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import isqrt
from typing import Self

import torch
from torch import Tensor

NARROW = 512
"""Below this width one product is faster than panels."""
WIDE = 2048
PANELS = {NARROW: 8, WIDE: 16}
"""From which width on a matrix is cut into how many panels."""
COMPLETE = 10
"""Rows per input feature that a Gram matrix should rest on; fewer are reported, and may give away inputs."""
LEAST = 2
"""Rows per input feature below which the unshrunk solution is refused."""


class Gram:
    """S (width, width) of the rows seen so far, on one device. `dtype` float32 or float64 holds the sums."""

    def __init__(
        self, width: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"Gram matrices are summed in float32 or float64, not in {dtype}")
        with torch.inference_mode(False):
            self.total = torch.zeros(width, width, dtype=dtype, device=device)
        self.rows = 0
        self.skipped = 0
        """Batches left out because they held a number that is none."""
        self._edges = _edges(width)

    @classmethod
    def of(cls, total: Tensor, rows: int = 1) -> Self:
        """The matrix of a known sum (d, d), symmetric; with rows = 1 of a known mean."""
        if total.ndim != 2 or total.shape[0] != total.shape[1]:
            raise ValueError(f"a Gram matrix is square, not {tuple(total.shape)}")
        gram = cls(0, dtype=total.dtype, device=total.device)
        gram.total, gram.rows, gram._edges = total, rows, _edges(len(total))
        return gram

    @property
    def width(self) -> int:
        """Features d of the input."""
        return len(self.total)

    def add(self, rows: Tensor) -> None:
        """Count rows (..., d) of any floating type; all of them or, if one number is not finite, none."""
        x = rows.reshape(-1, rows.shape[-1])
        if x.shape[1] != self.width:
            raise ValueError(f"rows have {x.shape[1]} features, the Gram matrix {self.width}")
        if not finite(x):
            self.skipped += 1
            return
        with exact_products(x):
            self._accumulate(x.to(self.total.dtype), self._edges)
        self.rows += len(x)

    def absorb(self, other: "Gram") -> None:
        """Add what another one counted of the same input."""
        if other.width != self.width:
            raise ValueError(f"Gram matrices of {self.width} and {other.width} features do not add up")
        self.total += other.total.to(self.total)
        self.rows += other.rows
        self.skipped += other.skipped

    def symmetric(self) -> Tensor:
        """S (d, d), made exactly symmetric in place; counting may go on afterwards."""
        for start, stop in self._edges:
            block = self.total[start:stop, start:stop]
            block.copy_((block + block.T) / 2)
            self.total[stop:, start:stop] = self.total[start:stop, stop:].T
        return self.total

    def packed(self) -> Tensor:
        """The upper triangle of S, row after row (d (d + 1) / 2,)."""
        total = self.symmetric()
        return torch.cat([total[i, i:] for i in range(self.width)])

    @classmethod
    def unpacked(cls, triangle: Tensor, rows: int) -> Self:
        """The Gram matrix again. Raises ValueError if that many numbers make no triangle."""
        width = (isqrt(8 * triangle.numel() + 1) - 1) // 2
        if triangle.ndim != 1 or width * (width + 1) // 2 != triangle.numel():
            raise ValueError(f"{tuple(triangle.shape)} numbers are not the triangle of a matrix")
        total = triangle.new_zeros(width, width)
        for i, part in enumerate(torch.split_with_sizes(triangle, list(range(width, 0, -1)))):
            total[i, i:] = total[i:, i] = part
        return cls.of(total, rows)

    def mean(self) -> Tensor:
        """G = S / rows (d, d). Raises ValueError if no row was counted."""
        return self.symmetric() / self.counted()

    def counted(self) -> int:
        """The number of rows. Raises ValueError if there is none."""
        if not self.rows:
            raise ValueError(f"no rows were counted ({self.skipped} batches had values that are not finite)")
        return self.rows

    def _accumulate(self, x: Tensor, panels: Sequence[tuple[int, int]]) -> None:
        start, stop = panels[0][0], panels[-1][1]
        if len(panels) == 1:
            self.total[start:stop, start:stop].addmm_(x[:, start:stop].T, x[:, start:stop])
            return
        half = len(panels) // 2
        cut = panels[half][0]
        self.total[start:cut, cut:stop].addmm_(x[:, start:cut].T, x[:, cut:stop])
        self._accumulate(x, panels[:half])
        self._accumulate(x, panels[half:])


def finite(x: Tensor) -> bool:
    """Whether all numbers are finite: their sum is then, in a type that does not overflow."""
    return bool(torch.isfinite(x.sum(dtype=torch.promote_types(x.dtype, torch.float32))))


@contextmanager
def exact_products(x: Tensor) -> Iterator[None]:
    """Let the GPU multiply bfloat16 and float16 inputs on its TF32 units, where their products are exact, and
    those of float32 in full; the setting is put back."""
    if x.device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if x.dtype in (torch.bfloat16, torch.float16) else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def doubt(rows: int, width: int, alpha: float) -> str | None:
    """What speaks against solving with a Gram matrix of so many rows, or nothing.

    Raises ValueError where the solution is not shrunk and rests on next to nothing.
    """
    if alpha >= 1 and rows < LEAST * width:
        raise ValueError(
            f"{rows} rows for {width} input features are too few for alpha = 1: collect {LEAST * width}, or "
            "lower alpha"
        )
    if rows >= COMPLETE * width:
        return None
    return (
        f"{rows} rows for {width} input features, less than {COMPLETE} each; they may be recoverable from it"
    )


def panels_of(width: int) -> int:
    """How many panels a matrix is cut into."""
    return max((count for least, count in PANELS.items() if width >= least), default=1)


def _edges(width: int) -> list[tuple[int, int]]:
    panels = panels_of(width)
    cuts = [width * panel // panels for panel in range(panels + 1)]
    return list(pairwise(cuts))
