"""Figures as a part of the page: matplotlib draws them, and the page's style sheet colours them.

While drawing, colours are stand-ins; in the SVG they become variables of the style sheet, so that one drawing
serves light, dark and paper. Text stays text. The same figure gives the same bytes.
"""

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from jobs.report.words import share

WIDTH = 370.0
"""Width of a figure in its own units: the column of a phone, so that text keeps its size there."""
INK, MUTED, GRID, SURFACE, QUIET = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05"
SERIES = tuple(f"#0a0c{i:02x}" for i in range(10))
"""Colours of the series, apart under every common colour blindness; further series start over."""
DARK = "#14181d"
"""Ink on colours that are light in both schemes."""
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    SURFACE: "var(--paper)",
    QUIET: "var(--quiet)",
    **{colour: f"var(--c{i})" for i, colour in enumerate(SERIES)},
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "amalgam",
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.titlesize": 10,
    "axes.labelsize": 10.5,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "path.simplify": False,
    "text.parse_math": False,
}
MARKERS = "os^DvPXp*h"
"""Shapes that go with the colours of the series."""
UNIT = 72.0
"""Units per inch, so that font sizes are in the units of the figure."""
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
FONT = re.compile(r"font: (?P<before>[^;\"']*?)(?P<size>[\d.]+px) '[^;\"]*")


def series(position: int) -> str:
    """Colour of a series."""
    return SERIES[position % len(SERIES)]


def canvas(height: float) -> Figure:
    """An empty figure of the page's width."""
    return Figure(figsize=(WIDTH / UNIT, height / UNIT), layout="constrained")


def plain(axes: Axes, *, x: bool = True, y: bool = True) -> None:
    """Leave out the grid lines of an axis."""
    axes.grid(x, axis="x")
    axes.grid(y, axis="y")


def numbers(axes: Axes, which: str, write: Callable[[float], str] = share) -> None:
    """Write the ticks of an axis (`x` or `y`) in one way."""
    getattr(axes, f"{which}axis").set_major_formatter(FuncFormatter(lambda value, _: write(value)))


def stack(axes: Axes, places: Any, values: Any, left: Any, colour: str, label: str) -> None:  # noqa: ANN401
    """Add one layer to stacked bars."""
    axes.barh(
        places, values, left=left, height=0.68, color=colour, label=label, edgecolor=SURFACE, linewidth=0.8
    )


def name_rows(axes: Axes, places: Any, names: Sequence[str]) -> None:  # noqa: ANN401
    """Put names on the rows of a figure."""
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines["left"].set_visible(False)
    plain(axes, y=False)


def legend(figure: Figure, columns: int) -> None:
    """The legend of a figure, below it."""
    figure.legend(
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=10,
        handlelength=0.9,
        handleheight=0.9,
        columnspacing=1.0,
        handletextpad=0.4,
    )


def grid(n: int, height: float) -> tuple[Figure, list[Axes]]:
    """Small panels, two in a row, with common axes."""
    rows = -(-n // 2)
    figure = canvas(rows * height + 34)
    panels = figure.subplots(rows, min(n, 2), sharex=True, sharey=True, squeeze=False).ravel()
    for empty in panels[n:]:
        empty.set_axis_off()
    return figure, list(panels[:n])


def svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an element of the page; `name` keeps its ids apart from those of other figures."""
    stream = io.StringIO()
    with rc_context(STYLE):
        FigureCanvasSVG(figure)
        figure.savefig(stream, format="svg", metadata=NO_METADATA)
    return Markup(_embedded(stream.getvalue(), name, description))  # noqa: S704 - drawn here, texts escaped by the backend


def _embedded(text: str, name: str, description: str) -> str:
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="([^"]*)"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=").replace('type="text/css"', "")
    body = re.sub(r"<style *>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    body = FONT.sub(lambda m: f"font-size: {m['size']}{_weight(m['before'])}", body)
    for stand_in, variable in VARIABLES.items():
        body = body.replace(stand_in, variable)
    body = re.sub(r"\n\s*", "\n", body)
    label = escape(description, quote=True)
    assert box is not None  # noqa: S101 - the backend always writes one
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{label}">{body}'


def _weight(before: str) -> str:
    words = before.split()
    weight = next((w for w in words if w.isdigit() or w == "bold"), None)
    slant = "; font-style: italic" if "italic" in words else ""
    return (f"; font-weight: {weight}" if weight else "") + slant
