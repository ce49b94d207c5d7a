"""Spherical interpolation of two models: along the arc between their weights instead of the chord."""

from math import acos, sin

from torch import Tensor

from fusion.merging.average import working

PARALLEL = 0.9995
"""Absolute cosine above which the chord is taken."""
TINY = 1e-8


def slerp(first: Tensor, second: Tensor, *, t: float = 0.5) -> Tensor:
    """sin((1 - t) o) / sin o first + sin(t o) / sin o second, with the angle o between the flattened tensors,
    in the type of the first."""
    if not 0 <= t <= 1:
        raise ValueError(f"t lies between 0 and 1, not at {t}")
    a, b = working(first), working(second)
    norms = float(a.norm()), float(b.norm())
    cosine = float((a.double() * b.double()).sum()) / max(norms[0] * norms[1], TINY**2)
    if min(norms) < TINY or abs(cosine) > PARALLEL:
        return ((1 - t) * a + t * b).to(first.dtype)
    angle = acos(cosine)
    return ((sin((1 - t) * angle) * a + sin(t * angle) * b) / sin(angle)).to(first.dtype)
