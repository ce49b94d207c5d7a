"""Fusion of experts from Python: a router, learnt from arrays, or by a job whose experts Ray runs."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from numpy.typing import ArrayLike

from configs.schema.foe import FoeConfig
from jobs import foe
from jobs.api.asked import Expert, Requests
from jobs.api.base import Job, Result, Work
from jobs.api.router import Router
from jobs.foe_table import result_table


class Routed(Result):
    """What a run of a fusion of experts left."""

    job = "foe"

    @cached_property
    def router(self) -> Router:
        """What was learnt, ready to decide."""
        return Router.load(self.path)

    def __str__(self) -> str:
        return result_table(self.summary)


class FusionOfExperts(Job[FoeConfig, Routed]):
    """Learns whom of several experts to ask, one after another, at their prices, and what to answer.

    >>> foe = FusionOfExperts(prices={"small": 1, "large": 10}, policy__fusers=["knn"])
    >>> router = foe.fit({"small": p, "large": q}, labels)              # arrays: in this process
    >>> router = FusionOfExperts("configs/foe/digits.yaml").run().router  # a job, compared with its rivals
    """

    schema, result = FoeConfig, Routed
    work: ClassVar[Work] = foe

    def __init__(self, config: Any = None, **changes: Any) -> None:  # noqa: ANN401
        given = (
            {"experts": {"kind": "recorded"}, **(config or {})}
            if isinstance(config, Mapping | None)
            else config
        )
        super().__init__(given, **changes)

    def fit(
        self, requests: Requests, labels: ArrayLike, experts: Mapping[str, Expert] | None = None
    ) -> Router:
        """Learn from requests whose labels (n,) are known, in this process, without Ray.

        `requests` holds what each expert says, by name: probabilities (n, C) of the sorted labels, other
        numbers (n, d), or one label (n,) each. Or they are inputs, and `experts` callables by name that are
        asked about all of them. Prices, rates and fusers are those of the configuration, where `prices` is by
        expert, 1 each by default. ConfigError for what does not fit.
        """
        return Router.fit(requests, labels, self.config, experts)

    def plan(self) -> str:
        """Experts, items and policies."""
        return foe.describe(self.config)
