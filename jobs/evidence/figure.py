"""The figure: differences with their intervals, a row per claim."""

from collections.abc import Sequence

from matplotlib import rc_context

from jobs.evidence.testing import FAILS, HOLDS, Verdict
from jobs.report.drawing import INK, MUTED, STYLE, canvas, name_rows, numbers, series, svg
from jobs.report.words import signed

ROW = 22.0
FAR = 0.15
"""Differences beyond are told, not drawn."""
COLOURS = {HOLDS: series(2), FAILS: series(1)}
SCHEMES = {
    "--ink": "#24292f", "--muted": "#57606a", "--grid": "#d0d7de", "--paper": "#ffffff", "--quiet": "#8c959f",
    "--c1": "#d55e00", "--c2": "#009e73",
}  # fmt: skip
"""Colours where no page gives them; those of the page follow its scheme."""


def draw(verdicts: Sequence[Sequence[Verdict]]) -> str:
    """The figure as a file of its own."""
    tested = [
        (number, verdict)
        for number, verdict in enumerate((v for section in verdicts for v in section), 1)
        if verdict.tested and verdict.test is not None
    ]
    with rc_context(STYLE):
        figure = canvas(max(1, len(tested)) * ROW + 44)
        axes = figure.subplots()
        axes.axvline(0, color=MUTED, linewidth=1)
        for place, (_, verdict) in enumerate(tested):
            test, colour = verdict.test, COLOURS.get(verdict.word, MUTED)
            assert test is not None  # noqa: S101 - only tested ones are drawn
            low, at, high = (min(max(x, -FAR), FAR) for x in (test.low, test.difference, test.high))
            beyond = at != test.difference
            axes.plot([low, high], [place, place], color=colour, linewidth=2.4)
            axes.plot(at, place, (">" if at > 0 else "<") if beyond else "o", color=colour, markersize=6)
            if beyond:
                side = "right" if at > 0 else "left"
                axes.text(0.95 * at, place, signed(test.difference), ha=side, va="center", color=INK)
        axes.set_ylim(len(tested) - 0.5, -0.5)
        name_rows(axes, range(len(tested)), [str(number) for number, _ in tested])
        numbers(axes, "x", signed)
        axes.set_xlabel("difference in the direction of the claim, 95 % interval")
        axes.tick_params(axis="x", labelcolor=INK)
    drawn = str(svg(figure, "evidence", "Differences with their 95 % intervals, by the number of the claim"))
    colours = ";".join(f"{name}:{_themed(name, colour)}" for name, colour in SCHEMES.items())
    style = f"font-family:system-ui,sans-serif;{colours}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="evidence" style="{style}" '
    return drawn.replace("<svg ", head, 1) + ("" if drawn.endswith("\n") else "\n")


def _themed(name: str, colour: str) -> str:
    """A colour of the page that shows the figure, or this one."""
    page = {"--ink": "--md-default-fg-color", "--muted": "--md-default-fg-color--light"}
    return f"var({page[name]},{colour})" if name in page else colour
