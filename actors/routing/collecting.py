"""Live experts to a pool: all are asked side by side, each in a step of its own.

    items -> what experts were trained on -> answers, a step per expert -> vectors of texts -> pool

An expert's step depends on its model and on the texts, so that another expert, price or way of judging asks
nobody again. Progress is in the files of blocks (`actors.routing.asking`).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.actor import ActorHandle

from actors.board import Board
from actors.budget import Budget, Spent, advice
from actors.engines.base import EngineError
from actors.expert import start_expert
from actors.replicas import ready_ones, warm_up
from actors.routing.asking import ANSWERED, FAILED, MAX_FAILED, Asked, ask_all, file_name, stored_cost
from actors.routing.assembling import EMBEDS
from actors.routing.fingerprint import fingerprint
from actors.routing.items import labelled
from actors.sources import local_files
from actors.steps.runner import Call, Done, StepError, Steps, StoppedError
from cluster.session import Session
from cluster.storage import Run, Step, file_digest
from configs.schema.base import identity
from configs.schema.expert import ExpertSpec, LiveExperts
from configs.schema.foe import FoeConfig
from configs.schema.plm import OpenaiEngine
from configs.schema.task import Source


def collect(config: FoeConfig, session: Session, run: Run, steps: Steps, board: Board) -> str:
    """Have live experts answer all items; the key of the committed step that holds the `Pool`.

    StepError when an expert cannot work, or fails on more than 5 % of the items; what was answered stays.
    """
    live = config.experts
    assert isinstance(live, LiveExperts)  # noqa: S101 - other experts are not asked
    board.enter("reading the items")
    items = steps.one(Call("items", "actors.routing.items:write", _items_params(config, live)))
    board.note(f"{items.facts['n']:,} items, labels: {', '.join(items.facts['classes']) or 'none'}")
    warnings = _trained_on(config, live, items, steps)
    board.enter("asking the experts")
    asking = Collection(config, live, items, session, run, steps, board)
    answers = asking.done()
    board.enter("putting the answers together")
    params: dict[str, Any] = {
        "items": items.key,
        "classes": items.facts["classes"],
        "warnings": warnings,
        "experts": [
            {"answers": answers[e.name].key, **identity(e.model_copy(update={"trained_on": None}))}
            for e in live.pool
        ],
        **{name: identity(getattr(config, name)) for name in ("answer", "features", "unit", "prices")},
    }
    if config.answer == "expert" or config.features.prompt:
        vectors = steps.one(Call("vectors", "actors.routing.assembling:embed", params, EMBEDS))
        params["vectors"] = vectors.key
    return steps.one(Call("pool", "actors.routing.assembling:pool", params)).key


def take_over(run: Run, other: Run) -> None:
    """Take over what experts have answered in another run, and vectors of texts: steps are named by the
    model and the texts, so that only the same model is not asked about the same texts again."""
    for step in other.names("steps"):
        if step.startswith("answers-"):
            run.adopt(other, f"steps/{step}")
    run.adopt(other, "vectors")


def _items_params(config: FoeConfig, live: LiveExperts) -> dict[str, Any]:
    return {
        "items": identity(live.items),
        "labels": list(live.labels),
        "labelled": labelled(config),
        "split": identity(config.split),
        "seed": config.seed,
        "block": live.block,
        "content": _content([live.items]),
    }


def _content(sources: Sequence[Source]) -> list[str]:
    return [file_digest(file) for source in sources for file in local_files(source) if file.is_file()]


def _files(expert: ExpertSpec) -> str | None:
    """Digest of the files of a model; None where there are none here."""
    if expert.model.kind == "classifier":
        return fingerprint(expert.model.model)
    engine = expert.model.engine
    return None if isinstance(engine, OpenaiEngine) else fingerprint(engine.model)


def _trained_on(config: FoeConfig, live: LiveExperts, items: Done, steps: Steps) -> list[str]:
    """Warnings about experts that were trained on items."""
    sources = {e.name: e.trained_on for e in live.pool if e.trained_on}
    if not sources:
        return []
    params = {
        "items": items.key,
        "sources": identity(sources),
        "in_sample": config.in_sample,
        "content": _content(list(sources.values())),
    }
    found = steps.one(Call("trained-on", "actors.routing.items:trained_on", params)).facts
    warnings: list[str] = found["warnings"]
    return warnings


class Collection:
    """The answers of all experts to all items."""

    def __init__(
        self,
        config: FoeConfig,
        live: LiveExperts,
        items: Done,
        session: Session,
        run: Run,
        steps: Steps,
        board: Board,
    ) -> None:
        self.config, self.seed, self.live, self.session = config, config.seed, live, session
        self.run, self.steps, self.board = run, steps, board
        self.items, self.n, self.labels = items.key, int(items.facts["n"]), tuple(items.facts["classes"])
        self.blocks = -(-self.n // live.block)
        self.work = {e.name: self._step(e, items.facts["texts"]) for e in live.pool}
        self.errors: dict[str, str] = {}

    def _step(self, expert: ExpertSpec, texts: str) -> Step:
        model = expert.model
        generates = model.kind == "generator"
        params = {
            "expert": expert.name,
            "model": identity(model),
            "files": _files(expert),
            "labels": [] if generates else list(self.labels),
            "seed": self.seed if generates else None,
            "texts": texts,
            "block": self.live.block,
        }
        if generates:
            del params["model"]["judge"]  # how answers are read, not what they are
        return self.run.step(f"answers-{expert.name}", params)

    def done(self) -> dict[str, Done]:
        """The committed steps of all experts; StepError when one has failed too often."""
        manifests = {name: step.manifest for name, step in self.work.items()}
        self.board.start_experts(dict.fromkeys(manifests, self.n))
        for name, manifest in manifests.items():
            if manifest:
                self.board.known_of(name, asked=self.n, failed=manifest["failed"])
        waiting = [expert for expert in self.live.pool if manifests[expert.name] is None]
        if waiting:
            manifests |= self._asked(waiting)
        if self.errors:
            raise StepError("; ".join(f"expert {name}: {why}" for name, why in self.errors.items()))
        return {name: Done(self.work[name].key, manifests[name] or {}) for name in manifests}

    def _asked(self, experts: Sequence[ExpertSpec]) -> dict[str, dict[str, Any] | None]:
        missing = {expert.name: self._missing(expert.name) for expert in experts}
        found: dict[str, dict[str, Any] | None] = {}
        needed = [expert for expert in experts if missing[expert.name]]
        replicas = asyncio.run(self._start(needed)) if needed else {}
        try:
            if needed:
                self.board.holds({e.name: (e, len(replicas[e.name])) for e in needed})
                self._ask(needed, replicas, missing)
        finally:
            self.board.holds({e.name: (e, 0) for e in needed})
            for replica in (r for of in replicas.values() for r in of):
                ray.kill(replica)
        for expert in experts:
            if expert.name not in self.errors:
                found[expert.name] = self._commit(expert.name)
        return found

    def _missing(self, name: str) -> list[int]:
        """Blocks without complete answers."""
        have = set(self.work[name].files.names(ANSWERED))
        missing = [number for number in range(self.blocks) if file_name(number) not in have]
        there = self.n - sum(self._size(number) for number in missing)
        self.board.known_of(name, asked=there)
        return missing

    def _size(self, number: int) -> int:
        return min(self.live.block, self.n - number * self.live.block)

    async def _start(self, experts: Sequence[ExpertSpec]) -> dict[str, list[ActorHandle]]:
        """Start experts side by side and wait for them; StepError for one that cannot work."""
        cpus = self.session.fit_cpus({e.name: e.num_cpus * e.replicas for e in experts})
        started = {
            e.name: start_expert(e, self.labels, self.seed, num_cpus=cpus[e.name] / e.replicas)
            for e in experts
        }
        waits = (ready_ones(started[e.name], e.start_timeout_s) for e in experts)
        _, *answers = await asyncio.gather(asyncio.to_thread(warm_up), *waits, return_exceptions=True)
        problems = {}
        for expert, answer in zip(experts, answers, strict=True):
            if isinstance(answer, EngineError):
                problems[expert.name] = str(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                started[expert.name], why = answer
                problems |= {} if started[expert.name] else {expert.name: why}
        if problems:
            for replica in (r for of in started.values() for r in of):
                ray.kill(replica)
            raise StepError("; ".join(f"expert {name}: {why}" for name, why in problems.items()))
        return started

    def _ask(
        self,
        experts: Sequence[ExpertSpec],
        replicas: Mapping[str, list[ActorHandle]],
        missing: Mapping[str, list[int]],
    ) -> None:
        asked = {e.name: self._asked_of(e, replicas[e.name]) for e in experts}
        others = [self._asked_of(e, ()) for e in self.live.pool if e.name not in asked]
        budget = Budget(self.config.max_cost, self.config.max_tokens)
        if budget.limited:
            budget = replace(budget, before=sum(map(stored_cost, others), Spent()))
        longest = max(len(missing[name]) for name in asked)
        turns = [
            (name, missing[name][place])
            for place in range(longest)
            for name in asked
            if place < len(missing[name])
        ]
        source = self.run.below(f"steps/{self.items}").uri
        over = ""
        for facts in ask_all(source, asked, turns, "answers", budget):
            name = str(facts["expert"])
            over = over or str(facts["over"])
            if facts["over"]:
                continue
            if facts["stored"]:
                self.board.answered_by(facts)
            else:
                self.errors[name] = f"given up: {facts['given_up']}"
            if self.steps.stopped():
                raise StoppedError
        if over:  # only now: what was under way is paid for, and stored
            raise StepError(advice(over))

    def _asked_of(self, expert: ExpertSpec, replicas: Sequence[ActorHandle]) -> Asked:
        price = self.config.prices.get(expert.name)
        if price is not None:
            expert = expert.model_copy(update={"price_per_call": price, "price_per_million_tokens": None})
        return Asked(expert, replicas, self.work[expert.name].files.uri, self.n)

    def _commit(self, name: str) -> dict[str, Any] | None:
        """Commit an expert's answers, unless too many failed."""
        step = self.work[name]
        have = set(step.files.names(ANSWERED))
        names = [file_name(number) for number in range(self.blocks)]
        files = [f"{ANSWERED if file in have else FAILED}/{file}" for file in names]
        errors, sums = [], {"prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0}
        for file in files:
            table = step.files.read_table(file, ["error", *sums])
            errors += table["error"].drop_null().to_pylist()
            for column in sums:
                sums[column] += sum(table[column].to_pylist())
        if len(errors) > MAX_FAILED * self.n:
            self.errors[name] = (
                f"{len(errors)} of {self.n} items failed, at most {MAX_FAILED:.0%} may; first: {errors[0]}"
            )
            return None
        facts = {"asked": self.n, "failed": len(errors), "reason": next(iter(errors), "")}
        return step.commit(files=files, **facts, **sums)
