"""An artefact of two small classifiers, and a router for it without Serve."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from actors.encoder import Encoder
from actors.experts.base import load_expert
from actors.router import opened, specs_of, try_out
from actors.serving import access
from actors.serving.calls import Breaker, Caller
from actors.serving.deciding import Decider
from actors.serving.experts import telling_here
from actors.serving.http import application
from actors.serving.measures import Measures
from actors.serving.turns import Turns
from configs.schema.foe import FoeConfig
from configs.schema.serve import Serving
from configs.schema.stm import HeadStm
from tests.actors.routing.conftest import fuse
from tests.experts import classifier, generator, write_items

RATES = [0.0, 0.02, 0.2]


@pytest.fixture(scope="session")
def published(ray_session, small, once) -> Path:
    """A run of two experts: a cheap one that is often right, and a dear one."""
    return once("published", partial(publish, small)) / "run"


def publish(small: Path, folder: Path) -> None:
    """Make that run."""
    pool = [
        {**classifier("cheap", small / "linear", temperature=3), "num_cpus": 0.2, "price_per_call": 1},
        {**classifier("dear", small / "linear"), "num_cpus": 0.2, "price_per_call": 4},
    ]
    live = {"kind": "live", "items": {"path": str(write_items(folder, 90))}, "pool": pool}
    data = {"job": "foe", "name": "films", "experts": live, "fusers": ["knn"], "features": {"prompt": False}}
    data["policy"] = {"fusers": ["knn"], "neighbours": 5, "sample": 10, "rates": RATES}
    fuse(FoeConfig.model_validate(data), folder / "run")


@pytest.fixture(scope="session")
def chats(ray_session, small, t5, once) -> Path:
    """A run that chooses whose response is given: those of a classifier and of two language models."""
    return once("chats", partial(publish_chats, small, t5)) / "run"


def publish_chats(small: Path, t5: Path, folder: Path) -> None:
    """Make that run."""
    items = write_items(folder, 40, answer=lambda row: "film" if row % 2 else "the")
    pool = [
        {**classifier("labels", small / "linear"), "num_cpus": 0.2, "price_per_call": 1},
        {**generator("critic", pooling="last_token"), "price_per_call": 2},
        {**generator("seq", engine={"model": str(t5)}, judge="label"), "price_per_call": 3},
    ]
    live = {"kind": "live", "items": {"path": str(items), "reference": "answer"}, "pool": pool}
    data = {"job": "foe", "name": "chats", "answer": "expert", "experts": live, "fusers": ["knn"]}
    data["features"] = {"dimensions": 5}
    data["policy"] = {"fusers": ["knn"], "neighbours": 5, "sample": 10, "rates": RATES}
    fuse(FoeConfig.model_validate(data), folder / "run")


class Site:
    """A router whose experts are in this process, behind its HTTP application."""

    def __init__(self, run: Path, asks: dict[str, Callable[..., Any]], **changes: Any) -> None:
        self.serving = Serving.model_validate({"artefact": str(run), **changes})
        loaded = opened(str(run))
        try_out(loaded)
        specs = specs_of(self.serving, loaded.manifest)
        labels = loaded.manifest["classes"]
        self.models = {spec.name: load_expert(spec, labels, 0) for spec in specs}

        def answering(name: str) -> Callable[..., Any]:
            async def ask(texts: Sequence[str]) -> Any:
                return self.models[name].answer(texts)

            return asks.get(name, ask)

        breakers = {spec.name: Breaker(self.serving.router.circuit) for spec in specs}
        callers = [
            Caller(
                name,
                answering(s.name),
                self.serving.service_of(s.name),
                breakers[s.name],
                telling_here(self.models[s.name]),
            )
            for name, s in zip(loaded.experts, specs, strict=True)
        ]
        features = loaded.manifest["features"] or {"encoder": {"kind": "head"}}
        encoder = Encoder(HeadStm.model_validate(features["encoder"]))

        async def embed(texts: Sequence[str]) -> Any:
            return np.asarray(encoder.embed(texts), float)

        self.decider = Decider(loaded, specs, callers, embed)
        self.app = application(
            SimpleNamespace(
                serving=self.serving,
                decider=self.decider,
                measures=Measures(),
                turns=Turns(self.serving.router.max_ongoing, self.serving.router.max_queued),
                keys=access.digests(self.serving.access),
            )
        )

    def __call__(
        self,
        method: str,
        path: str,
        *,
        sender: tuple[str, int] = ("127.0.0.1", 1),
        prefix: str = "",
        **options: Any,
    ) -> httpx.Response:
        """Send a request, of an application below a prefix."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=sender, root_path=prefix)
            async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
                return await client.request(method, prefix + path, **options)

        return asyncio.run(send())

    def together(self, *bodies: dict[str, Any]) -> list[httpx.Response]:
        """Ask for labels with several requests at once."""

        async def send() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
                return await asyncio.gather(*(client.post("/v1/classify", json=body) for body in bodies))

        return asyncio.run(send())

    def classify(self, *texts: str, **knobs: Any) -> httpx.Response:
        """Ask for labels."""
        return self("POST", "/v1/classify", json={"inputs": list(texts), **knobs})


@pytest.fixture
def site(published) -> Callable[..., Site]:
    """Makes a router; `asks` replaces how experts are asked."""
    return lambda asks=None, **changes: Site(published, asks or {}, **changes)


@pytest.fixture
def chat_site(chats) -> Callable[..., Site]:
    """The same for language models."""
    return lambda asks=None, **changes: Site(chats, asks or {}, **changes)
