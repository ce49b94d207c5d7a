"""The fusion-of-experts job from outputs to artefact, as the coordinator runs it.

pool (what experts returned) -> neighbours -> fusers, rivals, tables and models of subsets, side by side
-> policies -> judgement -> artefact and summary
"""

import time
from dataclasses import dataclass
from typing import Any

from actors.board import Board
from actors.routing import fitting, rehearsing, rivals
from actors.routing.assembling import EMBEDS
from actors.routing.collecting import collect
from actors.routing.pool import Pool
from actors.status import enter
from actors.steps.runner import Call, Done, Steps
from cluster.session import Session
from cluster.storage import Run
from configs.schema.base import identity
from configs.schema.expert import ExpertSpec, LiveExperts
from configs.schema.foe import FoeConfig, Fuser
from configs.schema.plm import OpenaiEngine, VllmEngine

FITTING = "actors.routing.fitting"
REHEARSING = "actors.routing.rehearsing"


@dataclass(frozen=True)
class Fused:
    """What fusing a pool left behind: the parameters that its steps share, and the keys of the steps."""

    params: dict[str, Any]
    judgement: Done
    methods: dict[str, str]
    rehearsals: dict[str, list[str]]
    """By policy."""
    parts: dict[str, list[str]]
    """What policies look up, by kind of fuser."""


