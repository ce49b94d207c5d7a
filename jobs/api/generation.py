"""FuseGen from Python: language models write a data set, and a classifier is trained on it."""

from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from configs.schema.fusegen import FusegenConfig
from jobs import fusegen, plan
from jobs.api.base import Job, Result, Work
from jobs.api.classifier import Classifier
from jobs.table import result_table

if TYPE_CHECKING:
    from datasets import Dataset


class Generated(Result):
    """What a run of FuseGen left."""

    job = "fusegen"

    @cached_property
    def dataset(self) -> "Dataset":
        """The samples that were kept: `text`, `label`, `label_name`, `weight`, `plm`, `round`, `id`, …"""
        from datasets import Dataset  # takes more than a second
        from datasets.table import InMemoryTable

        return Dataset(InMemoryTable(self.run.read_table("dataset/train.parquet")))

    @cached_property
    def classifier(self) -> Classifier:
        """The model that was trained on them."""
        return Classifier(self.path)

    def __str__(self) -> str:
        return result_table(self.summary)


class FuseGen(Job[FusegenConfig, Generated]):
    """Several language models write a labelled data set together; a small classifier is trained on it.

    >>> result = FuseGen("configs/fusegen/demo.yaml", run="runs/nb", samples__per_plm=100).run()
    >>> result.dataset.to_pandas(), result.summary["samples"], result.classifier.predict(["So dull."])
    """

    schema, result = FusegenConfig, Generated
    work: ClassVar[Work] = fusegen

    def plan(self) -> str:
        """Requests, tokens, money and machines that it takes."""
        return plan.describe(self.config)
