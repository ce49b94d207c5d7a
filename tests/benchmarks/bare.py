"""Bare deployments of Ray Serve: what any router on it costs at least."""

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request

from actors import stms


@serve.deployment(ray_actor_options={"num_cpus": 0.2}, max_ongoing_requests=64)
class Model:
    """A classifier."""

    def __init__(self, model: str) -> None:
        self.model = stms.load(Path(model))

    async def answer(self, texts: list[str]) -> list[list[float]]:
        """Probabilities."""
        found: list[list[float]] = self.model.predict_proba(self.model.encode(texts)).tolist()
        return found


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.2}, max_ongoing_requests=64)
class Ingress:
    """Takes requests."""

    def __init__(self, model: DeploymentHandle | None = None) -> None:
        self.model = model

    async def __call__(self, request: Request) -> list[list[float]]:
        """Answer."""
        texts = (await request.json())["inputs"]
        return [[1.0]] if self.model is None else await self.model.answer.remote(texts)


def build(args: dict[str, Any]) -> serve.Application:
    """The application."""
    if not args["asks"]:
        return Ingress.bind()
    return Ingress.bind(Model.bind(args["model"]))
