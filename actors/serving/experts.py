"""Experts as Serve deployments: a replica holds one model, and answers texts of several requests together."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from actors.engines.base import DeviceLostError
from actors.experts.base import Answer, Answerer, RemoteAnswerer, load_expert
from actors.serving.batching import Batches
from actors.serving.calls import Ask, CallError, Tell
from actors.serving.outputs import Embed
from configs.schema.expert import ExpertSpec
from configs.schema.serve import Service
from configs.schema.stm import HeadStm

ENCODER = "encoder"
ONE_LOOP = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0", "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0"}
"""Environment of replicas, as their event loops are never busy for long. By default Serve runs their code on
a loop in a thread, and their calls in another; without those, two cores answered a fifth more requests."""
FEW = 8
"""Texts at most that a light model answers on the loop of a router, which has others to serve."""
BATCHES_WAITING = 4
"""Batches that a replica may have before it, so that it never waits for texts."""


@serve.deployment
class Expert:
    """One model."""

    def __init__(
        self, spec: dict[str, Any], service: dict[str, Any], labels: Sequence[str], seed: int
    ) -> None:
        known, settings = ExpertSpec.model_validate(spec), Service.model_validate(service)
        self.model = load_expert(known, labels, seed)
        self.far = self.model if isinstance(self.model, RemoteAnswerer) else None
        self.batches = Batches(self.model.answer, settings.batch_size, threaded=not self.model.light)
        gc.freeze()  # to look through all that was imported would stop answers for a third of a second

    async def answer(self, texts: Sequence[str]) -> list[Answer]:
        """Answer texts, in order; one that cannot be answered gets an answer with an error."""
        try:
            if self.far is not None:
                # Nothing is gained by batches, and a late answer must not hold up those of other requests.
                return await self.far.reply(texts)
            return await self.batches.answer(texts)
        except DeviceLostError:
            os._exit(1)  # only a new process helps, and Serve starts one

    async def stream(self, text: str) -> AsyncIterator[str | Answer]:
        """The pieces of the answer to one text as they are written, and then the answer."""
        if self.far is None:
            (answer,) = await self.answer([text])
            yield answer
            return
        try:
            async for said in _pieces(self.far, text):
                yield said
        except DeviceLostError:
            os._exit(1)


@serve.deployment(name=ENCODER)
class Embedder:
    """The encoder of texts that the artefact was made with."""

    def __init__(self, spec: dict[str, Any]) -> None:
        from actors.encoder import Encoder  # takes seconds that no other replica needs

        known = HeadStm.model_validate(spec)
        self.encoder = Encoder(known.model_copy(update={"batch_size": 1}))

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Vectors (n, d) of texts."""
        return np.asarray(await asyncio.to_thread(self.encoder.embed, texts), np.float64)


def deployment(spec: ExpertSpec, service: Service, labels: Sequence[str], seed: int) -> serve.Application:
    """The deployment of one expert."""
    actor: dict[str, Any] = {"num_cpus": service.num_cpus, "num_gpus": service.num_gpus}
    actor["runtime_env"] = {"env_vars": ONE_LOOP}
    if service.accelerator_type:
        actor["accelerator_type"] = service.accelerator_type
    scaling: dict[str, Any] = {"num_replicas": service.max_replicas}
    if service.min_replicas < service.max_replicas:
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=service.min_replicas,
                max_replicas=service.max_replicas,
                target_ongoing_requests=service.target_requests,
                downscale_delay_s=service.idle_s,
            )
        }
    ongoing = BATCHES_WAITING * service.batch_size
    application: serve.Application = Expert.options(
        name=name_of(spec.name),
        ray_actor_options=actor,
        max_ongoing_requests=max(ongoing, int(2 * service.target_requests)),
        **scaling,
    ).bind(spec.model_dump(mode="json"), service.model_dump(mode="json"), list(labels), seed)
    return application


def name_of(expert: str) -> str:
    """Name of the deployment of an expert."""
    return f"expert-{expert}"


def direct(handle: DeploymentHandle, **options: Any) -> DeploymentHandle:  # noqa: ANN401
    """The same handle, whose calls go from process to process by gRPC and not through objects of Ray's: they
    take half the time, of both processes."""
    return handle.options(_by_reference=False, request_serialization="pickle", **options)


def embedding(handle: DeploymentHandle) -> Embed:
    """How the router asks the encoder; CallError where it does not answer."""
    call = direct(handle).embed

    async def embed(texts: Sequence[str]) -> NDArray[np.float64]:
        try:
            vectors: NDArray[np.float64] = await call.remote(list(texts))
        except (RayError, RayServeException) as error:
            raise CallError(f"the encoder of texts: {error}") from None
        return vectors

    return embed


def asking(handle: DeploymentHandle) -> Ask:
    """How the router asks a deployment."""
    call = direct(handle).answer

    async def ask(texts: Sequence[str]) -> list[Answer]:
        answers: list[Answer] = await call.remote(list(texts))
        return answers

    return ask


def telling(handle: DeploymentHandle) -> Tell:
    """How the router has a deployment tell its answer while it is written."""
    call = direct(handle, stream=True).stream

    async def tell(text: str) -> AsyncIterator[str | Answer]:
        async for said in call.remote(text):
            yield said

    return tell


def telling_here(model: Answerer) -> Tell | None:
    """The same of a model that the router holds itself; None of one that answers at once."""
    return partial(_pieces, model) if isinstance(model, RemoteAnswerer) else None


async def _pieces(model: RemoteAnswerer, text: str) -> AsyncIterator[str | Answer]:
    """The pieces of an answer as they come, and then the answer; it is given up with the iterator."""
    loop, heard = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def hear(piece: str | None) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, piece)

    task = loop.create_task(model.tell(text, hear))
    task.add_done_callback(lambda _: hear(None))
    try:
        while (piece := await heard.get()) is not None:
            yield piece
        yield await task
    finally:
        task.cancel()


def asking_here(model: Answerer) -> Ask:
    """How the router asks a model that it holds itself."""
    if isinstance(model, RemoteAnswerer):
        return model.reply

    async def ask(texts: Sequence[str]) -> list[Answer]:
        if model.light and len(texts) <= FEW:
            return model.answer(texts)
        return await asyncio.to_thread(model.answer, texts)

    return ask
