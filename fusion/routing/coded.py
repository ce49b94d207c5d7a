"""Stored outputs of an expert in a byte per number, by which distances are bounded from below.

What requests wait for is reading stored outputs: bytes are a quarter of that, and processors multiply them
faster than floats. What codes leave in doubt is measured again (`neighbours.closest`).
"""

from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from fusion.routing.neighbours import Floats, Singles

Bytes = NDArray[np.int8]
MOST = 127
"""The greatest code."""
WIDE = 32
"""Numbers from which on codes pay: narrow outputs are quickly read as they are."""
LEAST = 2.0**-12
"""The least share of outputs that codes leave, as a guess."""
EXPECTED = 2.5
"""How far below distances bounds are, as multiples of what they lack for the request: as much for the item,
and some more, so that few are looked at twice."""


@dataclass(frozen=True)
class Coded:
    """Outputs x (n, d), less their `mean` and turned so that none of their numbers is much greater than the
    others: `codes` c (n, d) times `steps` s (n,), and rests r.

    A request q is t b + p as well. Codes tell its squared distance |q|^2 + |x|^2 - 2 q x to an item but for
    -2 (q r + p s c), which for any a > 0 is at least -(a |q|^2 + |r|^2 / a) - (|p|^2 / a + a |s c|^2). With
    the usual |r| / |x| as a (`share`), what concerns the items is taken off their |x|^2 once (`least`, (n,)),
    so a bound costs no more than a product. `rounding` is the share of |q|^2 + |x|^2 by which sums in float32
    may be off.
    """

    mean: Floats
    codes: Bytes
    steps: Singles
    least: Singles
    share: float
    rounding: float

    @classmethod
    def of(cls, block: Floats, rounding: float) -> Self:
        """Code outputs (n, d)."""
        mean = block.mean(axis=0)
        x = _turned(block - mean)
        codes, steps = _coded(x)
        known = codes * steps
        norms, rests = _squares(x), _squares(x - known)
        shares = rests / np.maximum(norms, np.finfo(float).tiny)
        share = max(LEAST, float(shares.max(initial=0)), float(np.sqrt(shares.mean())))
        least = norms * (1 - rounding) - rests / share - _squares(known) * share
        return cls(mean, codes, steps[:, 0].astype(np.float32), least.astype(np.float32), share, rounding)

    def bound(self, outputs: Floats) -> tuple[Singles, Floats, Floats]:
        """Bounds (m, n) of the squared distances of outputs (m, d) to all items; what they lack (m,), the
        same for all items; and about how far below the distances they are (m,)."""
        q = _turned(outputs - self.mean)
        codes, steps = _coded(q)
        norms = _squares(q)
        doubt = norms * (self.share + self.rounding) + _squares(q - codes * steps) / self.share
        bounds = np.multiply(_products(codes, self.codes), -2 * steps, dtype=np.float32, casting="unsafe")
        bounds *= self.steps
        bounds += self.least
        return bounds, norms - doubt, EXPECTED * doubt


@cache
def quick() -> bool:
    """Whether this processor multiplies bytes faster than floats (AVX-512 VNNI)."""
    return "AVX512_ICL" in np.show_config(mode="dicts")["SIMD Extensions"]["found"]


def _turned(x: Floats) -> Floats:
    """Rows of the same distances from one another, over whose numbers what is in one of them is spread."""
    return np.asarray(x @ _turning(x.shape[1]))


@cache
def _turning(width: int) -> Floats:
    """The discrete cosine transform (width, width) of rows."""
    return np.asarray(dct(np.eye(width), axis=1, norm="ortho"))


def _coded(x: Floats) -> tuple[Bytes, Floats]:
    """Codes (n, d) and steps (n, 1) of rows: the greatest number of each is 127 or -127."""
    steps = np.maximum(np.abs(x).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / MOST
    return np.rint(x / steps).astype(np.int8), steps


def _squares(x: Floats) -> Floats:
    """Squared norms of rows."""
    return np.asarray(np.einsum("ij,ij->i", x, x))


def _products(a: Bytes, b: Bytes) -> NDArray[np.int32]:
    """Products (m, n) of all rows of a (m, d) and b (n, d)."""
    import torch  # takes more than a second, and narrow outputs need it not

    return np.asarray(torch._int_mm(torch.from_numpy(a), torch.from_numpy(b).T).numpy())