class FoeJob:
    """Runs one configuration in one run directory."""

    def __init__(self, config: FoeConfig, session: Session, run: Run, steps: Steps, board: Board) -> None:
        self.config, self.session, self.run_store, self.steps, self.board = config, session, run, steps, board
        self.resources = {"num_cpus": config.num_cpus}
        self.known: dict[str, Any] = {"job": config.job, "name": config.name, "seed": config.seed}

    def stop(self) -> None:
        """Free what the job holds."""

    def run(self) -> dict[str, Any]:
        """Do everything that is not done yet and return the summary."""
        started = time.time()
        self._enter("collecting what the experts return")
        fused = self.fuse(self._collected())
        self._enter("writing the results")
        artefact = self.publish(fused, self._served())
        summary = self._summary(fused.judgement, artefact, time.time() - started)
        self.run_store.write_json(
            "report.json", self.run_store.read_json(f"steps/{fused.judgement.key}/judgement.json")
        )
        self.run_store.write_json("summary.json", summary)
        self.board.enter("done")
        return summary

    def fuse(self, key: str) -> Fused:
        """Train, rehearse and judge every method on the pool of a step."""
        pool = fitting.read_pool(self.run_store, key)
        self.known |= self._about(pool)
        self.board.note(f"{len(pool):,} items, {len(pool.about.experts)} experts")
        for warning in pool.about.warnings:
            self.board.note(f"warning: {warning}")
        self._enter("training fusers, rivals, and the tables and models of subsets")
        params = self._params(pool, key)
        kinds = self.config.policy_kinds(len(pool.about.experts))
        parts = {kind: self._parts(kind, pool, params) for kind in kinds}
        methods = self._methods(pool, params)
        unseen = self._call(
            "unseen", "actors.routing.unseen:unseen", params, unseen=identity(self.config.unseen)
        )
        rehearsals = {f"frugal_{kind}": self._rehearsals(kind, pool, params) for kind in kinds}
        groups = {**rehearsals, **parts, "methods": [*methods.values()], "unseen": [unseen]}
        flat = iter(self.steps.do([call for group in groups.values() for call in group]))
        done = {name: [next(flat).key for _ in group] for name, group in groups.items()}
        self._enter("walking over the items with every policy")
        walks = [
            self._call("policy", f"{FITTING}:policy", params, kind=kind, parts=done[kind]) for kind in kinds
        ]
        keys = dict(zip(methods, done["methods"], strict=True))
        keys |= {f"frugal_{kind}": one.key for kind, one in zip(kinds, self.steps.do(walks), strict=True)}
        self._enter("judging")
        practice = {name: done[name] for name in rehearsals}
        judged = {"pool": key, "methods": keys, "rehearsals": practice, "unseen": done["unseen"][0]}
        judged |= {"seed": self.config.seed, "experts": params["experts"]}
        judgement = self.steps.one(Call("judge", "actors.routing.judging:judge", judged))
        return Fused(params, judgement, keys, practice, {kind: done[kind] for kind in kinds})

    def publish(self, fused: Fused, served: dict[str, Any], **changes: Any) -> Done:  # noqa: ANN401
        """Write the artefact of the policy that is the result; `served`: how its experts are started."""
        publish = {**fused.params, "judgement": fused.judgement.key, "methods": fused.methods}
        publish |= {"rehearsals": fused.rehearsals, "name": self.config.name, "parts": fused.parts}
        publish |= {"features": identity(self.config.features), "served": served, **changes}
        return self.steps.one(Call("artefact", "actors.routing.artefact:publish", publish))

    def _enter(self, stage: str) -> None:
        enter(self.run_store, self.board, stage, self.known)

    def _call(self, step: str, function: str, params: dict[str, Any], /, **more: Any) -> Call:  # noqa: ANN401
        return Call(step, function, {**params, **more}, self.resources)

    def _collected(self) -> str:
        """The key of the step that holds the pool."""
        config = self.config
        if isinstance(config.experts, LiveExperts):
            return collect(config, self.session, self.run_store, self.steps, self.board)
        parts = (
            "seed",
            "answer",
            "prices",
            "unit",
            "cost_column",
            "own_domains",
            "in_sample",
            "split",
            "features",
        )
        params = {name: identity(getattr(config, name)) for name in ("experts", *parts)}
        return self.steps.one(Call("pool", "actors.routing.collected:pool", params, EMBEDS)).key

    def _params(self, pool: Pool, key: str) -> dict[str, Any]:
        """What all further steps depend on."""
        config = self.config
        shared = {"pool": key, "max_stored": config.split.max_stored, "seed": config.seed}

        def best() -> int:
            call = self._call("neighbours", f"{FITTING}:neighbours", shared)
            return int(self.steps.one(call).facts["neighbours"])

        settings = fitting.settled(config.policy, best, float(pool.expected_prices.max()))
        return {**shared, **settings, "experts": self._shortlist(pool, key, settings["rates"])}

    def _shortlist(self, pool: Pool, key: str, chosen: list[float]) -> list[int] | None:
        """The experts that policies know; None for all."""
        size = self.config.policy.shortlist
        if pool.about.answer == "label" or size is None or size >= len(pool.about.experts):
            return None
        params = {"pool": key, "size": size, "rates": chosen}
        facts = self.steps.one(self._call("shortlist", f"{FITTING}:shortlist", params)).facts
        self.board.note(f"policies choose among {', '.join(facts['names'])}")
        experts: list[int] = facts["experts"]
        return experts

    def _methods(self, pool: Pool, params: dict[str, Any]) -> dict[str, Call]:
        """Fusers of all outputs, and rivals, by name."""
        few = {name: params[name] for name in ("pool", "seed", "neighbours", "max_stored")}
        found = {
            f"foe_{kind}": self._call("fuser", f"{FITTING}:fuser", few, kind=kind)
            for kind in self.config.fuser_kinds()
        }
        names = rivals.names(
            pool.about.answer, inputs=pool.inputs is not None, experts=len(pool.about.experts)
        )
        few["rates"] = params["rates"]
        return found | {
            name: self._call("rival", "actors.routing.rivals:rival", few, name=name) for name in names
        }

    def _parts(self, kind: Fuser, pool: Pool, params: dict[str, Any]) -> list[Call]:
        """Steps that compute what a policy looks up: slices of tables, or models of subsets."""
        spec, experts = self.config.policy, len(pool.about.experts)
        if pool.about.answer == "expert":  # few subsets are visited: they are computed when they are
            return []
        subsets = [list(s) for s in fitting.eager_subsets(experts, spec.eager_depth, spec.eager_tables)]
        stored = len(fitting.stored_rows(pool, params["max_stored"], params["seed"]))
        if kind == "knn":
            return [
                self._call(
                    "tables",
                    f"{FITTING}:tables",
                    params,
                    subsets=subsets,
                    start=start,
                    stop=min(stored, start + fitting.SHARD),
                )
                for start in range(0, stored, fitting.SHARD)
            ]
        every = [list(s) for s in fitting.eager_subsets(experts, experts, 2**fitting.ALL_SUBSETS)]
        few = {name: value for name, value in params.items() if name != "rates"}
        return [
            self._call("subset", f"{FITTING}:subset", few, kind=kind, subset=subset)
            for subset in (every if experts <= fitting.ALL_SUBSETS else [])
        ]

    def _served(self) -> dict[str, Any]:
        """How live experts are started, by name: what a server must know of them."""
        live = self.config.experts
        experts = live.pool if isinstance(live, LiveExperts) else ()
        return {expert.name: self._as_served(expert) for expert in experts}

    def _as_served(self, expert: ExpertSpec) -> dict[str, Any]:
        fixed: dict[str, Any] = {"trained_on": None}
        if expert.name in self.config.prices:
            price = self.config.prices[expert.name]
            fixed |= {"price_per_call": price, "price_per_million_tokens": None}
        known: dict[str, Any] = identity(expert.model_copy(update=fixed))
        engine = expert.engine
        if isinstance(engine, OpenaiEngine | VllmEngine):  # where its key is, say, is no identity
            known["model"]["engine"] = engine.model_dump(mode="json")
        if isinstance(engine, VllmEngine):  # which takes its share of them
            known["num_gpus"] = expert.num_gpus
        return known

    def _rehearsals(self, kind: Fuser, pool: Pool, params: dict[str, Any]) -> list[Call]:
        """Steps that find out what a policy is worth on items that it has not seen."""
        stored = len(fitting.stored_rows(pool, params["max_stored"], params["seed"]))
        return [
            self._call("rehearsal", f"{REHEARSING}:rehearse", params, kind=kind, fold=fold)
            for fold in range(rehearsing.folds(stored))
        ]

    def _about(self, pool: Pool) -> dict[str, Any]:
        """What the summary says of the pool."""
        about = pool.about
        items = {part: len(pool.rows(part)) for part in ("fit", "test")}
        return {
            "answer": about.answer,
            "unit": about.unit,
            "items": {**items, "left_out": about.dropped},
            "warnings": list(about.warnings),
        }

    def _summary(self, judgement: Done, artefact: Done, seconds: float) -> dict[str, Any]:
        return {
            "status": "done",
            **self.known,
            "seconds": round(seconds, 1),
            **{k: v for k, v in judgement.facts.items() if k not in {"key", "wall_seconds"}},
            "artefact": artefact.facts["version"],
        }
