"""A router in this process: whom to ask about a request, one after another, and what to answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from actors.routing import artefact as artefacts
from actors.routing import fitting, inplace
from actors.routing.artefact import Artefact
from actors.routing.rehearsing import QUANTILES
from cluster.storage import Storage
from configs.schema.base import ConfigError
from configs.schema.foe import FoeConfig
from fusion.routing.frugal import Walks
from jobs.api.asked import Asked, Expert, Requests, live

BATCH = 512
"""Requests that are walked with at a time: a distance to each stored item is held of each."""
REASONS = {
    "gain": "no other expert is expected to save more than it costs",
    "budget": "no other expert can be paid",
    "all": "everyone has been asked",
    "limit": "as many as are allowed have been asked",
    "unavailable": "nobody else may be asked",
}


@dataclass(frozen=True)
class Explanation:
    """How an answer came about; `print` says it in words."""

    label: Any
    score: float
    """Share of the label in what the last fuser says."""
    cost: float
    unit: str
    steps: pd.DataFrame
    """A row per expert as asked: `expert`, `price`, `loss` that is expected after its answer, and `further`,
    the lowest that asking on promised, its price included."""
    reason: str
    unseen: bool | None
    """Whether the request is unlike anything stored; None where that is not known."""

    def __str__(self) -> str:
        lines = [
            f"asked {step['expert']} (price {step['price']:g}): expected loss {step['loss']:.3f}"
            + ("" if np.isnan(step["further"]) else f", at best {step['further']:.3f} by asking on")
            for step in self.steps.to_dict("records")
        ]
        end = f"stopped: {REASONS.get(self.reason, self.reason)}"
        strange = ["warning: the request is unlike anything stored"] if self.unseen else []
        said = f"answer {self.label} (score {self.score:.2f}) for {self.cost:g} {self.unit}"
        return "\n".join([*lines, end, said, *strange])


class Router:
    """Decides about requests, given what experts say, as the artefact of a run or of `fit` has learnt.

    Requests are the outputs of the experts by name (see `FusionOfExperts.fit`), or inputs with `experts=`,
    callables by name, which are asked only about what it pays to ask them; a router of live experts loads
    those by itself and is given texts. `rate` (lambda) is the loss that one unit of price must save,
    `max_cost` what a request may cost.

    >>> router = Router.load("runs/routed")
    >>> router.predict(images, experts={"small": small.predict_proba, "large": large.predict_proba})
    """

    def __init__(self, artefact: Artefact) -> None:
        self.artefact = artefact
        self.manifest: dict[str, Any] = artefact.manifest
        self.experts: list[str] = artefact.experts
        self.classes: list[str] = list(artefact.manifest["classes"])
        self.rate: float = artefact.manifest["rate"]
        """The most accurate one in rehearsals, which is taken unless a request names another."""

    @classmethod
    def fit(
        cls,
        requests: Requests,
        labels: ArrayLike,
        config: FoeConfig,
        experts: Mapping[str, Expert] | None = None,
    ) -> "Router":
        """Learn from what experts say about requests of these labels; see `FusionOfExperts.fit`."""
        truth = np.asarray(labels)
        asked = Asked(requests, experts)
        if truth.shape != (asked.size,):
            raise ConfigError(f"labels: {asked.size} requests need as many labels, not shape {truth.shape}")
        values, places = np.unique(truth, return_inverse=True)
        if len(values) < 2 or truth.dtype.kind not in "iuUSOb":
            raise ConfigError(
                f"labels: integers or names of two classes at least are needed, not {values[:3]}"
            )
        classes = [str(value) for value in values]
        blocks = {name: asked.block(name, classes) for name in asked.names}
        learnt = inplace.learn(inplace.pool_of(blocks, places, classes, config), config)
        learnt.manifest["numbers"] = truth.dtype.kind in "iu"
        return cls(learnt)

    @classmethod
    def load(cls, place: str | PathLike[str]) -> "Router":
        """Read a run or an artefact's folder; ArtefactError in one line."""
        from actors.router import opened  # brings Ray Serve along

        return cls(opened(fspath(place)))

    def save(self, folder: str | PathLike[str]) -> str:
        """Write an artefact that `load`, `jobs foe --inspect` and `jobs serve` read; returns its version."""
        files = Storage(fspath(folder))
        if files.names():
            raise ConfigError(f"{files.uri}: not empty; an artefact never changes, name another folder")
        return artefacts.write(self.artefact, files)

    def rate_for(self, *, cost: float | None = None, accuracy: float | None = None) -> float:
        """The rate that is most accurate within a mean cost, or the cheapest that is as accurate, by what was
        rehearsed; ArtefactError when there is none."""
        return self.artefact.rate_for(cost=cost, accuracy=accuracy)

    def curve(
        self,
        requests: Requests | None = None,
        labels: ArrayLike | None = None,
        experts: Mapping[str, Expert] | None = None,
    ) -> pd.DataFrame:
        """A row per rate: `lambda`, `accuracy`, mean `cost`, mean number of `experts`. Of labelled requests
        where they are given; else what was rehearsed on the items that were learnt from."""
        if requests is None or labels is None:
            return pd.DataFrame(self.manifest["calibration"])
        asked, policy = self._asked(requests, experts), self.artefact.policy
        blocks = {name: self._block(asked, name) for name in self.experts}
        names = [str(label) for label in np.asarray(labels).tolist()]
        strange = next((name for name in names if name not in self.classes), None)
        if strange is not None:
            raise ConfigError(f"labels: {strange} is none of {', '.join(self.classes)}")
        places = np.array([self.classes.index(name) for name in names])
        prices = {expert["name"]: expert["price"] for expert in self.manifest["experts"]}
        config = FoeConfig.model_validate({"job": "foe", "experts": {"kind": "recorded"}, "prices": prices})
        pool = inplace.pool_of(blocks, places, self.classes, config)
        rates = [point["lambda"] for point in self.manifest["calibration"]]
        walks = policy.sweep(np.concatenate(pool.blocks, axis=1), rates)  # type: ignore[union-attr]
        found = fitting.curve_of(policy, walks, pool, pool.rows("fit"), rates)
        return pd.DataFrame(found.points())

    def decide(
        self,
        requests: Requests,
        experts: Mapping[str, Expert] | None = None,
        *,
        rate: float | None = None,
        max_cost: float | None = None,
    ) -> pd.DataFrame:
        """A row per request: `label`, `cost`, `experts` in the order in which they were asked, `reason` for
        stopping, and whether it is `unseen`: unlike anything stored."""
        walks = self._walk(self._asked(requests, experts), rate, max_cost)
        asked = [[self.experts[e] for e in order if e >= 0] for order in walks.order.tolist()]
        return pd.DataFrame(
            {
                "label": self._labels(walks),
                "cost": walks.spent,
                "experts": asked,
                "reason": walks.reasons,
                "unseen": [self._unseen(walks, row) for row in range(len(asked))],
            }
        )

    def predict(
        self,
        requests: Requests,
        experts: Mapping[str, Expert] | None = None,
        *,
        rate: float | None = None,
        max_cost: float | None = None,
    ) -> NDArray[Any]:
        """Labels (m,)."""
        return self._labels(self._walk(self._asked(requests, experts), rate, max_cost))

    def explain(
        self,
        requests: Requests,
        experts: Mapping[str, Expert] | None = None,
        *,
        row: int = 0,
        rate: float | None = None,
        max_cost: float | None = None,
    ) -> Explanation:
        """How the answer to one of the requests comes about."""
        asked = self._asked(requests, experts)
        if not 0 <= row < asked.size:
            raise ConfigError(f"row: {row} is none of the {asked.size} requests")
        walk = self._walk(asked, rate, max_cost, np.array([row]))
        prices = {expert["name"]: expert["price"] for expert in self.manifest["experts"]}
        names = [self.experts[expert] for expert in walk.order[0] if expert >= 0]
        steps = {
            "expert": names,
            "price": [prices[name] for name in names],
            "loss": walk.current[0][: len(names)],
            "further": walk.best[0][: len(names)],
        }
        scores = walk.scores[0]
        return Explanation(
            self._labels(walk)[0],
            float(scores[walk.answers[0]] / scores.sum()),
            float(walk.spent[0]),
            self.manifest["unit"],
            pd.DataFrame(steps),
            str(walk.reasons[0]),
            self._unseen(walk, 0),
        )

    @cached_property
    def _live(self) -> dict[str, Expert]:
        return live(self.manifest["served"], self.classes, self.manifest["settings"]["seed"])

    def _asked(self, requests: Requests, experts: Mapping[str, Expert] | None) -> Asked:
        if self.manifest["answer"] == "expert":
            raise ConfigError("the router chooses among written responses: ask it by `jobs serve`")
        itself = experts is None and not isinstance(requests, Mapping) and bool(self._live)
        return Asked(requests, self._live if itself else experts)

    def _block(self, asked: Asked, name: str, rows: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
        found = asked.block(name, self.classes, rows)
        width = self.manifest["experts"][self.experts.index(name)]["width"]
        if found.shape[1] != width:
            raise ConfigError(f"expert {name}: says {found.shape[1]} numbers, {width} were learnt from")
        return found

    def _walk(
        self, asked: Asked, rate: float | None, max_cost: float | None, rows: NDArray[np.intp] | None = None
    ) -> Walks:
        """What is done about requests, a batch at a time; ConfigError where nobody can be paid."""
        rate = self.rate if rate is None else rate
        parts = []
        rows = np.arange(asked.size) if rows is None else rows
        for some in np.split(rows, range(BATCH, len(rows), BATCH)):
            try:
                walk = self.artefact.policy.begin(len(some), rate, budget=max_cost)
            except ValueError as error:
                raise ConfigError(f"max_cost: {error}") from None
            (done,) = walk.run(lambda e, at, some=some: self._block(asked, self.experts[e], some[at]))  # type: ignore[misc]
            parts.append(done)
        return Walks.joined(parts)

    def _labels(self, walks: Walks) -> NDArray[Any]:
        places = np.asarray(self.artefact.policy.classes_)[walks.answers]
        names = np.array(self.classes).take(places)
        return names.astype(np.int64) if self.manifest.get("numbers") else names

    def _unseen(self, walks: Walks, row: int) -> bool | None:
        asked = ",".join(map(str, sorted(expert for expert in walks.order[row].tolist() if expert >= 0)))
        usual = self.manifest["distances"].get(asked)
        return None if usual is None else bool(walks.distance[row] > usual[QUANTILES.index(0.95)])
