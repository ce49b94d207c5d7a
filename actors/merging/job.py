"""The merging job, as the coordinator runs it.

texts -> a model per domain (or checkpoints that are there) -> statistics of each model, side by side (of a
model alone this is the end, and its Gram files are the result)
-> RegMean stage by stage, other methods in one pass -> test texts are answered -> judgement -> `model/`
"""

import time
from dataclasses import dataclass
from typing import Any

from actors.board import Board
from actors.merging.checking import check_rows, given
from actors.merging.checkpoints import Checkpoint
from actors.merging.collecting import files_of, opened
from actors.merging.errors import CheckpointError
from actors.merging.grams import read_manifest
from actors.merging.heads import How, heads_of, labels_of
from actors.merging.judging import BEST
from actors.merging.merging import GRAMS, MODEL, publish
from actors.merging.models import architecture_of
from actors.merging.solving import PLUS_PLUS
from actors.status import enter
from actors.steps.runner import Call, Done, StepError, Steps
from cluster.session import Session
from cluster.storage import Run
from configs.schema.base import identity
from configs.schema.merge import MergeConfig
from fusion.merging.architecture import check_alike
from fusion.merging.average import normalised


@dataclass(frozen=True)
class Fused:
    """What merging left behind: the step of each method's checkpoint, where the statistics are and what is
    said of them, and the keys of the stages that were solved, by method."""

    models: dict[str, Done]
    statistics: dict[str, Any]
    solved: dict[str, list[str]]


