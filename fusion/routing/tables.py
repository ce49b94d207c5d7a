"""Tables of many subsets in one array, of which those that were added stay and others may be forgotten."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusion.routing.neighbours import Ints, Singles
from fusion.routing.stored import Subset

FIRST = 16
"""Tables for which room is made at first."""


class Tables:
    """`data` (room, n, width) of float32, NaN where nothing is known yet.

    Tables that were added stay. Of the others those used last are kept, as many as fit into `memory` bytes
    (but always those in use).
    """

    def __init__(self, n: int, width: int, memory: int) -> None:
        self.data: Singles = np.empty((FIRST, n, width), np.float32)
        self.limit = max(1, memory // max(1, 4 * n * width))
        self._added: dict[Subset, int] = {}
        self._kept: OrderedDict[Subset, int] = OrderedDict()
        self._free: list[int] = []

    def add(self, subset: Subset, table: Singles) -> None:
        """Take over a table (n, width) for good."""
        slot = self._kept.pop(subset, None)
        if subset not in self._added:
            self._added[subset] = self._slot() if slot is None else slot
        self.data[self._added[subset]] = table

    def added(self) -> dict[Subset, Singles]:
        """Those that were added, by subset."""
        return {subset: self.data[place] for subset, place in sorted(self._added.items())}

    def places(self, subsets: Sequence[Subset]) -> Ints:
        """Where the tables of subsets are in `data`, until the next call."""
        return np.array([self._place(subset) for subset in subsets], np.intp)

    def forget(self) -> None:
        """Forget tables beyond the limit, those unused longest first."""
        while len(self._kept) > self.limit:
            self._free.append(self._kept.popitem(last=False)[1])

    def _place(self, subset: Subset) -> int:
        if subset in self._added:
            return self._added[subset]
        if subset in self._kept:
            self._kept.move_to_end(subset)
            return self._kept[subset]
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
        return {**self.__dict__, "data": data, "_added": added, "_kept": None, "_free": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """With room for others."""
        self.__dict__.update(state, _added={s: place for place, s in enumerate(state["_added"])})
        self._kept = OrderedDict()
