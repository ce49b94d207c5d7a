"""Runs steps as Ray tasks: those that are done are read, the others are computed side by side."""

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from threadpoolctl import threadpool_limits

from cluster.storage import Run

POLL_S = 0.2
CRASHES = 3


class StepError(Exception):
    """A step that failed; the message says which one and why."""


class StoppedError(Exception):
    """The run was asked to stop; what is committed stays."""


@dataclass(frozen=True)
class Call:
    """A step to be done: `function` is `module:name` of a step function."""

    name: str
    function: str
    params: dict[str, Any]
    resources: dict[str, Any] = field(default_factory=dict)
    """Options of the Ray task: num_cpus, num_gpus, accelerator_type."""


@dataclass(frozen=True)
class Done:
    """A committed step."""

    key: str
    facts: dict[str, Any]


def resources_of(spec: Any) -> dict[str, Any]:  # noqa: ANN401
    """Ray options for work with a model of this configuration."""
    options = {"num_cpus": spec.num_cpus, "num_gpus": spec.num_gpus}
    return {**options, "accelerator_type": spec.accelerator_type} if spec.accelerator_type else options


@ray.remote(max_retries=CRASHES)
def perform(uri: str, call: Call) -> dict[str, Any]:
    """Do one step in a worker and commit it; committed steps are only read."""
    run = Run(uri)
    step = run.step(call.name, call.params)
    done = step.manifest
    if done is not None:
        return done
    module, _, name = call.function.partition(":")
    function = getattr(importlib.import_module(module), name)
    started = time.perf_counter()
    with threadpool_limits(limits=max(1, int(call.resources.get("num_cpus", 1)))):
        facts = function(run, step, call.params)
    return step.commit(**facts, wall_seconds=round(time.perf_counter() - started, 3))


class Steps:
    """The steps of one run; `stopped` is asked between waits."""

    def __init__(self, run: Run, stopped: Callable[[], bool]) -> None:
        self.run, self.stopped = run, stopped

    def do(self, calls: Sequence[Call]) -> list[Done]:
        """Results of steps that do not depend on each other, in order; StepError when one fails."""
        steps = [self.run.step(call.name, call.params) for call in calls]
        facts: list[dict[str, Any] | None] = [step.manifest for step in steps]
        waiting = {}
        for position, call in enumerate(calls):
            if facts[position] is None:
                reference = perform.options(**call.resources).remote(self.run.uri, call)
                waiting[reference] = position
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=POLL_S)
            if self.stopped():
                for reference in waiting:
                    ray.cancel(reference)
                raise StoppedError
            for reference in ready:
                position = waiting.pop(reference)
                facts[position] = _result(reference, steps[position].key)
        return [Done(step.key, fact or {}) for step, fact in zip(steps, facts, strict=True)]

    def one(self, call: Call) -> Done:
        """Result of a single step."""
        return self.do([call])[0]


def _result(reference: Any, key: str) -> dict[str, Any]:  # noqa: ANN401
    try:
        facts: dict[str, Any] = ray.get(reference)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        raise StepError(f"step {key}: {type(cause).__name__}: {_line(cause)}") from error
    except RayError as error:
        raise StepError(f"step {key}: its process died {CRASHES + 1} times: {_line(error)}") from error
    return facts


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