class MergeJob:
    """Runs one configuration in one run directory."""

    def __init__(self, config: MergeConfig, session: Session, run: Run, steps: Steps, board: Board) -> None:  # noqa: ARG002
        self.config, self.run_store, self.steps, self.board = config, run, steps, board
        self.resources = {"num_cpus": config.num_cpus, "num_gpus": config.num_gpus}
        self.known: dict[str, Any] = {"job": config.job, "name": config.name, "seed": config.seed}

    def stop(self) -> None:
        """Free what the job holds: nothing."""

    def run(self) -> dict[str, Any]:
        """Do everything that is not done yet and return the summary."""
        started = time.time()
        self._enter("reading texts")
        texts = self._texts()
        sources = self._sources(texts)
        if self.config.merges:
            fused = self.fuse(sources, texts)
            judged = self._judged(sources, fused.models, texts)
        else:
            fused, judged = Fused({}, self._collected(sources, texts), {}), {}
        merged, statistics = fused.models, fused.statistics
        self._enter("writing the results")
        if merged:
            publish(self.run_store, f"steps/{merged[self.config.result].key}/{MODEL}")
        else:
            publish(self.run_store, f"steps/{statistics['grams'][0]['step']}", GRAMS)
        summary = self._summary(sources, merged, judged, time.time() - started)
        tensors = (
            self.run_store.read_json(f"steps/{merged['regmean'].key}/tensors.json")
            if "regmean" in merged
            else {}
        )
        self.run_store.write_json("report.json", {"tensors": tensors, "statistics": statistics["facts"]})
        self.run_store.write_json("summary.json", summary)
        self.board.enter("done")
        return summary

    def fuse(self, sources: list[dict[str, Any]], texts: Done | None) -> Fused:
        """Merge models by every method. `sources`: name, domain, weight, and where they are (`step`, or
        `model` and `revision`); `texts` is the step that holds their domains' texts."""
        checkpoints = [opened(self.run_store, source) for source in sources]
        heads = heads_of(checkpoints, self._heads())
        check_alike({one.name: heads.comparable(one) for one in checkpoints})
        shared = self._shared(sources)
        statistics = self._collected(sources, texts)
        self._check_rows(checkpoints, statistics["grams"])
        self._enter("merging")
        models, solved = self._merged(checkpoints[0], shared, statistics)
        return Fused(models, statistics, solved)

    def _enter(self, stage: str) -> None:
        enter(self.run_store, self.board, stage, self.known)

    def _call(self, step: str, function: str, params: dict[str, Any]) -> Call:
        return Call(step, f"actors.merging.{function}", params, self.resources)

    def _texts(self) -> Done | None:
        data = self.config.texts
        if data is None:
            return None
        params = {"data": identity(data), "seed": self.config.seed}
        return self.steps.one(Call("texts", "actors.merging.texts:cut", params))

    def _sources(self, texts: Done | None) -> list[dict[str, Any]]:
        """The models: name, domain, share, and where they are."""
        if self.config.models:
            return [identity(model) for model in self.config.models]
        assert texts is not None  # noqa: S101 - the configuration has seen to it
        self._enter("fine-tuning a model for each domain")
        domains = texts.facts["domains"]
        calls = [
            self._call(
                "tune",
                "tuning:tune",
                {
                    "fine_tuning": identity(self.config.fine_tuning),
                    "texts": texts.facts["files"][domain],
                    "domain": domain,
                    "labels": texts.facts["labels"],
                    "seed": self.config.seed,
                },
            )
            for domain in domains
        ]
        found = self.steps.do(calls)
        return [
            {"name": domain, "domain": domain, "weight": 1.0, "step": one.key}
            for domain, one in zip(domains, found, strict=True)
        ]

    def _shared(self, sources: list[dict[str, Any]]) -> dict[str, Any]:
        """What all merging steps depend on."""
        config = self.config
        weights = [source["weight"] for source in sources]
        return {
            "sources": [_place(source) for source in sources],
            "coefficients": weights,
            "shares": normalised(weights, len(weights)),
            "exclude": list(config.exclude),
            "average": list(config.average),
            "heads": self._heads(),
            "dtype": config.dtype,
            "shard_bytes": config.shard_bytes,
            "name": config.name,
        }

    def _heads(self) -> How:
        """Models that the job fine-tunes have the labels of one file, whatever these are called."""
        tuned = self.config.fine_tuning is not None and self.config.heads == "names"
        return "positions" if tuned else self.config.heads

    def _collected(self, sources: list[dict[str, Any]], texts: Done | None) -> dict[str, Any]:
        self._enter("collecting statistics of every model")
        return self._statistics(sources, texts)

    def _statistics(self, sources: list[dict[str, Any]], texts: Done | None) -> dict[str, Any]:
        """Where the statistics of each model are, by kind, and what is said of them."""
        needed = {"grams": {"regmean"}, "fisher": {"fisher"}}
        calls: dict[tuple[str, int], Call] = {}
        for number, source in enumerate(sources):
            if source.get("grams") and "regmean" in self.config.methods:
                params = {"source": _place(source), "grams": source["grams"]}
                calls["check", number] = self._call("check-grams", "collecting:check_grams", params)
        for kind, methods in needed.items():
            for number, source in enumerate(sources):
                if not methods & set(self.config.methods) or source.get("grams"):
                    continue
                assert texts is not None  # noqa: S101 - the configuration has seen to it
                params = {
                    "source": _place(source),
                    "texts": texts.facts["files"][source["domain"]],
                    "domain": source["domain"],
                    "statistics": identity(self.config.statistics),
                }
                calls[kind, number] = self._call(f"collect-{kind}", f"collecting:collect_{kind}", params)
        done = dict(zip(calls, self.steps.do(list(calls.values())), strict=True))
        found: dict[str, Any] = {"grams": [], "fisher": [], "facts": {}}
        if texts is not None:
            found["texts"] = [texts.facts["files"].get(source.get("domain")) for source in sources]
        for number, source in enumerate(sources):
            if source.get("grams"):
                found["grams"].append({"grams": source["grams"]})
            elif ("grams", number) in done:
                one = done["grams", number]
                found["grams"].append({"step": one.key})
                found["facts"][source["name"]] = one.facts
                if one.facts["few"]:
                    few = len(one.facts["few"])
                    self.board.note(f"warning: {source['name']}: {few} Gram matrices rest on few rows")
            if ("fisher", number) in done:
                found["fisher"].append(done["fisher", number].key)
        return found

    def _check_rows(self, models: list[Checkpoint], places: list[dict[str, Any]]) -> None:
        """StepError if a Gram matrix rests on too few rows for some alpha."""
        kept = heads_of(models, self._heads()).kind == "own"
        for model, place in zip(models, places, strict=False):
            rows = read_manifest(files_of(self.run_store, place))["rows"]
            try:
                check_rows(self.config, given(model, keep_heads=kept), rows)
            except CheckpointError as error:
                raise StepError(str(error)) from None

    def _merged(
        self, first: Checkpoint, shared: dict[str, Any], statistics: dict[str, Any]
    ) -> tuple[dict[str, Done], dict[str, list[str]]]:
        """The step of each method that has written a checkpoint, and the steps that RegMean solved."""
        solvable = {
            **{k: shared[k] for k in ("sources", "coefficients", "exclude", "average", "heads")},
            "overrides": list(self.config.overrides.items()),
            "ridge": self.config.ridge,
        }
        stages = [n for n, stage in enumerate(architecture_of(first).stages) if stage.groups]
        solving: dict[tuple[str, int | None], Call] = {
            (name, n): self._call(
                "solve",
                "solving:solve",
                {**solvable, "grams": statistics["grams"], "stage": n, "alpha": alpha},
            )
            for name, alpha in self._alphas().items()
            for n in stages
        }
        if PLUS_PLUS in self.config.methods:
            calibration = {
                "texts": statistics["texts"],
                "statistics": identity(self.config.statistics),
                "method": PLUS_PLUS,
            }
            params = {**solvable, **calibration, "alpha": self.config.alpha}
            solving[PLUS_PLUS, None] = self._call("solve-pp", "solving:solve_pp", params)
        done = dict(zip(solving, self.steps.do(list(solving.values())), strict=True))
        solved: dict[str, list[str]] = {}
        for (name, _), one in done.items():
            solved.setdefault(name, []).append(one.key)
        calls = {}
        for name, keys in solved.items():
            alpha = self._alphas().get(name, self.config.alpha)
            method = {"method": PLUS_PLUS if name == PLUS_PLUS else "regmean"}
            params = {**shared, **method, "alpha": alpha, "stages": keys}
            calls[name] = self._call("assemble", "merging:assemble", params)
        for name in self.config.methods:
            if name not in calls:
                params = {**shared, **self._rival(name, statistics)}
                calls[name] = self._call("rival", "merging:rival", params)
        return dict(zip(calls, self.steps.do(list(calls.values())), strict=True)), solved

    def _alphas(self) -> dict[str, float | None]:
        """RegMean by name of its checkpoint; None is the family's default."""
        if "regmean" not in self.config.methods:
            return {}
        return {"regmean": self.config.alpha, **{f"regmean@{alpha:g}": alpha for alpha in self.config.alphas}}

    def _rival(self, method: str, statistics: dict[str, Any]) -> dict[str, Any]:
        """What a method depends on beside the models."""
        config, own = self.config, dict[str, Any]()
        if method == "fisher":
            own["fishers"] = statistics["fisher"]
        if method in {"task_arithmetic", "ties", "dare"}:
            base = config.base or (config.fine_tuning and config.fine_tuning.model)
            own["base"] = {"name": "base", "model": base or bundled()}
        settings = {"task_arithmetic": ("scale",), "ties": ("density",), "dare": ("drop", "seed")}
        own |= {name: getattr(config, name) for name in settings.get(method, ())}
        return {"method": method, **own}

    def _judged(
        self, sources: list[dict[str, Any]], merged: dict[str, Done], texts: Done | None
    ) -> dict[str, Any]:
        """What every model and method is worth on the test texts; nothing without texts of their domains."""
        if texts is None or any(source.get("domain") is None for source in sources):
            return {}
        models = [opened(self.run_store, source) for source in sources]
        known = {label for model in models for label in labels_of(model).values()}
        labels = [*texts.facts["labels"], *sorted(known - set(texts.facts["labels"]))]
        classifies = any("Classification" in name for name in models[0].config.get("architectures") or [])
        if not classifies or heads_of(models, self._heads()).kind == "own":
            self.board.note("nothing is judged: that needs classifiers that share labels")
            return {}
        if not known >= set(texts.facts["labels"]):
            strange = ", ".join(sorted(set(texts.facts["labels"]) - known)[:3])
            self.board.note(f"nothing is judged: no model has the labels of the texts ({strange})")
            return {}
        self._enter("answering the test texts")
        files = texts.facts["files"]
        shared = {"texts": files, "labels": labels, "max_length": self.config.statistics.max_length}
        places = {source["name"]: _place(source) for source in sources}
        places |= {name: {"name": name, "step": done.key} for name, done in merged.items()}
        calls = [
            self._call("answer", "judging:answer", {**shared, "source": place}) for place in places.values()
        ]
        answers = dict(zip(places, (one.key for one in self.steps.do(calls)), strict=True))
        params = {
            "answers": answers,
            "sources": [source["name"] for source in sources],
            "models": {source["domain"]: source["name"] for source in sources},
            "texts": files,
            "domains": texts.facts["domains"],
            "held_out": texts.facts["held_out"],
            "labels": labels,
            "result": self.config.result,
            "seed": self.config.seed,
        }
        facts: dict[str, Any] = self.steps.one(self._call("judge", "judging:judge", params)).facts
        return facts

    def _summary(
        self, sources: list[dict[str, Any]], merged: dict[str, Done], judged: dict[str, Any], seconds: float
    ) -> dict[str, Any]:
        regmean = merged["regmean"].facts if "regmean" in merged else {}
        ratios = {
            n: one.facts["objective_ratio"] for n, one in merged.items() if "objective_ratio" in one.facts
        }
        return {
            "status": "done",
            **self.known,
            "seconds": round(seconds, 1),
            "models": [{k: s[k] for k in ("name", "domain", "weight") if k in s} for s in sources],
            "result": self.config.result,
            "methods": judged.get("methods", {}),
            "upper": BEST,
            "objective_ratio": regmean.get("objective_ratio"),
            "objective_ratios": ratios,
            "tensors": regmean.get("tensors", {}),
        }


def _place(source: dict[str, Any]) -> dict[str, Any]:
    """What steps must know to open a model."""
    return {key: source[key] for key in ("name", "step", "model", "revision") if key in source}


def bundled() -> str:
    """The folder of the MiniLM-L6 that is installed with the package."""
    from actors.stms.pretrained import checkpoint

    return checkpoint(None)
