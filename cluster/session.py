"""The Ray session: a cluster that is there already, or one of our own on this machine.

A process that has called `ray.init` keeps what it has; `leave` ends only what `connect` began.

On a machine of our own making, logical CPUs exceed the cores by two, and model actors share at most half of
the cores: an actor that waits for requests must not keep the tasks from running that would send them.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

OBJECT_STORE_BYTES = 1 << 30
CONNECT_S = 10.0
WORKERS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Workers that reserved no GPU see none, so that what they compute does not depend on where they run."""
LEAST_CPUS = 3
"""Logical CPUs below which those that wait could keep those that work from starting."""
SPARE_WORKERS_MS = 10_000
"""How long a local cluster keeps idle workers: to start one for each step takes seconds, not to keep it."""
PACKAGES = ("configs", "cluster", "fusion", "actors", "jobs")


class SessionError(Exception):
    """No cluster could be reached or started; the message says which address."""


@dataclass(frozen=True)
class Session:
    """A connection to Ray."""

    local: bool
    """Whether this process started the cluster; it then ends with the process."""
    cpus: float
    """Logical CPUs of a local cluster."""
    gpus: float
    """GPUs of a local cluster."""
    opened: bool = False
    """Whether `connect` made the connection, so that `leave` ends it."""

    def fit_cpus(self, demands: Mapping[str, float]) -> dict[str, float]:
        """CPU shares of long-lived actors: as asked on a cluster, scaled to fit on a machine of our own.

        `demands` are the CPUs of all replicas of each actor kind together; so are the shares.
        """
        total = sum(demands.values())
        room = max(1.0, (self.cpus - 2) / 2)
        scale = min(1.0, room / total) if self.local and total else 1.0
        return {name: round(cpus * scale, 3) for name, cpus in demands.items()}


def connect(address: str = "auto") -> Session:
    """Join the cluster at `host:port`, the one RAY_ADDRESS names (`auto`), or start one here (`local`, or
    `auto` without RAY_ADDRESS); a process that is connected already stays where it is."""
    if ray.is_initialized():
        return _joined(address)
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.update(WORKERS)
    os.environ.setdefault("RAY_maximum_startup_concurrency", "16")
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(SPARE_WORKERS_MS))
    target = os.environ.get("RAY_ADDRESS") if address == "auto" else address
    try:
        if target in {None, "", "local"}:
            cpus = float((os.cpu_count() or 1) + 2)
            ray.init(
                address="local",
                num_cpus=int(cpus),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                object_store_memory=OBJECT_STORE_BYTES,
            )
            return Session(True, cpus, ray.cluster_resources().get("GPU", 0.0), opened=True)
        _reach(str(target))
        ray.init(address=target, log_to_driver=False, logging_level="error", runtime_env=_environment())
    except Exception as error:  # a process boundary: Ray raises a bare Exception when its start times out
        reason = " ".join(str(error).split())[:200]
        raise SessionError(
            f"Ray at {target or 'this machine'}: cannot be reached or started: {reason}"
        ) from error
    return Session(local=False, cpus=0.0, gpus=0.0, opened=True)


def leave(session: Session) -> None:
    """End a connection, and the cluster with it, if `connect` started them."""
    if session.opened:
        ray.shutdown()


def _joined(address: str) -> Session:
    """The session of `ray.init` in this process; SessionError where it is another one or too small."""
    here = ray.get_runtime_context().gcs_address
    if address not in {"auto", "local", here}:
        raise SessionError(
            f"Ray at {address}: cannot be reached: this process is connected to {here}; "
            "call ray.shutdown(), or leave the address out"
        )
    node = ray._private.worker._global_node
    if node is None or not node.is_head():
        return Session(local=False, cpus=0.0, gpus=0.0)
    found = ray.cluster_resources()
    cpus = found.get("CPU", 0.0)
    if cpus < LEAST_CPUS:
        raise SessionError(
            f"Ray at this process: has {cpus:g} CPUs, {LEAST_CPUS} at least are needed: "
            f"ray.init(num_cpus={LEAST_CPUS + 1}), or ray.shutdown() and let the job start its own"
        )
    return Session(local=True, cpus=cpus, gpus=found.get("GPU", 0.0))


def _environment() -> dict[str, Any]:
    """What workers of a cluster need: our packages as they are here; a submitted job brings its own."""
    if RAY_JOB_CONFIG_JSON_ENV_VAR in os.environ:
        return {"env_vars": WORKERS}
    root = Path(__file__).parents[1]
    return {"env_vars": WORKERS, "py_modules": [str(root / name) for name in PACKAGES]}


def _reach(address: str) -> None:
    """Fail at once where nobody answers: Ray itself tries for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
