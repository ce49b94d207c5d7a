"""What the page is made of: the contents of a run directory, and how they are read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RECORD_ID = re.compile(r"(?P<plm>.+)-r(?P<round>\d+)-l(?P<label>\d+)-\d+")
"""What the id of a record says about it."""
NOT_JUDGED = ("error", "exhausted", "surplus")
"""Statuses of requests whose text was never judged."""


@dataclass(frozen=True)
class Facts:
    """Contents of the run directory; `report` is empty while the run is not done."""

    summary: Mapping[str, Any]
    report: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def plms(self) -> list[str]:
        """Names of the PLMs, in the order of the configuration."""
        return list(self.summary["plms"])

    @property
    def replayed(self) -> list[str]:
        """PLMs whose texts were recorded elsewhere."""
        return [plm["name"] for plm in self.config["plms"] if plm["engine"]["kind"] == "recorded"]

    @property
    def labels(self) -> list[str]:
        """Names of the classes, by class id."""
        return [label["name"] for label in self.config["task"]["labels"]]

    @property
    def spans(self) -> bool:
        """Whether answers are found in contexts, where other tasks give texts a label."""
        return bool(self.config["task"].get("kind") == "span")

    @property
    def measure(self) -> str:
        """The measure that counts, as the summary calls it."""
        return "f1" if self.spans else "accuracy"

    @property
    def said(self) -> Mapping[str, str]:
        """What the page calls the measure, what was asked for, and what is trained."""
        if self.spans:
            return {"measure": "F1", "Measure": "F1", "asked": "answer", "model": "model"}
        return {"measure": "accuracy", "Measure": "Accuracy", "asked": "label", "model": "classifier"}

    @property
    def guess(self) -> float:
        """Confidence from which on a model seems to know a text."""
        return 0.25 if self.spans else 1 / len(self.labels)

    @property
    def final(self) -> Mapping[str, Any]:
        """Scores of the result; empty without evaluation data."""
        return self.summary.get("final") or {}

    @property
    def baselines(self) -> Mapping[str, Any]:
        """Scores of what the result is compared with."""
        return self.summary.get("baselines") or {}

    @property
    def rounds(self) -> list[Mapping[str, Any]]:
        """What each round did."""
        return list(self.summary.get("rounds") or [])

    @property
    def dropped(self) -> list[tuple[int, str, str]]:
        """Round, PLM and reason of every PLM that was dropped."""
        return [(r["round"], plm, why) for r in self.rounds for plm, why in (r.get("dropped") or {}).items()]

    @property
    def reasons(self) -> list[str]:
        """Why texts were not accepted, commonest first; those that say nothing about the text come last."""
        counts = self.summary["samples"].get("rejected") or {}
        return sorted(counts, key=lambda name: (name in NOT_JUDGED, -counts[name], name))

    def label(self, index: int) -> str:
        """Name of a class."""
        return self.labels[index] if 0 <= index < len(self.labels) else str(index)
