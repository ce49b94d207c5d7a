"""Claims of the papers, and which numbers of which runs speak for or against them."""

from typing import Any, Literal

from pydantic import Field

from configs.schema.base import Strict


class Measure(Strict):
    """One number of a run."""

    path: tuple[str, ...] = Field(min_length=1)
    """Keys that lead to it in `summary.json`. A key may be a pattern (`single/*`), or `$KEY` for what the
    summary names under KEY."""
    take: Literal["mean", "max", "min"] = "mean"
    """What is made of several."""
    at_cost: float | None = Field(default=None, ge=0)
    """Where the path leads to the points of a curve: the price at which its hull is read."""
    where: dict[str, Any] = Field(default_factory=dict)
    """Values that the run sets apart from its file, by dotted key."""


class Claim(Strict):
    """A sentence, and two numbers whose difference it is about."""

    claim: str
    """What is said."""
    data: str
    """On what it is tested."""
    configs: tuple[str, ...] = Field(min_length=1)
    """The configurations of the runs: files that ship. Runs of several are tested together."""
    measure: Measure
    """What ought to be higher."""
    against: Measure
    """What it is compared with: in the same run, or in that of the same configuration and seed."""
    better: Literal["higher", "lower"] = "higher"
    """Which way the difference ought to go."""
    margin: float = Field(default=0, ge=0)
    """What may be lost at most, where the claim is that little is."""
    remark: str = ""
    """What a reader should know."""


class Section(Strict):
    """Claims of one paper."""

    title: str
    """The method, and its paper."""
    claims: tuple[Claim, ...] = Field(min_length=1)
    """What it claims."""


class EvidenceConfig(Strict):
    """Which claims are held against which runs."""

    job: Literal["evidence"] = "evidence"
    """Which job this file is for."""
    title: str = "Evidence"
    """What the page is called."""
    sections: tuple[Section, ...] = Field(min_length=1)
    """The papers."""
