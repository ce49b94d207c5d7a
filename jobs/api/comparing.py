"""The comparison of the three ways from Python."""

from functools import cached_property
from typing import ClassVar

import pandas as pd

from actors.serving import single
from configs.schema.compare import CompareConfig
from jobs import compare
from jobs.api.base import Job, Result, Work
from jobs.api.classifier import Classifier
from jobs.api.router import Router


class Comparison(Result):
    """What a comparison left."""

    job = "compare"

    @cached_property
    def fusions(self) -> pd.DataFrame:
        """A row per fusion, the most accurate first: accuracy, interval, calls and costs."""
        rows = pd.DataFrame.from_dict(self.summary["fusions"], orient="index")
        return rows.sort_values("accuracy", ascending=False, kind="stable")

    @cached_property
    def winner(self) -> Classifier | Router:
        """What won, ready to be asked about texts."""
        return Classifier(self.path) if single.finished(self.run) else Router.load(self.path)

    def __str__(self) -> str:
        return f"{compare.result_table(self.summary)}\n\n{self.summary['recommendation']}"


class Compare(Job[CompareConfig, Comparison]):
    """The same models are fused through data, outputs and weights: which way wins, at which price?

    >>> result = Compare("configs/compare/demo.yaml", run="runs/compared").run()
    >>> print(result); result.winner.predict(["A clever, warm film."])
    """

    schema, result = CompareConfig, Comparison
    work: ClassVar[Work] = compare

    def plan(self) -> str:
        """What will be written, trained and fused."""
        return compare.describe(self.config)
