"""What the page of a fusion of experts is made of, and how it is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BOUNDS = ("any_correct", "mean_single")
"""Nobody can have these: they know the right answer, or are no one method."""
VOTES = ("ensemble", "majority", "max_softmax", "weighted_vote")
RIVALS = ("frugalml", "cascade", "static_order", "random_order", "input_gate", "input_knn")
SINGLE, FUSER, FRUGAL = "single/", "foe_", "frugal_"
Method = Mapping[str, Any]


@dataclass(frozen=True)
class Facts:
    """Contents of the run directory; `report` is empty where there is none."""

    summary: Mapping[str, Any]
    report: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def labels(self) -> bool:
        """Whether a label is decided; otherwise, whose response is given."""
        return bool(self.summary["answer"] == "label")

    @property
    def measure(self) -> str:
        """What is measured of an answer."""
        return "accuracy" if self.labels else "mean quality"

    @property
    def unit(self) -> str:
        """What prices are counted in."""
        return str(self.summary["unit"])

    @property
    def methods(self) -> Mapping[str, Method]:
        """All methods by name."""
        found: Mapping[str, Method] = self.summary["methods"]
        return found

    @property
    def policy(self) -> str:
        """Name of the frugal policy that is the result."""
        return str(self.summary["policy"])

    @property
    def result(self) -> Method:
        """Scores of the policy at its rate."""
        return self.methods[self.policy]

    @property
    def rate(self) -> float:
        """The rate (lambda) of the result: the most accurate in rehearsals, cheapest of equals."""
        return float(self.result.get("lambda", 0.0))

    @property
    def names(self) -> list[str]:
        """Names of the experts."""
        if self.experts:
            return [expert["name"] for expert in self.experts]
        return [name.removeprefix(SINGLE) for name in self.methods if name.startswith(SINGLE)]

    @property
    def experts(self) -> list[Mapping[str, Any]]:
        """What is known of each expert."""
        return list(self.report.get("experts") or [])

    @property
    def single(self) -> Method | None:
        """Scores of the expert that was best on the items that are learnt from."""
        return self.methods.get("best_single")

    @property
    def single_name(self) -> str | None:
        """Its name."""
        return self.report.get("best_single")

    @property
    def whole(self) -> float:
        """The price of asking everyone."""
        return float(self.summary["largest_cost"])

    @property
    def judged(self) -> int:
        """Items that methods are judged on."""
        return int(self.summary["items"]["test"])

    @property
    def learnt(self) -> int:
        """Items that are learnt from."""
        return int(self.summary["items"]["fit"])

    @property
    def expected(self) -> list[Mapping[str, Any]]:
        """Points of the policy in rehearsals, by rate."""
        return list(self.summary.get("calibration") or [])

    @property
    def seen(self) -> list[Mapping[str, Any]]:
        """Points of the policy on the judged items, by rate."""
        return list(self.summary.get("frugal") or [])

    @property
    def fusers(self) -> list[str]:
        """Fusers of all outputs."""
        return [name for name in self.methods if name.startswith(FUSER)]

    @property
    def policies(self) -> list[str]:
        """Frugal policies, the result first."""
        others = [name for name in self.methods if name.startswith(FRUGAL) and name != self.policy]
        return [self.policy, *others]

    @property
    def rivals(self) -> list[str]:
        """What else chooses whom to ask."""
        return [name for name in RIVALS if name in self.methods]

    def points(self, name: str) -> list[tuple[float, float]]:
        """Different points (price, accuracy) of a method, by price."""
        method = self.methods[name]
        return sorted({(p["cost"], p["accuracy"]) for p in method.get("points") or [method]})

    def seen_at(self, rate: float) -> Mapping[str, Any] | None:
        """The point of the policy on the judged items at a rate."""
        return next((point for point in self.seen if point["lambda"] == rate), None)

    def front(self) -> list[tuple[float, float]]:
        """Points (price, accuracy) of all methods that no other beats, by price; bounds do not count."""
        every = sorted(
            {point for name in self.methods if name not in BOUNDS for point in self.points(name)},
            key=lambda point: (point[0], -point[1]),
        )
        found: list[tuple[float, float]] = []
        for point in every:
            if not found or point[1] > found[-1][1]:
                found.append(point)
        return found

    def on_front(self, name: str) -> bool:
        """Whether a method has a point on the front."""
        front = set(self.front())
        return name not in BOUNDS and any(point in front for point in self.points(name))
