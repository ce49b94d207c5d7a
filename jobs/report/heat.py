"""Cells of a heat map, coloured so that lightness alone tells them apart."""

from typing import Any

LOW, HIGH = (247, 244, 226), (11, 62, 102)
MIDDLE = (89, 161, 160)
"""Colours of a heat map from its lowest to its highest value."""
DARK_INK, LIGHT_INK = "#14181d", "#ffffff"


def cell(value: float | None, low: float, high: float) -> dict[str, Any]:
    """One cell: its `value`, its `background`, and the `ink` that can be read on it."""
    if value is None:
        return {"value": None, "background": "transparent", "ink": "inherit"}
    position = (value - low) / (high - low) if high > low else 0.5
    colour = _blend(position)
    light = sum(c * f for c, f in zip(colour, (0.2126, 0.7152, 0.0722), strict=True))
    ink = DARK_INK if light > 118 else LIGHT_INK
    return {"value": value, "background": "#{:02x}{:02x}{:02x}".format(*colour), "ink": ink}


def _blend(position: float) -> tuple[int, int, int]:
    start, end, t = (LOW, MIDDLE, 2 * position) if position < 0.5 else (MIDDLE, HIGH, 2 * position - 1)
    red, green, blue = (round(a + (b - a) * t) for a, b in zip(start, end, strict=True))
    return red, green, blue
