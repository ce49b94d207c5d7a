"""Tables of many subsets in one array, of which those that were added stay and others may be forgotten."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusion.routing.neighbours import Ints, Singles
from fusion.routing.stored import Subset

FIRST = 16
"""Tables for which room is made at first."""


class Tables:
    """`data` (room, n, width) of float32, NaN where nothing is known yet.

    Tables that were added stay. Of the others as many as fit into `memory` bytes are kept (but always those
    in use); those that were begun first are forgotten first.
    """

    def __init__(self, n: int, width: int, memory: int) -> None:
        self.data: Singles = np.empty((FIRST, n, width), np.float32)
        self.limit = max(1, memory // max(1, 4 * n * width))
        self._added: dict[Subset, int] = {}
        self._kept: dict[Subset, int] = {}
        self._free: list[int] = []
        self._found: dict[tuple[Subset, ...], Ints] = {}

    def add(self, subset: Subset, table: Singles) -> None:
        """Take over a table (n, width) for good."""
        slot = self._kept.pop(subset, None)
        if subset not in self._added:
            self._added[subset] = self._slot() if slot is None else slot
        self.data[self._added[subset]] = table

    def added(self) -> dict[Subset, Singles]:
        """Those that were added, by subset."""
        return {subset: self.data[place] for subset, place in sorted(self._added.items())}

    def places(self, subsets: tuple[Subset, ...]) -> Ints:
        """Where the tables of subsets are in `data`, until some are forgotten."""
        if subsets not in self._found:
            self._found[subsets] = np.array([self._place(subset) for subset in subsets], np.intp)
        return self._found[subsets]

    def read(self, plans: Sequence[tuple[Subset, ...]], which: Ints, items: Ints) -> Singles:
        """What is known (p, w, width) at stored items (p,) under all w subsets of one of the plans each."""
        places = np.array([self.places(plan) for plan in plans])  # first: this may move the data
        return np.asarray(self.data[places[which], items[:, None]])

    def forget(self) -> None:
        """Forget tables beyond the limit."""
        if len(self._kept) > self.limit:
            self._found.clear()
            for subset in list(self._kept)[: -self.limit]:
                self._free.append(self._kept.pop(subset))

    def _place(self, subset: Subset) -> int:
        for known in (self._added, self._kept):
            if subset in known:
                return known[subset]
        slot = self._kept[subset] = self._slot()
        self.data[slot] = np.nan
        return slot

    def _slot(self) -> int:
        if self._free:
            return self._free.pop()
        used = len(self._added) + len(self._kept)
        if used == len(self.data):
            room = np.empty((max(FIRST, 2 * used), *self.data.shape[1:]), np.float32)
            room[:used] = self.data
            self.data = room
        return used

    def __getstate__(self) -> dict[str, Any]:
        """Only tables that were added."""
        added = list(self._added)
        data = self.data[[self._added[subset] for subset in added]]
        return {**self.__dict__, "data": data, "_added": added, "_kept": {}, "_free": [], "_found": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """With room for others."""
        self.__dict__.update(state, _added={s: place for place, s in enumerate(state["_added"])})
