"""One round of writing: waves of requests to all PLMs, until each has its samples or its attempts are used.

A wave asks all PLMs at the same time, waits for them, and filters what they wrote against everything that was
accepted before; the yield seen sets the size of the next wave. All of it is in committed steps, so that a
round that was cut off goes on inside a wave, block by block.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ray
from ray.actor import ActorHandle

from actors.board import Board
from actors.budget import Budget, Spent, advice, spent
from actors.dispatch import ANSWERED, LOST, Replicas, ask_all
from actors.engines.base import EngineError
from actors.failover import call_with_failover
from actors.plm import start_plm
from actors.replicas import ready_ones, warm_up
from actors.steps.runner import Call, Done, StepError, Steps, StoppedError
from cluster.session import Session
from cluster.storage import Step
from configs.schema.base import identity
from configs.schema.fusegen import FusegenConfig
from configs.schema.plm import PlmSpec
from fusion.generation.schedule import quotas as quotas_of

MAX_WAVES = 6
LOWEST_YIELD = 0.05
AVAILABLE_S = 120.0


@dataclass
class Chain:
    """The accepted samples of one variant: filter steps in order, and counts per PLM and label."""

    labels: int
    keys: list[str] = field(default_factory=list)
    asked: dict[str, list[int]] = field(default_factory=dict)
    kept: dict[str, list[int]] = field(default_factory=dict)

    def of(self, counts: dict[str, list[int]], plm: str) -> list[int]:
        """Counts per label of a PLM."""
        return counts.setdefault(plm, [0] * self.labels)


@dataclass
class Round:
    """What one round did, by PLM, for the summary."""

    number: int
    kept: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, dict[str, int]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    prompt_tokens: dict[str, int] = field(default_factory=dict)
    completion_tokens: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def count(self, plm: str, facts: Mapping[str, Any]) -> None:
        """Add the facts of a wave."""
        self.kept[plm] = self.kept.get(plm, 0) + sum(facts["kept"])
        self.asked[plm] = self.asked.get(plm, 0) + sum(facts["asked"])
        reasons = self.rejected.setdefault(plm, {})
        for reason, count in facts["rejected"].items():
            reasons[reason] = reasons.get(reason, 0) + count
        self.prompt_tokens[plm] = self.prompt_tokens.get(plm, 0) + facts["prompt_tokens"]
        self.completion_tokens[plm] = self.completion_tokens.get(plm, 0) + facts["completion_tokens"]
        self.seconds[plm] = self.seconds.get(plm, 0.0) + facts["seconds"]


class Writers:
    """The PLM actors of a run, started when the first text is needed and kept warm over all rounds."""

    def __init__(self, config: FusegenConfig, session: Session) -> None:
        self.config = config
        self.cpus = session.fit_cpus({plm.name: plm.num_cpus * plm.replicas for plm in config.plms})
        self.replicas: dict[str, list[ActorHandle]] = {}
        self.failed: dict[str, str] = {}

    def new_round(self) -> None:
        """Give PLMs that did not start another chance."""
        self.failed = {}

    def start(self) -> None:
        """Start the PLMs that are not running and wait for them; StepError for one that cannot work.

        A PLM works with the replicas that are ready in time; without any it is out until the next round.
        """
        absent = [p for p in self.config.plms if p.name not in self.replicas and p.name not in self.failed]
        if absent:
            asyncio.run(self._start(absent))

    async def _start(self, plms: Sequence[PlmSpec]) -> None:
        labels, seed = self.config.task.label_names, self.config.seed
        started = [start_plm(p, labels, seed, num_cpus=self.cpus[p.name] / p.replicas) for p in plms]
        ready = (self._ready(plm, replicas) for plm, replicas in zip(plms, started, strict=True))
        await asyncio.gather(asyncio.to_thread(warm_up), *ready)

    async def _ready(self, plm: PlmSpec, replicas: list[ActorHandle]) -> None:
        try:
            ready, why = await ready_ones(replicas, plm.start_timeout_s)
        except EngineError as error:
            raise StepError(f"plm {plm.name}: {error}") from None
        if ready:
            self.replicas[plm.name] = ready
            self.failed.pop(plm.name, None)
        else:
            self.failed[plm.name] = why

    def callable(self) -> dict[str, tuple[PlmSpec, Replicas]]:
        """Every PLM with its replicas, or with why it has none."""
        return {p.name: (p, self.failed.get(p.name) or self.replicas[p.name]) for p in self.config.plms}

    def held(self) -> dict[str, tuple[PlmSpec, int]]:
        """Every PLM with the number of its processes."""
        return {plm.name: (plm, len(self.replicas.get(plm.name, ()))) for plm in self.config.plms}

    def stop(self) -> None:
        """End the actors and free what they hold."""
        for replica in (r for replicas in self.replicas.values() for r in replicas):
            ray.kill(replica)
        self.replicas = {}


class RoundOfWriting:
    """One round for one configuration: adds samples to `chain` until each PLM has `target` of them."""

    def __init__(
        self,
        config: FusegenConfig,
        tools: "Tools",
        chain: Chain,
        *,
        number: int,
        target: int,
        shots: str | None,
    ) -> None:
        self.config, self.tools, self.chain, self.number, self.shots = config, tools, chain, number, shots
        self.names = [plm.name for plm in config.plms]
        self.task = identity(config.task)
        self.needs = {plm: self._need(target, plm) for plm in self.names}
        self.record = Round(number)
        tools.writers.new_round()

    def run(self) -> Round:
        """Write in waves; StepError when no PLM has an acceptable text."""
        self.tools.board.start_round(self.number, {plm: need.left for plm, need in self.needs.items()})
        for wave in range(MAX_WAVES):
            counts = {plm: self._counts(plm) for plm in self.names if plm not in self.record.dropped}
            counts = {plm: per_label for plm, per_label in counts.items() if any(per_label)}
            if not counts:
                break
            self._wave(f"r{self.number}w{wave}", counts)
        if not any(map(sum, self.chain.kept.values())):
            reasons = "; ".join(f"{plm}: {why}" for plm, why in self.record.dropped.items())
            raise StepError(
                f"round {self.number}: no PLM wrote an acceptable text ({reasons or 'all were rejected'})"
            )
        return self.record

    def _need(self, target: int, plm: str) -> "Need":
        kept = self.chain.of(self.chain.kept, plm)
        if self.config.samples.quota == "plm":
            left = max(0, target - sum(kept))
            return Need(self._quotas(left, plm), left, by_label=False)
        quotas = self._quotas(target, plm)
        rooms = [max(0, quota - have) for quota, have in zip(quotas, kept, strict=True)]
        return Need(rooms, sum(rooms), by_label=True)

    def _quotas(self, count: int, plm: str) -> list[int]:
        """Samples per label; PLMs take turns in which label gets the odd one."""
        return quotas_of(count, self.chain.labels, self.names.index(plm))

    def _counts(self, plm: str) -> list[int]:
        """How many requests of each label the next wave sends to a PLM."""
        need, samples = self.needs[plm], self.config.samples
        engine = next(p for p in self.config.plms if p.name == plm).engine
        if engine.kind != "recorded":
            return need.requests(samples.oversample, samples.max_attempts)
        counts = need.requests(1.0, samples.max_attempts)
        if engine.mode == "exact" and self.shots and not need.by_label:
            counts = [need.left] * self.chain.labels
        return self._available(plm, counts) if any(counts) else counts

    def _available(self, plm: str, counts: list[int]) -> list[int]:
        """Of `counts` requests per label, those that a replayed PLM can still answer."""
        asked, sent = list(self.chain.of(self.chain.asked, plm)), list(self.needs[plm].sent)
        spec = identity(next(p for p in self.config.plms if p.name == plm))
        question = {
            "plm": spec,
            "seed": self.config.seed,
            "round": self.number,
            "zero_shot": self.shots is None,
        }
        step = self.tools.steps.run.step("available", {**question, "ordinals": asked, "indices": sent})
        done = step.manifest
        if done is None:
            self.tools.writers.start()
            if plm in self.tools.writers.failed:
                return counts
            done = step.commit(requests=asyncio.run(self._ask_available(plm, asked, sent)))
        have = done["requests"]
        return [n if there is None else min(n, there) for n, there in zip(counts, have, strict=True)]

    async def _ask_available(self, plm: str, asked: list[int], sent: list[int]) -> list[int | None]:
        actor = self.tools.writers.replicas[plm][0]
        return [
            await call_with_failover(
                partial(actor.available.remote, self.number, label, self.shots is None, ordinal, index),
                deadline_s=AVAILABLE_S,
            )
            for label, (ordinal, index) in enumerate(zip(asked, sent, strict=True))
        ]

    def _wave(self, name: str, counts: dict[str, list[int]]) -> None:
        self.tools.board.asked(counts)
        wave = self._generate(name, counts)
        self.record.dropped.update(wave["dropped"])
        facts = self._filter(name, wave["key"])
        self.tools.board.judged(facts)
        self.tools.paid[wave["key"]] = self._paid(facts)
        for plm, mine in facts.items():
            _add(self.chain.of(self.chain.asked, plm), mine["asked"])
            _add(self.chain.of(self.chain.kept, plm), mine["kept"])
            self.needs[plm].count(mine["asked"], mine["kept"])
            self.record.count(plm, mine)

    def _paid(self, facts: Mapping[str, Mapping[str, Any]]) -> Spent:
        """What a wave has cost."""
        prices = {plm.name: plm.price_per_million_tokens for plm in self.config.plms}
        each = (spent(prices[p], of["prompt_tokens"], of["completion_tokens"]) for p, of in facts.items())
        return sum(each, Spent())

    def _generate(self, name: str, counts: dict[str, list[int]]) -> dict[str, Any]:
        """The manifest of the wave's answers."""
        plms = [plm for plm in self.config.plms if plm.name in counts]
        params = {
            "seed": self.config.seed,
            "round": self.number,
            "task": self.task,
            "counts": counts,
            "index": {plm: list(self.needs[plm].sent) for plm in counts},
            "ordinal": {plm: list(self.chain.of(self.chain.asked, plm)) for plm in counts},
            "shots": self.shots,
            "batch_sizes": {plm.name: plm.batch_size for plm in plms},
            "self_debias": [plm.name for plm in plms if plm.sampling.self_debias],
            "plms": [identity(plm) for plm in plms],
        }
        steps = self.tools.steps
        table = steps.one(Call(f"{name}-requests", "actors.steps.requests:write_requests", params))
        step = steps.run.step(f"{name}-generate", {"requests": table.key})
        return step.manifest or self._ask(table, step)

    def _ask(self, table: Done, step: Step) -> dict[str, Any]:
        """Have all blocks answered, those of an interrupted attempt excepted, and commit the wave."""
        steps, board = self.tools.steps, self.tools.board
        self.tools.writers.start()
        board.holds(self.tools.writers.held())
        blocks = table.facts["blocks"]
        have = set(step.files.names(ANSWERED))
        missing = [i for i, (_, block) in enumerate(blocks) if f"{block}.parquet" not in have]
        errors: dict[str, str] = {}
        source = steps.run.below(f"steps/{table.key}").uri
        plms = {plm for plm, _ in blocks}
        callable_plms = {p: how for p, how in self.tools.writers.callable().items() if p in plms}
        budget, over = self.tools.budget(self.config), ""
        arguments = (source, step.files.uri, missing, callable_plms, step.key, budget)
        for facts in ask_all(*arguments) if missing else ():
            board.answered(facts)
            over = over or str(facts["over"])
            if facts["error"]:
                errors[str(facts["plm"])] = str(facts["error"])
            if steps.stopped():
                raise StoppedError
        if over:  # only now: what was under way is paid for, and stored
            raise StepError(advice(over))
        have = set(step.files.names(ANSWERED))
        files = [f"{ANSWERED if f'{block}.parquet' in have else LOST}/{block}.parquet" for _, block in blocks]
        alive = {plm for plm, block in blocks if f"{block}.parquet" in have}
        dropped = {plm: errors.get(plm, "no block was answered") for plm in sorted(plms - alive)}
        for plm, why in dropped.items():
            board.note(f"{plm} is dropped for this round: {why}")
        return step.commit(files=files, dropped=dropped)

    def _filter(self, name: str, wave: str) -> dict[str, Any]:
        """Judge a wave; facts of the PLMs that were asked."""
        params = {
            "wave": wave,
            "chain": list(self.chain.keys),
            "task": self.task,
            "rules": identity(self.config.filter),
            "shots": self.shots,
            "plms": self.names,
            "room": {plm: need.room for plm, need in self.needs.items()},
        }
        done = self.tools.steps.one(Call(f"{name}-filter", "actors.steps.filtering:filter_wave", params))
        self.chain.keys.append(done.key)
        return {plm: facts for plm, facts in done.facts["plms"].items() if sum(facts["asked"])}


