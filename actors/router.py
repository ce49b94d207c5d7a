"""The router behind HTTP: `actors.router:build` makes the Serve application of a `Serving` configuration.

    client -> Router (ingress: keys, limits, decisions) -> one deployment per expert

Nothing of a request outlives it. What changes while the router runs, the artefact, comes as `user_config`:
a new one is loaded beside the old one, tried, and takes its place for requests that come after. (Serve starts
processes again when the arguments of an application change, but not when `user_config` does.)
"""

import asyncio
import gc
import re
from dataclasses import replace
from typing import Any

import numpy as np
from fastapi import FastAPI
from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.handle import DeploymentHandle

from actors.experts.base import Answerer, load_expert
from actors.routing import artefact as artefacts
from actors.routing.artefact import Artefact, ArtefactError
from actors.serving import access, single
from actors.serving.calls import Breaker, Caller
from actors.serving.deciding import Decider
from actors.serving.experts import (
    ENCODER,
    ONE_LOOP,
    Embedder,
    asking,
    asking_here,
    deployment,
    embedding,
    telling,
    telling_here,
)
from actors.serving.http import application
from actors.serving.measures import Measures
from actors.serving.turns import Turns
from cluster.storage import Storage
from configs.schema.base import ConfigError
from configs.schema.expert import ExpertSpec
from configs.schema.serve import Serving
from fusion.routing.averaging import Averaging

RETRY_S = 1.0
STARTS = 2
"""How often a router that does not start, or refuses an artefact, is started again."""
CANARIES = 16
"""Stored items that a new artefact must decide about before it is used."""


def about(place: str) -> dict[str, Any]:
    """The manifest of what is served, given an artefact's folder, or a run."""
    run, files = _found(place)
    return _settled(files.read_json(artefacts.MANIFEST), files) if files else single.manifest_of(run)


def opened(place: str) -> Artefact:
    """The same with all that it was learnt from, checked."""
    run, files = _found(place)
    if files is None:
        return single.single(run)
    artefact = artefacts.read(files)
    return replace(artefact, manifest=_settled(artefact.manifest, files))


def _settled(manifest: dict[str, Any], files: Storage) -> dict[str, Any]:
    """A manifest that says where the models are that lie in the artefact's own run."""
    run = files.uri.rpartition("/")[0]
    served = [
        {**spec, "model": {**spec["model"], "model": single.placed(spec["model"]["model"], run)}}
        if "model" in spec["model"]
        else spec
        for spec in manifest.get("served", [])
    ]
    return {**manifest, "served": served}


def _found(place: str) -> tuple[Storage, Storage | None]:
    """What lies there, and in it the artefact; None where a model is alone. ArtefactError for neither."""
    run = Storage(place)
    for files in (run.below("artefact"), run):
        if files.exists(artefacts.MANIFEST):
            return run, files
    if single.finished(run):
        return run, None
    raise ArtefactError(f"{run.uri}: neither a finished run nor an artefact")


def specs_of(serving: Serving, manifest: dict[str, Any]) -> list[ExpertSpec]:
    """How the artefact's experts are started, in its order; ConfigError when that is not known of one."""
    known = {spec["name"]: ExpertSpec.model_validate(spec) for spec in manifest.get("served", [])}
    known |= {spec.name: spec for spec in serving.experts}
    names = [plain(expert["name"]) for expert in manifest["experts"]]
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise ConfigError(f"artefact: two of its experts would be served under the name {twice[0]!r}")
    strange = [name for name in (*serving.services, *(s.name for s in serving.experts)) if name not in names]
    if strange:
        raise ConfigError(f"experts: the artefact knows no {strange[0]!r}; it knows {', '.join(names)}")
    lacking = [name for name in names if name not in known]
    if lacking:
        raise ConfigError(
            f"experts: the artefact does not say how to start {', '.join(lacking)} (recorded outputs?); "
            "describe them under `experts`, by these names"
        )
    if manifest["answer"] == "expert" and any(e["vector"] is None for e in manifest["experts"]):
        raise ConfigError(
            "artefact: it does not say how responses become vectors, as those of earlier versions; run the "
            "job again"
        )
    return [known[name] for name in names]


