"""Decides about the texts of a request: asks experts as the policy chooses, and answers with what it heard.

All texts of a request go step by step together; at each step every expert that is wanted is called once with
all texts it is wanted for. An expert that fails leaves the candidates of those texts: it is never taken for
an output of zeros.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from actors.experts.base import Answer
from actors.routing.artefact import Artefact
from actors.routing.assembling import gists, price_of
from actors.serving.calls import Caller, CallError
from actors.serving.outputs import Embed, Labels, Outputs, Responses
from configs.schema.expert import ExpertSpec
from fusion.routing.averaging import AveragingWalk
from fusion.routing.frugal import Walk, Walks
from fusion.routing.neighbours import Floats, Ints

Mode = Literal["frugal", "full", "single"]
DEADLINE = "deadline"
P95 = 1
"""Which of the quantiles of usual distances is the limit."""


class RefusedError(Exception):
    """Nobody may be asked, or at this price; the message says which."""


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
    first_stage: int = 1
    until: float = math.inf
    """When it is to be answered, of `time.monotonic`."""
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
    """Number of the label, or of the expert whose response is given."""
    response: str | None
    """That response."""
    scores: Floats
    calls: tuple[Called, ...]
    reason: str
    cost: float
    distance: float
    usual: float | None
    """The distance that 95 % of stored items keep within; None where nothing is known of these experts."""

    @property
    def unseen(self) -> bool | None:
        """Whether the text is unlike anything stored; None where that is not known."""
        return None if self.usual is None else self.distance > self.usual


@dataclass
class Heard:
    """What was heard about one text."""

    calls: list[Called] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    cost: float = 0.0


@dataclass
class Decider:
    """An artefact with the experts that it knows, ready to decide."""

    artefact: Artefact
    specs: Sequence[ExpertSpec]
    callers: Sequence[Caller]
    embed: Embed | None = None
    limits: Mapping[str, Sequence[float]] = field(init=False)

    def __post_init__(self) -> None:
        self.limits = self.artefact.manifest["distances"]

    @property
    def chooses(self) -> bool:
        """Whether a response is chosen; otherwise, a label is decided."""
        return bool(self.artefact.manifest["answer"] == "expert")

    async def decide(self, texts: Sequence[str], knobs: Knobs) -> list[Decision]:
        """A decision for each text. RefusedError, or NobodyError when no expert has answered about some."""
        request = _Request(self, texts, knobs)
        await request.walk_on()
        if self.chooses:
            await asyncio.gather(*(request.respond(row) for row in range(len(texts))))
        return [request.decision(row) for row in range(len(texts))]

    async def tell(self, text: str, knobs: Knobs) -> AsyncIterator[str | Decision]:
        """The pieces of the response that is chosen, as they are written where that is possible, and then the
        decision. Errors as above; NobodyError also when a response breaks off."""
        request = _Request(self, [text], knobs)
        await request.walk_on()
        async for said in request.tell(0):
            yield said
        yield request.decision(0)

    def may(self, knobs: Knobs) -> list[bool]:
        """Which experts may be asked. RefusedError when nobody may."""
        found = [
            (not knobs.allow or caller.name in knobs.allow)
            and caller.name not in knobs.deny
            and caller.available
            for caller in self.callers
        ]
        if not any(found):
            raise RefusedError("no expert may be asked")
        return found

    def at_first(self, knobs: Knobs) -> list[int]:
        """Experts that are asked before anything is decided, side by side."""
        may = self.may(knobs)
        if knobs.mode == "full":
            return [expert for expert, can in enumerate(may) if can]
        if knobs.mode == "single" or knobs.first_stage == 1:
            return []
        most = min(knobs.first_stage, knobs.max_experts or knobs.first_stage)
        return list(self.artefact.policy.forward(most, knobs.rate, allowed=may, budget=knobs.max_cost))

    def begin(self, size: int, knobs: Knobs, asked: Sequence[int] = ()) -> Walk | AveragingWalk:
        """A walk for so many texts, about which some experts are asked already. RefusedError when nobody may
        be asked at this price."""
        least = {"frugal": knobs.min_experts, "full": len(self.callers), "single": 1}[knobs.mode]
        most = {"frugal": knobs.max_experts, "full": None, "single": 1}[knobs.mode]
        policy, may = self.artefact.policy, self.may(knobs)
        try:
            return policy.begin(
                size,
                knobs.rate,
                allowed=may,
                budget=knobs.max_cost,
                min_experts=least,
                max_experts=most,
                paid=asked,
            )
        except ValueError as error:
            raise RefusedError(str(error)) from None

    def outputs(self) -> Outputs:
        """What is heard about the texts of one request."""
        if not self.chooses:
            return Labels(self.specs, self.artefact.manifest["classes"])
        assert self.embed is not None  # noqa: S101 - a router that chooses has one
        return Responses(self.artefact, self.specs, self.embed)


class _Request:
    """The texts of one request on their way."""

    def __init__(self, decider: Decider, texts: Sequence[str], knobs: Knobs) -> None:
        self.decider, self.texts, self.knobs = decider, texts, knobs
        self.first = decider.at_first(knobs)
        self.walk, self.outputs = decider.begin(len(texts), knobs, self.first), decider.outputs()
        self.until = knobs.until
        self.heard = [Heard() for _ in texts]
        self.names = decider.artefact.experts

    async def walk_on(self) -> None:
        """Ask as the walk wants until it is done."""
        walk = self.walk
        await self._ask(dict.fromkeys(self.first, np.arange(len(self.texts))))
        while not walk.done:
            while wanted := walk.wanted():
                await self._ask(wanted)
            if walk.done:
                break
            if time.monotonic() > self.until:
                walk.stop(DEADLINE)
            else:
                walk.step()
        (self.found,) = walk.result()
        for row in np.flatnonzero(self.found.answers < 0).tolist():
            raise self._nobody(row)

    async def respond(self, row: int) -> None:
        """See to it that the best response that can be had is there: who fails makes room for the next."""
        heard = self.heard[row]
        for expert in self._by_worth(row):
            if expert not in heard.answers:
                await self._hear(expert, np.array([row]))
            if expert in heard.answers:
                self.found.answers[row] = expert
                return
        raise self._nobody(row)

    async def tell(self, row: int) -> AsyncIterator[str]:
        """The same, and what it says; one that breaks off makes room for the next if it has said nothing."""
        heard = self.heard[row]
        for expert in self._by_worth(row):
            said = ""
            if expert not in heard.answers:
                async for piece in self._told(expert, row):
                    said += piece
                    yield piece
            if expert in heard.answers:
                self.found.answers[row] = expert
                if rest := (self._response(row, expert) or "")[len(said) :]:
                    yield rest
                return
            if said:
                break
        raise self._nobody(row)

    async def _told(self, expert: int, row: int) -> AsyncIterator[str]:
        """What an expert says about a text while it says it."""
        started, answer = time.perf_counter(), Answer(error="it broke off")
        try:
            async for said in self.decider.callers[expert].told(self.texts[row], self.until):
                if isinstance(said, Answer):
                    answer = said
                else:
                    yield said
        except CallError as error:
            answer = Answer(error=str(error))
        self._note(row, expert, answer, 1e3 * (time.perf_counter() - started))

    def _by_worth(self, row: int) -> Iterator[int]:
        """Experts whose response may be given, the best first."""
        heard = self.heard[row]
        worth = self.found.scores[row].copy()
        prices = self.walk.prices[row, : len(worth)]
        unasked = np.array([expert not in heard.answers for expert in range(len(worth))])
        worth[unasked] -= self.knobs.rate * prices[unasked]
        left = np.inf if self.knobs.max_cost is None else self.knobs.max_cost - heard.cost
        worth[unasked & ~(self.walk.allowed[row, : len(worth)] & (prices <= left))] = -np.inf
        for expert in np.argsort(-worth, kind="stable").tolist():
            if worth[expert] == -np.inf:
                break
            yield expert

    def decision(self, row: int) -> Decision:
        """What came out for a text."""
        found, heard, k = self.found, self.heard[row], len(self.names)
        order = [self.names[expert] for expert in found.order[row] if 0 <= expert < k]
        seen = [e for e in found.order[row].tolist() if e >= 0]
        places = {self.names[e]: place for place, e in enumerate(seen) if e < k}
        last = len(order)
        calls = sorted(heard.calls, key=lambda c: order.index(c.expert) if c.expert in order else last)
        limits = self.decider.limits.get(",".join(map(str, sorted(seen))))
        scores, answer = found.scores[row], int(found.answers[row])
        shares = not self.decider.chooses and scores.sum() > 0
        return Decision(
            answer,
            self._response(row, answer) if self.decider.chooses else None,
            scores / scores.sum() if shares else scores,
            tuple(_judged(found, row, call, places.get(call.expert)) for call in calls),
            str(found.reasons[row]),
            heard.cost,
            float(found.distance[row]),
            None if limits is None else float(limits[P95]),
        )

    def _response(self, row: int, expert: int) -> str | None:
        """What an expert has said about a text; of a classifier, its label."""
        heard, classes = self.heard[row].answers[expert], self.decider.artefact.manifest["classes"]
        return heard.text or gists(self.decider.specs[expert], [heard], classes)[0]

    async def _ask(self, wanted: Mapping[int, Ints]) -> None:
        """Ask side by side, and tell the walk what is said, or that nothing is."""
        calls = [
            self._hear(expert, rows) if expert < len(self.names) else self._look(expert, rows)
            for expert, rows in wanted.items()
        ]
        if len(calls) == 1:  # spares the event loop a turn
            await calls[0]
        else:
            await asyncio.gather(*calls)

    async def _look(self, context: int, rows: Ints) -> None:
        """Look at texts themselves."""
        try:
            seen = await self.outputs.context([self.texts[row] for row in rows])
        except CallError:
            self.walk.lost(context, rows)
        else:
            self.walk.tell(context, rows, seen)

    async def _hear(self, expert: int, rows: Ints) -> None:
        """Ask an expert about texts."""
        texts, started = [self.texts[row] for row in rows], time.perf_counter()
        try:
            answers = await self.decider.callers[expert](texts, self.until)
            good = [place for place, answer in enumerate(answers) if answer.error is None]
            some = [answers[place] for place in good]
            seen = await self.outputs.of(expert, rows[good], [texts[g] for g in good], some) if good else None
        except CallError as error:
            answers, good, seen = [Answer(error=str(error))] * len(texts), [], None
        took = 1e3 * (time.perf_counter() - started)
        for row, answer in zip(rows.tolist(), answers, strict=True):
            self._note(row, expert, answer, took)
        if self.walk.done:
            return
        if seen is not None:
            self.walk.tell(expert, rows[good], seen)
        bad = np.delete(rows, good)
        if len(bad):
            self.walk.lost(expert, bad)

    def _note(self, row: int, expert: int, answer: Answer, took: float) -> None:
        heard, spec = self.heard[row], self.decider.specs[expert]
        tokens = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
        heard.calls.append(Called(self.names[expert], round(took, 3), answer.error, **tokens))
        usual = self.decider.artefact.manifest["experts"][expert]["price"]
        heard.cost += price_of(spec, answer) if spec.priced and answer.error is None else usual
        if answer.error is None:
            heard.answers[expert] = answer

    def _nobody(self, row: int) -> NobodyError:
        said = [f"{call.expert}: {call.error}" for call in self.heard[row].calls if call.error]
        closed = [f"{c.name}: its circuit is open" for c in self.decider.callers if not c.available]
        why = "; ".join(dict.fromkeys(said + closed)) or "nobody may be asked"
        return NobodyError(why, late=time.monotonic() >= self.until)


def _judged(found: Walks, row: int, call: Called, place: int | None) -> Called:
    if place is None:
        return call
    return replace(call, current=_number(found.current[row, place]), best=_number(found.best[row, place]))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
