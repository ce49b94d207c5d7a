"""Progress of a run: one live table on a terminal, plain lines otherwise, in notebooks too."""

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

PLAIN_S = 10.0


class Progress:
    """Shows what the coordinator says; use it as a context manager."""

    def __init__(self, uri: str, console: Console | None = None) -> None:
        self.console = console or _console()
        self.uri, self.seen, self.last = uri, 0, 0.0
        self.said: dict[str, list[str]] = {}
        self.started = time.monotonic()
        self.live = Live(console=self.console, transient=True) if self.console.is_terminal else None

    def __enter__(self) -> Self:
        self._line(f"run {self.uri}")
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def show(self, view: dict[str, Any]) -> None:
        """Show a view of the coordinator's board."""
        for event in view["events"]:
            self._line(event)
        self.seen += len(view["events"])
        if self.live:
            self.live.update(Group(_table(view), Text(f"{view['phase']} · {self._elapsed()}")))
        elif (
            view["experts"]
            and view["phase"] == "asking the experts"
            and time.monotonic() - self.last > PLAIN_S
        ):
            self.last = time.monotonic()
            for name, expert in view["experts"].items():
                if self.said.get(name) != _asked(expert):
                    self.said[name] = _asked(expert)
                    self._line(f"  {name}: " + ", ".join(_asked(expert)))
        elif view["plms"] and view["phase"].endswith("writing") and time.monotonic() - self.last > PLAIN_S:
            self.last = time.monotonic()
            for name, plm in view["plms"].items():
                if self.said.get(name) != _cells(plm):
                    self.said[name] = _cells(plm)
                    self._line(f"  {name}: " + ", ".join(_cells(plm)))

    def restarted(self) -> None:
        """Say that the coordinator died; its log starts anew."""
        self.seen = 0
        self._line("the coordinator died and was started again; the run goes on from its last committed step")

    def _elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        return f"{minutes}:{seconds:02d}"

    def _line(self, text: str) -> None:
        self.console.print(f"[{self._elapsed()}] {text}", markup=False)


def _console() -> Console:
    """Standard output; a notebook's says that it is a terminal, but takes nothing back."""
    plain = Console().is_jupyter
    terminal = False if plain else None
    return Console(highlight=False, soft_wrap=True, force_jupyter=False, force_terminal=terminal)


def _asked(expert: dict[str, Any]) -> list[str]:
    return [f"answered {expert['answered']} of {expert['asked']}", f"failed {expert['failed']}"]


def _table(view: dict[str, Any]) -> Table:
    if view["experts"]:
        table = Table("expert", "answered", "failed")
        for name, expert in view["experts"].items():
            table.add_row(name, f"{expert['answered']}/{expert['asked']}", str(expert["failed"]))
        return table
    if not view["plms"]:
        return Table(box=None)
    table = Table(title=f"Round {view['round']} of {view['rounds']}", title_justify="left")
    table.add_column("PLM")
    for name in ("kept", "asked", "rejected", "tokens/s", "ETA"):
        table.add_column(name, justify="right")
    for name, plm in view["plms"].items():
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(plm["rejected"].items()))
        table.add_row(
            name,
            f"{plm['kept']}/{plm['wanted']}",
            f"{plm['answered']}/{plm['asked']}",
            plm["dropped"] or reasons,
            f"{plm['tokens_per_second']:.0f}",
            _eta(plm["eta"]),
        )
    return table


def _cells(plm: dict[str, Any]) -> list[str]:
    rejected = sum(plm["rejected"].values())
    rate = [f"{plm['tokens_per_second']:.0f} tokens/s"] if plm["tokens_per_second"] else []
    return [
        f"kept {plm['kept']} of {plm['wanted']}",
        f"answered {plm['answered']} of {plm['asked']}",
        f"rejected {rejected}",
        *rate,
        f"ETA {_eta(plm['eta'])}",
    ]


def _eta(seconds: float | None) -> str:
    return "–" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
