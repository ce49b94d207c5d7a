"""Experts as Serve deployments: a replica holds one model, and answers texts of several requests together."""

import asyncio
from collections.abc import Sequence
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle

from actors.experts.base import Answer, load_expert
from actors.serving.calls import Ask
from configs.schema.expert import ExpertSpec
from configs.schema.serve import Service

BATCHES_WAITING = 4
"""Batches that a replica may have before it, so that it never waits for texts."""


@serve.deployment
class Expert:
    """One model."""

    def __init__(
        self, spec: dict[str, Any], service: dict[str, Any], labels: Sequence[str], seed: int
    ) -> None:
        known, settings = ExpertSpec.model_validate(spec), Service.model_validate(service)
        self.answer_together.set_max_batch_size(settings.batch_size)
        self.answer_together.set_batch_wait_timeout_s(settings.batch_wait_ms / 1000)
        self.model = load_expert(known, labels, seed)

    async def answer(self, texts: Sequence[str]) -> list[Answer]:
        """Answer texts, in order; one that cannot be answered gets an answer with an error."""
        return list(await asyncio.gather(*(self.answer_together(text) for text in texts)))

    @serve.batch
    async def answer_together(self, texts: list[str]) -> list[Answer]:
        """Answer texts of several requests."""
        return await asyncio.to_thread(self.model.answer, texts)

    def check_health(self) -> None:
        """The model is loaded, or the constructor has failed."""


def deployment(spec: ExpertSpec, service: Service, labels: Sequence[str], seed: int) -> serve.Application:
    """The deployment of one expert."""
    actor = {"num_cpus": service.num_cpus, "num_gpus": service.num_gpus}
    if service.accelerator_type:
        actor["accelerator_type"] = service.accelerator_type
    scaling: dict[str, Any] = {"num_replicas": service.max_replicas}
    if service.min_replicas < service.max_replicas:
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=service.min_replicas,
                max_replicas=service.max_replicas,
                target_ongoing_requests=service.target_requests,
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


def asking(handle: DeploymentHandle) -> Ask:
    """How the router asks a deployment."""
    call = handle.answer

    async def ask(texts: Sequence[str]) -> list[Answer]:
        answers: list[Answer] = await call.remote(list(texts))
        return answers

    return ask
