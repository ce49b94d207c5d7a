"""One round of writing: waves of requests to all PLMs, until each has its samples or its attempts are used.

A wave asks all PLMs at the same time, waits for them, and filters what they wrote against everything that was
accepted before; the yield seen sets the size of the next wave. All of it is in committed steps, so that a
round that was cut off goes on inside a wave, block by block.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from actors.board import Board
from actors.dispatch import ANSWERED, LOST, ask_all
from actors.engines.base import EngineError
from actors.failover import ExpertError
from actors.plm import start_plm, wait_ready
from actors.steps.runner import Call, StepError, Steps, StoppedError
from cluster.session import Session
from configs.schema.base import identity
from configs.schema.fusegen import FusegenConfig
from configs.schema.plm import PlmSpec
from fusion.generation.schedule import label_quotas

MAX_WAVES = 6
LOWEST_YIELD = 0.05


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
    """What one round did, for the summary."""

    number: int
    kept: dict[str, int]
    asked: dict[str, int]
    rejected: dict[str, dict[str, int]]
    dropped: dict[str, str]
    prompt_tokens: dict[str, int]
    completion_tokens: dict[str, int]
    seconds: dict[str, float]


class Writers:
    """The PLM actors of a run, started when the first text is needed and kept warm over all rounds."""

    def __init__(self, config: FusegenConfig, session: Session) -> None:
        self.config = config
        self.cpus = session.fit_cpus({plm.name: plm.num_cpus * plm.replicas for plm in config.plms})
        self.replicas: dict[str, list[ActorHandle]] = {}
        self.failed: dict[str, str] = {}

    def start(self) -> None:
        """Start all PLMs and wait until each is ready or has failed; StepError for one that cannot work."""
        if self.replicas:
            return
        for plm in self.config.plms:
            self.replicas[plm.name] = start_plm(
                plm, self.config.task.label_names, self.config.seed, num_cpus=self.cpus[plm.name] / plm.replicas
            )
        asyncio.run(self._all_ready())

    async def _all_ready(self) -> None:
        waits = [self._ready(plm) for plm in self.config.plms]
        await asyncio.gather(*waits)

    async def _ready(self, plm: PlmSpec) -> None:
        try:
            await asyncio.gather(*(wait_ready(replica, plm) for replica in self.replicas[plm.name]))
        except EngineError as error:
            raise StepError(f"plm {plm.name}: {error}") from error
        except (ExpertError, RayError) as error:
            self.failed[plm.name] = f"did not start: {' '.join(str(error).split())[:200]}"

    def usable(self) -> dict[str, tuple[PlmSpec, Sequence[ActorHandle]]]:
        """PLMs that started, with their replicas."""
        return {p.name: (p, self.replicas[p.name]) for p in self.config.plms if p.name not in self.failed}

    def stop(self) -> None:
        """End the actors and free what they hold."""
        for replica in (r for replicas in self.replicas.values() for r in replicas):
            ray.kill(replica)
        self.replicas = {}


class Writing:
    """Rounds of writing for one configuration."""

    def __init__(self, config: FusegenConfig, steps: Steps, writers: Writers, board: Board) -> None:
        self.config, self.steps, self.writers, self.board = config, steps, writers, board
        self.names = [plm.name for plm in config.plms]
        self.task = identity(config.task)

    def round(self, number: int, target: int, shots: str | None, chain: Chain) -> Round:
        """Add samples to `chain` until each PLM has `target`, as far as its attempts reach."""
        room = {plm: self._room(target, chain, plm) for plm in self.names}
        self.board.start_round(number, {plm: _total(left) for plm, left in room.items()})
        state = _State(room, {plm: [0] * chain.labels for plm in self.names})
        record = Round(number, *({} for _ in range(7)))
        for wave in range(MAX_WAVES):
            counts = {plm: n for plm in self.names if (n := self._counts(plm, state, record, number, shots, chain))}
            counts = {plm: n for plm, n in counts.items() if any(n)}
            if not counts:
                break
            self._wave(f"r{number}w{wave}", number, counts, shots, chain, state, record)
        if not any(map(sum, chain.kept.values())):
            reasons = "; ".join(f"{plm}: {why}" for plm, why in record.dropped.items()) or "all were rejected"
            raise StepError(f"round {number}: no PLM wrote an acceptable text ({reasons})")
        return record

    def _room(self, target: int, chain: Chain, plm: str) -> list[int] | int:
        kept = chain.of(chain.kept, plm)
        if self.config.samples.quota == "plm":
            return max(0, target - sum(kept))
        return [max(0, quota - have) for quota, have in zip(label_quotas(target, chain.labels), kept, strict=True)]

    def _counts(
        self, plm: str, state: "_State", record: Round, number: int, shots: str | None, chain: Chain
    ) -> list[int]:
        """How many requests of each label the next wave sends to a PLM."""
        if plm in record.dropped or not _total(state.room[plm]):
            return []
        needed = state.needed(plm, self.config.samples.oversample, self.config.samples.max_attempts)
        if not any(needed):
            return []
        recorded = next(p for p in self.config.plms if p.name == plm).engine.kind == "recorded"
        return self._available(plm, needed, state, number, shots, chain) if recorded else needed

    def _available(
        self, plm: str, needed: list[int], state: "_State", number: int, shots: str | None, chain: Chain
    ) -> list[int]:
        """What a replayed PLM can still give; all of a round when only the sum per PLM counts."""
        self.writers.start()
        if plm in self.writers.failed:
            return needed
        actor = self.writers.replicas[plm][0]
        left = ray.get(
            [
                actor.available.remote(
                    number, label, shots is None, chain.of(chain.asked, plm)[label], state.sent[plm][label]
                )
                for label in range(chain.labels)
            ]
        )
        if self.config.samples.quota == "plm":
            needed = [_total(state.room[plm])] * chain.labels
        return [min(need, have) if have is not None else need for need, have in zip(needed, left, strict=True)]

    def _wave(
        self,
        name: str,
        number: int,
        counts: dict[str, list[int]],
        shots: str | None,
        chain: Chain,
        state: "_State",
        record: Round,
    ) -> None:
        self.board.asked(counts)
        wave = self._generate(name, number, counts, shots, chain, state)
        facts = self._filter(name, wave, shots, chain, state)
        self.board.judged(facts)
        record.dropped.update(wave["dropped"])
        for plm, mine in facts.items():
            _add(chain.of(chain.asked, plm), counts[plm])
            _add(state.sent[plm], counts[plm])
            _add(chain.of(chain.kept, plm), mine["kept"])
            state.take(plm, mine["kept"])
            _record(record, plm, mine)

    def _generate(
        self,
        name: str,
        number: int,
        counts: dict[str, list[int]],
        shots: str | None,
        chain: Chain,
        state: "_State",
    ) -> dict[str, Any]:
        plms = [plm for plm in self.config.plms if plm.name in counts]
        params = {
            "seed": self.config.seed,
            "round": number,
            "task": self.task,
            "counts": counts,
            "index": {plm: list(state.sent[plm]) for plm in counts},
            "ordinal": {plm: list(chain.of(chain.asked, plm)) for plm in counts},
            "shots": shots,
            "batch_sizes": {plm.name: plm.batch_size for plm in plms},
            "self_debias": [plm.name for plm in plms if plm.sampling.self_debias],
            "plms": [identity(plm) for plm in plms],
        }
        table = self.steps.one(Call(f"{name}-requests", "actors.steps.requests:write_requests", params))
        step = self.steps.run.step(f"{name}-generate", {"requests": table.key})
        done = step.manifest
        if done is not None:
            return done
        self.writers.start()
        return self._ask(name, table.key, table.facts["blocks"], step, list(counts))

    def _ask(self, name: str, table: str, blocks: list[list[str]], step: Any, plms: list[str]) -> dict[str, Any]:  # noqa: ANN401
        """Have all blocks answered, those of an interrupted attempt excepted, and commit the wave."""
        have = set(step.files.names(ANSWERED))
        errors: dict[str, str] = {}
        missing = [i for i, (_, block) in enumerate(blocks) if f"{block}.parquet" not in have]
        source = self.steps.run.below(f"steps/{table}").uri
        for facts in ask_all(source, step.files.uri, missing, self._callable(plms), name) if missing else ():
            self.board.answered(facts)
            if facts["error"]:
                errors[facts["plm"]] = str(facts["error"])
            if self.steps.stopped():
                raise StoppedError
        have = set(step.files.names(ANSWERED))
        files = [f"{ANSWERED if f'{block}.parquet' in have else LOST}/{block}.parquet" for _, block in blocks]
        alive = {plm for plm, block in blocks if f"{block}.parquet" in have}
        dropped = {plm: errors.get(plm, "no block was answered") for plm in plms if plm not in alive}
        for plm, why in dropped.items():
            self.board.note(f"{plm} is dropped for this round: {why}")
        manifest: dict[str, Any] = step.commit(files=files, dropped=dropped)
        return manifest

    def _callable(self, plms: Sequence[str]) -> dict[str, tuple[PlmSpec, Sequence[ActorHandle] | str]]:
        """Specification and replicas of each PLM, or why it cannot be asked."""
        usable = self.writers.usable()
        return {
            plm.name: usable.get(plm.name, (plm, self.writers.failed.get(plm.name, "")))
            for plm in self.config.plms
            if plm.name in plms
        }

    def _filter(
        self, name: str, wave: Mapping[str, Any], shots: str | None, chain: Chain, state: "_State"
    ) -> dict[str, Any]:
        done = self.steps.one(
            Call(
                f"{name}-filter",
                "actors.steps.filtering:filter_wave",
                {
                    "wave": wave["key"],
                    "chain": list(chain.keys),
                    "task": self.task,
                    "rules": identity(self.config.filter),
                    "shots": shots,
                    "plms": [plm for plm in self.names if plm in state.room],
                    "room": state.room,
                },
            )
        )
        chain.keys.append(done.key)
        return {plm: facts for plm, facts in done.facts["plms"].items() if sum(facts["asked"])}


@dataclass
class _State:
    """What is left to write in a round."""

    room: dict[str, list[int] | int]
    """Samples still wanted, per label or in all."""
    sent: dict[str, list[int]]
    """Requests sent in this round, per label."""
    wanted: dict[str, list[int] | int] = field(init=False)
    got: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.wanted = {plm: list(left) if isinstance(left, list) else left for plm, left in self.room.items()}
        self.got = {plm: [0] * len(counts) for plm, counts in self.sent.items()}

    def take(self, plm: str, kept: list[int]) -> None:
        """Count accepted samples."""
        _add(self.got[plm], kept)
        room = self.room[plm]
        if isinstance(room, list):
            self.room[plm] = [left - n for left, n in zip(room, kept, strict=True)]
        else:
            self.room[plm] = room - sum(kept)

    def needed(self, plm: str, oversample: float, max_attempts: float) -> list[int]:
        """Requests per label that should fill the room at the yield seen, within the attempts allowed."""
        labels = range(len(self.sent[plm]))
        room, wanted = self.room[plm], self.wanted[plm]
        rooms = room if isinstance(room, list) else label_quotas(room, len(labels))
        limits = wanted if isinstance(wanted, list) else label_quotas(wanted, len(labels))
        return [
            max(
                0,
                min(
                    math.ceil(rooms[label] * self._factor(plm, label, oversample)),
                    math.ceil(limits[label] * max_attempts) - self.sent[plm][label],
                ),
            )
            for label in labels
        ]

    def _factor(self, plm: str, label: int, oversample: float) -> float:
        sent = self.sent[plm][label]
        return oversample / max(self.got[plm][label] / sent, LOWEST_YIELD) if sent else oversample


def _total(room: list[int] | int) -> int:
    return sum(room) if isinstance(room, list) else room


def _add(counts: list[int], more: Sequence[int]) -> None:
    counts[:] = [a + b for a, b in zip(counts, more, strict=True)]


def _record(record: Round, plm: str, facts: Mapping[str, Any]) -> None:
    record.kept[plm] = record.kept.get(plm, 0) + sum(facts["kept"])
    record.asked[plm] = record.asked.get(plm, 0) + sum(facts["asked"])
    reasons = record.rejected.setdefault(plm, {})
    for reason, count in facts["rejected"].items():
        reasons[reason] = reasons.get(reason, 0) + count
    for name in ("prompt_tokens", "completion_tokens", "seconds"):
        counts: dict[str, Any] = getattr(record, name)
        counts[plm] = counts.get(plm, 0) + facts[name]
