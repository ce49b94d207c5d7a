"""Classifiers that are all asked at once, and whose probabilities are averaged, behind the interface of a
policy: an ensemble, or one classifier alone.

Nothing is stored, so that nothing is learnt or compared; the loss that is expected is what the probabilities
themselves leave.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fusion.routing.frugal import ALL, TOLERANCE, UNAVAILABLE, Ask, Walks
from fusion.routing.neighbours import Floats, Ints


class AveragingWalk:
    """As `frugal.Walk`; `prices` and `allowed` are (m, K)."""

    def __init__(self, prices: Floats, allowed: NDArray[np.bool_], classes: int) -> None:
        self.prices, self.allowed = prices, allowed
        self.outputs = np.full((*prices.shape, classes), np.nan)
        self.gone = np.zeros(prices.shape, bool)
        self.reasons = np.full(len(prices), ALL, "U11")
        self.done = False

    @property
    def _heard(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.outputs[..., 0])

    def wanted(self) -> dict[int, Ints]:
        """By expert, the requests about which it is to be asked now."""
        if self.done:
            return {}
        waiting = self.allowed & ~self._heard & ~self.gone
        return {int(e): np.flatnonzero(waiting[:, e]) for e in np.flatnonzero(waiting.any(axis=0))}

    def tell(self, expert: int, rows: Ints, outputs: Floats) -> None:
        """What it says (len(rows), C) about requests."""
        self.outputs[rows, expert] = outputs

    def lost(self, expert: int, rows: Ints) -> None:
        """It does not answer."""
        self.gone[rows, expert] = True
        self.reasons[rows] = UNAVAILABLE

    def stop(self, reason: str) -> None:
        """End with what is known."""
        self.reasons[(self.allowed & ~self._heard & ~self.gone).any(axis=1)] = reason
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
        heard, said = self._heard, np.nan_to_num(self.outputs)
        means = said.cumsum(axis=1) / np.maximum(heard.cumsum(axis=1), 1)[..., None]
        order = np.argsort(~heard, axis=1, kind="stable")
        left = np.take_along_axis(1 - means.max(axis=2), order, axis=1)
        known = np.take_along_axis(heard, order, axis=1)
        scores = means[:, -1]
        return [
            Walks(
                order=np.where(known, order, -1),
                current=np.where(known, left, np.nan),
                best=np.full(heard.shape, np.nan),
                reasons=self.reasons,
                spent=(self.prices * (heard | self.gone)).sum(axis=1),
                scores=scores,
                answers=np.where(heard.any(axis=1), scores.argmax(axis=1), -1),
                distance=np.zeros(len(heard)),
            )
        ]


class Averaging:
    """The policy of K classifiers of `classes` labels, at a price per call each."""

    def __init__(self, classes: int, prices: Sequence[float] = (0.0,)) -> None:
        self.classes_, self.prices_ = np.arange(classes), np.asarray(prices, np.float64)
        self.starts_: dict[float, Sequence[int]] = {0.0: list(range(len(self.prices_)))}

    def begin(
        self,
        size: int,
        rate: float | None = None,  # noqa: ARG002
        *,
        allowed: ArrayLike | None = None,
        budget: float | None = None,
        min_experts: int | None = None,  # noqa: ARG002
        max_experts: int | None = None,
        paid: Sequence[int] = (),  # noqa: ARG002
    ) -> AveragingWalk:
        """As `FrugalPolicy.begin`; experts are taken in their order as far as budget and number allow.
        ValueError where none may be asked."""
        shape = (size, len(self.prices_))
        may = np.broadcast_to(
            np.ones(shape[1], bool) if allowed is None else np.asarray(allowed, bool), shape
        )
        if budget is not None:
            may = may & ((may * self.prices_).cumsum(axis=1) <= budget + TOLERANCE)
        if max_experts is not None:
            may = may & (may.cumsum(axis=1) <= max_experts)
        if not may.any(axis=1).all():
            raise ValueError("no expert that may be asked costs as little as the budget")
        return AveragingWalk(np.broadcast_to(self.prices_, shape), may.copy(), len(self.classes_))

    def forward(self, size: int, rate: float, **rules: object) -> list[int]:  # noqa: ARG002
        """As `FrugalPolicy.forward`."""
        return list(range(min(size, len(self.prices_))))
