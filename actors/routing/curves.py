"""Curves: what a method was worth and cost, item by item, at each of its settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from cluster.storage import Storage

FILE = "curve.safetensors"
Floats = NDArray[np.float64]
DIGITS = 6


@dataclass(frozen=True)
class Curve:
    """`rates` (R,) or settings, and for each of m items what its answer is `worth` (R, m), its `cost` (R, m),
    how many `experts` were called (R, m), and the `answers` (R, m)."""

    rates: Floats
    worth: Floats
    cost: Floats
    experts: NDArray[np.int64]
    answers: NDArray[np.int64]

    @classmethod
    def single(cls, worth: Floats, cost: Floats, experts: NDArray[Any], answers: NDArray[Any]) -> "Curve":
        """A method with one setting; arrays (m,)."""
        return cls(np.zeros(1), worth[None], cost[None], experts[None], answers[None])

    @classmethod
    def joined(cls, curves: "Sequence[Curve]") -> "Curve":
        """One curve over the items of several, at the same settings."""
        names = ("worth", "cost", "experts", "answers")
        parts = (np.concatenate([getattr(curve, name) for curve in curves], axis=1) for name in names)
        return cls(curves[0].rates, *parts)

    def points(self) -> list[dict[str, float]]:
        """Means over the items, by rate: lambda, accuracy, cost, experts."""
        return [
            {
                "lambda": float(rate),
                "accuracy": round(float(worth.mean()), DIGITS),
                "cost": round(float(cost.mean()), DIGITS),
                "experts": round(float(experts.mean()), DIGITS),
            }
            for rate, worth, cost, experts in zip(
                self.rates, self.worth, self.cost, self.experts, strict=True
            )
        ]

    def write(self, files: Storage) -> dict[str, Any]:
        """Publish it and return its points as facts."""
        arrays = {
            "rates": self.rates,
            "worth": self.worth.astype(np.float32),
            "cost": self.cost.astype(np.float32),
            "experts": self.experts.astype(np.int16),
            "answers": self.answers.astype(np.int16),
        }
        files.write_bytes(FILE, save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))
        return {"points": self.points()}

    @classmethod
    def read(cls, files: Storage) -> "Curve":
        """Read what `write` wrote."""
        arrays = load(files.read_bytes(FILE))
        return cls(
            arrays["rates"],
            arrays["worth"].astype(np.float64),
            arrays["cost"].astype(np.float64),
            arrays["experts"].astype(np.int64),
            arrays["answers"].astype(np.int64),
        )
