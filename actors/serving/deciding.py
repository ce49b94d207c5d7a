"""Decides about the texts of a request: asks experts as the policy chooses, and answers with what it heard.

All texts of a request go step by step together; at each step every expert that is wanted is called once with
all texts it is wanted for. An expert that fails leaves the candidates of those texts: it is never taken for
an output of zeros.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from actors.experts.base import Answer
from actors.routing.artefact import Artefact
from actors.routing.assembling import label_rows
from actors.serving.calls import Caller, CallError
from configs.schema.expert import ExpertSpec
from fusion.routing.frugal import Walk, Walks
from fusion.routing.neighbours import Floats, Ints

Mode = Literal["frugal", "full", "single"]
DEADLINE = "deadline"
P95 = 1
"""Which of the quantiles of usual distances is the limit."""


class NobodyError(Exception):
    """No expert has answered; the message says why of each, `late` whether the time was up."""

    def __init__(self, why: str, *, late: bool) -> None:
        super().__init__(why)
        self.late = late


@dataclass(frozen=True)
class Knobs:
    """What a request asks for."""

    rate: float
    max_cost: float | None = None
    max_experts: int | None = None
    min_experts: int | None = None
    deadline_s: float = 30.0
    allow: Sequence[str] = ()
    deny: Sequence[str] = ()
    mode: Mode = "frugal"


@dataclass(frozen=True)
class Called:
    """A call of an expert about one text."""

    expert: str
    latency_ms: float
    error: str | None = None
    current: float | None = None
    """Expected loss after its answer, as far as it was computed."""
    best: float | None = None
    """The lowest that asking further promised, its price included."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Decision:
    """What is answered about one text, and why."""

    answer: int
    """Number of the label; -1: none."""
    scores: Floats
    calls: tuple[Called, ...]
    reason: str
    cost: float
    distance: float
    unseen: bool | None
    """Whether the text is unlike anything stored; None where nothing is known of these experts."""


@dataclass
class Decider:
    """An artefact with the experts that it knows, ready to decide."""

    artefact: Artefact
    specs: Sequence[ExpertSpec]
    callers: Sequence[Caller]
    limits: Mapping[str, Sequence[float]] = field(init=False)

    def __post_init__(self) -> None:
        self.limits = self.artefact.manifest["distances"]

    async def decide(self, texts: Sequence[str], knobs: Knobs) -> list[Decision]:
        """A decision for each text. NobodyError when no expert has answered about some of them."""
        walk = self.begin(len(texts), knobs)
        until = time.monotonic() + knobs.deadline_s
        heard: list[list[Called]] = [[] for _ in texts]
        if knobs.mode == "full":
            await self._ask_all(walk, texts, until, heard)
        while not walk.done:
            while wanted := walk.wanted():
                await self._ask(walk, wanted, texts, until, heard)
            if walk.done:
                break
            if time.monotonic() > until:
                walk.stop(DEADLINE)
                break
            walk.step()
        (found,) = walk.result()
        if (found.answers < 0).any():
            row = int(np.flatnonzero(found.answers < 0)[0])
            said = [f"{call.expert}: {call.error}" for call in heard[row] if call.error]
            closed = [f"{c.name}: its circuit is open" for c in self.callers if not c.available]
            late = time.monotonic() >= until
            raise NobodyError("; ".join(said + closed) or "nobody may be asked", late=late)
        return [self._decision(found, row, heard[row]) for row in range(len(texts))]

    def begin(self, size: int, knobs: Knobs) -> Walk:
        """A walk for so many texts. ValueError when nobody may be asked at this price."""
        names = self.artefact.experts
        may = np.array(
            [
                (not knobs.allow or name in knobs.allow) and name not in knobs.deny and caller.available
                for name, caller in zip(names, self.callers, strict=True)
            ]
        )
        least = {"frugal": knobs.min_experts, "full": len(names), "single": 1}[knobs.mode]
        most = {"frugal": knobs.max_experts, "full": None, "single": 1}[knobs.mode]
        return self.artefact.policy.begin(
            size, knobs.rate, allowed=may, budget=knobs.max_cost, min_experts=least, max_experts=most
        )

    async def _ask_all(
        self, walk: Walk, texts: Sequence[str], until: float, heard: list[list[Called]]
    ) -> None:
        """Ask all at once about everything."""
        everything = np.arange(len(texts))
        may = np.flatnonzero(walk.allowed[0]).tolist()
        await self._ask(walk, dict.fromkeys(may, everything), texts, until, heard)

    async def _ask(
        self,
        walk: Walk,
        wanted: Mapping[int, Ints],
        texts: Sequence[str],
        until: float,
        heard: list[list[Called]],
    ) -> None:
        """Ask experts side by side, and tell the walk what they say, or that they do not."""
        calls = (self._call(expert, [texts[row] for row in rows], until) for expert, rows in wanted.items())
        for (expert, rows), (answers, took) in zip(wanted.items(), await asyncio.gather(*calls), strict=True):
            good = np.array([answer.error is None for answer in answers])
            if good.any():
                outputs = label_rows(self.specs[expert], answers, self.artefact.manifest["classes"])
                walk.tell(expert, rows[good], outputs[good])
            if not good.all():
                walk.lost(expert, rows[~good])
            name = self.artefact.experts[expert]
            for row, a in zip(rows.tolist(), answers, strict=True):
                tokens = {"prompt_tokens": a.prompt_tokens, "completion_tokens": a.completion_tokens}
                heard[row].append(Called(name, took, a.error, **tokens))

    async def _call(self, expert: int, texts: Sequence[str], until: float) -> tuple[list[Answer], float]:
        """The answers of an expert, and the time it took in milliseconds."""
        started = time.perf_counter()
        try:
            answers = await self.callers[expert](texts, until)
        except CallError as error:
            answers = [Answer(error=str(error))] * len(texts)
        return answers, 1e3 * (time.perf_counter() - started)

    def _decision(self, found: Walks, row: int, heard: Sequence[Called]) -> Decision:
        names = self.artefact.experts
        order = [names[expert] for expert in found.order[row] if expert >= 0]
        losses = {
            name: (_number(found.current[row, place]), _number(found.best[row, place]))
            for place, name in enumerate(order)
        }
        calls = sorted(heard, key=lambda call: order.index(call.expert) if call.expert in order else -1)
        distance = float(found.distance[row])
        subset = ",".join(str(e) for e in sorted(e for e in found.order[row].tolist() if e >= 0))
        limit = self.limits.get(subset)
        total = found.scores[row].sum()
        return Decision(
            int(found.answers[row]),
            found.scores[row] / total if total > 0 else found.scores[row],
            tuple(_judged(call, *losses.get(call.expert, (None, None))) for call in calls),
            str(found.reasons[row]),
            float(found.spent[row]),
            distance,
            None if limit is None else distance > limit[P95],
        )


def _judged(call: Called, current: float | None, best: float | None) -> Called:
    return replace(call, latency_ms=round(call.latency_ms, 3), current=current, best=best)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
