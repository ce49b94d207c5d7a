"""What fusions cost: seconds of training, what a thousand requests take, how long one waits, and size.

A model's time is measured once, for one STM whose requests come one at a time, as all STMs are of one
architecture. A fusion that asks several has them asked side by side, the frugal one after another.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from actors.merging.collecting import opened
from cluster.storage import Run
from configs.schema.compare import CompareConfig

TOGETHER = ("ensemble", "foe")
"""Fusions that ask all STMs at once."""
SEVERAL = (*TOGETHER, "frugal")
REQUESTS = 1000


def total(by_plm: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the samples cost that all fusions have in common: counts, tokens, seconds of engines, and money
    where prices are given."""
    names = ("asked", "kept", "prompt_tokens", "completion_tokens", "seconds")
    money = [one["cost"] for one in by_plm.values() if one["cost"] is not None]
    sums = {name: round(sum(one[name] for one in by_plm.values()), 2) for name in names}
    return {**sums, "cost": sum(money) if money else None}


class Ledger:
    """Costs of one run."""

    def __init__(self, run: Run, config: CompareConfig, clock: Mapping[str, float], stms: int) -> None:
        self.run, self.config, self.stms = run, config, stms
        self.clock = {name: float(clock[name]) for name in ("call", "full", "frugal")}

    @property
    def timing(self) -> dict[str, Any]:
        """What was measured, in milliseconds, and what a serving cost is counted in."""
        requests = self.config.requests
        unit = "seconds of one model" if requests.price_per_call is None else requests.unit or "price units"
        return {"latency_ms": self.clock, "unit": f"{unit} per {REQUESTS:,} requests"}

    def complete(
        self,
        judged: Mapping[str, Mapping[str, Any]],
        needs: Mapping[str, Iterable[str]],
        source: Mapping[str, Any],
    ) -> dict[str, dict[str, Any]]:
        """The fusions with their costs. `needs`: the steps that each takes; `source`: one of the STMs."""
        size = opened(self.run, source).bytes
        found = {}
        for name, one in judged.items():
            models = self.stms if name in SEVERAL else 1
            found[name] = {
                **one,
                "train_seconds": round(sum(map(self._seconds, dict.fromkeys(needs[name]))), 1),
                "serve_cost": self._serving(name, one["calls"]),
                "latency_ms": self._latency(name, one["calls"]),
                "models": models,
                "bytes": models * size,
            }
        return found

    def _seconds(self, key: str) -> float:
        return float(self.run.read_json(f"steps/{key}/manifest.json")["wall_seconds"])

    def _deciding(self, name: str) -> float:
        return {"foe": self.clock["full"], "frugal": self.clock["frugal"]}.get(name, 0.0)

    def _serving(self, name: str, calls: float) -> float:
        """Price of a thousand requests, or the seconds that models and decisions take for them."""
        price = self.config.requests.price_per_call
        if price is not None:
            return round(REQUESTS * calls * price, 6)
        return round(REQUESTS * (calls * self.clock["call"] + self._deciding(name)) / 1e3, 3)

    def _latency(self, name: str, calls: float) -> float:
        turns = 1.0 if name in TOGETHER else calls
        return round(turns * self.clock["call"] + self._deciding(name), 3)
