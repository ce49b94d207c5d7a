"""One classifier alone, behind the interface of a policy: it is asked, and what it says is answered.

Nothing is stored, so that nothing is fused or compared; the loss that is expected is what the classifier's
own probabilities leave.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fusion.routing.frugal import ALL, TOLERANCE, UNAVAILABLE, Ask, Walks
from fusion.routing.neighbours import Floats, Ints


class AloneWalk:
    """As `frugal.Walk`, for a single expert."""

    def __init__(self, prices: Floats, allowed: NDArray[np.bool_], classes: int) -> None:
        self.prices, self.allowed = prices, allowed
        m = len(prices)
        self.outputs = np.full((m, classes), np.nan)
        self.reasons = np.full(m, ALL, "U11")
        self.done = False

    def wanted(self) -> dict[int, Ints]:
        """The requests about which the expert (0) is to be asked now."""
        rows = np.flatnonzero(np.isnan(self.outputs[:, 0]) & self.allowed[:, 0])
        return {0: rows} if len(rows) and not self.done else {}

    def tell(self, expert: int, rows: Ints, outputs: Floats) -> None:  # noqa: ARG002
        """What it says (len(rows), C) about requests."""
        self.outputs[rows] = outputs

    def lost(self, expert: int, rows: Ints) -> None:  # noqa: ARG002
        """It does not answer."""
        self.allowed[rows] = False
        self.reasons[rows] = UNAVAILABLE

    def stop(self, reason: str) -> None:
        """End with what is known."""
        self.reasons[np.isnan(self.outputs[:, 0]) & self.allowed[:, 0]] = reason
        self.done = True

    def step(self) -> None:
        """Go on: there is nobody else."""
        self.done = True

    def run(self, ask: Ask) -> list[Walks]:
        """Walk to the end."""
        for expert, rows in self.wanted().items():
            self.tell(expert, rows, ask(expert, rows))
        self.step()
        return self.result()

    def result(self) -> list[Walks]:
        """What was done."""
        heard = ~np.isnan(self.outputs[:, 0])
        scores = np.nan_to_num(self.outputs)
        column = np.where(heard, 0, -1)[:, None]
        return [
            Walks(
                order=column,
                current=np.where(heard, 1 - scores.max(axis=1), np.nan)[:, None],
                best=np.full((len(heard), 1), np.nan),
                reasons=self.reasons,
                spent=self.prices[:, 0] * (heard | ~self.allowed[:, 0]),
                scores=scores,
                answers=np.where(heard, scores.argmax(axis=1), -1),
                distance=np.zeros(len(heard)),
            )
        ]


class Alone:
    """The policy of a single classifier of `classes` labels, at a price per call."""

    def __init__(self, classes: int, price: float = 0.0) -> None:
        self.classes_, self.price = np.arange(classes), price
        self.starts_: dict[float, Sequence[int]] = {0.0: [0]}

    def begin(
        self,
        size: int,
        rate: float | None = None,  # noqa: ARG002
        *,
        allowed: ArrayLike | None = None,
        budget: float | None = None,
        min_experts: int | None = None,  # noqa: ARG002
        max_experts: int | None = None,  # noqa: ARG002
        paid: Sequence[int] = (),  # noqa: ARG002
    ) -> AloneWalk:
        """As `FrugalPolicy.begin`; ValueError where the expert may not be asked, or costs too much."""
        may = np.broadcast_to(np.ones(1, bool) if allowed is None else np.asarray(allowed, bool), (size, 1))
        if not may.all() or (budget is not None and self.price > budget + TOLERANCE):
            raise ValueError("no expert that may be asked costs as little as the budget")
        return AloneWalk(np.full((size, 1), self.price), may.copy(), len(self.classes_))

    def forward(self, size: int, rate: float, **rules: object) -> list[int]:  # noqa: ARG002
        """As `FrugalPolicy.forward`."""
        return [0]