@dataclass(frozen=True)
class Tools:
    """What rounds work with."""

    steps: Steps
    writers: Writers
    board: Board
    paid: dict[str, Spent]
    """What each wave of the run has cost, by the key of its step."""

    def budget(self, config: FusegenConfig) -> Budget:
        """The limits of a run, and what its waves have cost."""
        return Budget(config.max_cost, config.max_tokens, sum(self.paid.values(), Spent()))


class Need:
    """What one PLM still has to write in a round: per label, or only in all."""

    def __init__(self, rooms: list[int], left: int, *, by_label: bool) -> None:
        self.rooms, self.left, self.by_label = list(rooms), left, by_label
        self.limits = list(rooms)
        self.sent = [0] * len(rooms)
        self.got = [0] * len(rooms)

    @property
    def room(self) -> list[int] | int:
        """Samples still wanted: per label, or their sum."""
        return list(self.rooms) if self.by_label else self.left

    def count(self, asked: Sequence[int], kept: Sequence[int]) -> None:
        """Note the outcome of a wave."""
        _add(self.sent, asked)
        _add(self.got, kept)
        self.left -= sum(kept)
        if self.by_label:
            self.rooms = [room - n for room, n in zip(self.rooms, kept, strict=True)]
        else:
            self.rooms = quotas_of(max(0, self.left), len(self.rooms))

    def requests(self, oversample: float, max_attempts: float) -> list[int]:
        """Requests per label that should fill the room at the yield seen, within the attempts allowed."""
        counts = []
        for room, limit, sent, got in zip(self.rooms, self.limits, self.sent, self.got, strict=True):
            seen = max(got / sent, LOWEST_YIELD) if sent else 1.0
            allowed = math.ceil(limit * max_attempts) - sent
            counts.append(max(0, min(math.ceil(room * oversample / seen), allowed)))
        return counts


def _add(counts: list[int], more: Sequence[int]) -> None:
    counts[:] = [a + b for a, b in zip(counts, more, strict=True)]