def plain(name: str) -> str:
    """The name under which an expert is served: recorded ones may have names of any characters."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)


def build(args: Serving) -> serve.Application:
    """The application: a router, and a deployment per expert."""
    manifest = about(args.artefact)
    specs = specs_of(args, manifest)
    access.digests(args.access)  # a missing key is better noticed here
    labels, seed = manifest["classes"], manifest["settings"]["seed"]
    experts = {
        spec.name: deployment(spec, args.service_of(spec.name), labels, seed)
        for spec in specs
        if args.service_of(spec.name).placement == "own"
    }
    if manifest["answer"] == "expert":
        encoder = {"num_cpus": args.service.num_cpus, "num_gpus": 0, "runtime_env": {"env_vars": ONE_LOOP}}
        spec = manifest["features"]["encoder"]
        experts[ENCODER] = Embedder.options(ray_actor_options=encoder).bind(spec)
    router: serve.Application = Router.options(
        num_replicas=args.router.replicas,
        ray_actor_options={"num_cpus": args.router.num_cpus, "runtime_env": {"env_vars": ONE_LOOP}},
        max_ongoing_requests=args.router.max_ongoing + args.router.max_queued,  # they wait in `turns`
        max_queued_requests=args.router.max_queued,
        max_constructor_retry_count=STARTS,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=RETRY_S),
        user_config={"artefact": args.artefact, "version": manifest["version"]},
    ).bind(args.model_dump(mode="json"), experts)
    return router


@serve.deployment
@serve.ingress()
class Router:
    """Takes requests, decides, answers."""

    def __init__(self, serving: dict[str, Any], experts: dict[str, DeploymentHandle]) -> None:
        self.serving = Serving.model_validate(serving)
        self.handles, self.measures = experts, Measures()
        self.turns = Turns(self.serving.router.max_ongoing, self.serving.router.max_queued)
        self.keys = access.digests(self.serving.access)
        self.models: dict[str, Answerer] = {}
        self.breakers: dict[str, Breaker] = {}
        self.decider: Decider
        gc.freeze()  # as of experts

    def __serve_build_asgi_app__(self) -> FastAPI:
        return application(self)

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Load an artefact, try it, and let it decide from now on; one that does not fit is refused. Requests
        go on meanwhile."""
        loaded = await asyncio.to_thread(self._loaded, config)
        self.decider = self._decider(loaded)

    def _loaded(self, config: dict[str, Any]) -> Artefact:
        """An artefact that decides, and the experts of its that live here."""
        loaded = opened(config["artefact"])
        wanted = config.get("version", loaded.manifest["version"])
        if loaded.manifest["version"] != wanted:
            raise ValueError(f"{config['artefact']} is version {loaded.manifest['version']}, not {wanted}")
        try_out(loaded)
        for spec in specs_of(self.serving, loaded.manifest):
            if self.serving.service_of(spec.name).placement == "router" and spec.name not in self.models:
                labels, seed = loaded.manifest["classes"], loaded.manifest["settings"]["seed"]
                self.models[spec.name] = load_expert(spec, labels, seed)
        return loaded

    def _decider(self, loaded: Artefact) -> Decider:
        specs = specs_of(self.serving, loaded.manifest)
        callers = [self._caller(*one) for one in zip(loaded.experts, specs, strict=True)]
        encoder = self.handles.get(ENCODER)
        return Decider(loaded, specs, callers, encoder and embedding(encoder))

    def _caller(self, name: str, spec: ExpertSpec) -> Caller:
        """How an expert is asked: where it is served, or here."""
        service, model = self.serving.service_of(spec.name), self.models.get(spec.name)
        if model is None and spec.name not in self.handles:
            raise ValueError(f"expert {spec.name} of the artefact is not served; start again to add experts")
        breaker = self.breakers.setdefault(spec.name, Breaker(self.serving.router.circuit))
        if model is None:
            handle = self.handles[spec.name]
            tell = telling(handle) if spec.model.kind == "generator" else None
            return Caller(name, asking(handle), service, breaker, tell)
        return Caller(name, asking_here(model), service, breaker, telling_here(model))


def try_out(loaded: Artefact) -> None:
    """Decide about a few stored items: an artefact that cannot must not replace one that can. It also makes
    what the first request would have to wait for."""
    if isinstance(loaded.policy, Averaging):  # nothing is stored
        return
    policy, few = loaded.policy, np.arange(min(CANARIES, len(loaded.policy.stored_)))
    walk = policy.begin(len(few), loaded.manifest["rate"])
    found = walk.run(lambda expert, rows: policy.stored_.blocks[expert][few[rows]])[0]
    if (found.answers < 0).any() or not np.isfinite(found.scores).all():
        raise ValueError(f"artefact {loaded.manifest['version']} does not decide about its own items")
