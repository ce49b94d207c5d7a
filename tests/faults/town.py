"""A Ray cluster of three nodes on this machine, and its processes as victims.

The head has no CPU, as on real clusters, so that all work is on nodes that can go down. What the driver is
connected to is the head; it stays.
"""

import contextlib
import os
import random
import shutil
import signal
import tempfile
from types import TracebackType
from typing import Any, Self

import psutil
from ray.cluster_utils import Cluster

NODES = 2
CPUS = 3
KINDS = {
    "coordinator": "ray::Coordinator",
    "PLM": "ray::Plm",
    "expert": "ray::Expert",
    "worker": "ray::perform",
    "bridge": "ray::MapWorker",
}
"""Processes below a node, by how their titles begin."""


class Town:
    """The cluster; use it as a context manager."""

    def __enter__(self) -> Self:
        self.folder = tempfile.mkdtemp(prefix="ray-")  # short: it becomes part of socket names
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "temp_dir": self.folder, **_small()}
        )
        self.nodes = [self._node() for _ in range(NODES)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        mine = psutil.Process().children(recursive=True)
        self.cluster.shutdown()
        for process in mine:
            with contextlib.suppress(psutil.Error):
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """Where drivers connect."""
        return str(self.cluster.address)

    def _node(self) -> Any:
        return self.cluster.add_node(num_cpus=CPUS, **_small())

    def kinds(self) -> list[str]:
        """What can be killed now; processes three times, as nodes take longest to replace."""
        return [*3 * [*dict.fromkeys(kind for kind, _ in self._workers())], "raylet", "node"]

    def kill(self, kind: str, rng: random.Random) -> bool:
        """Kill one process of a kind, or a node with all of its processes at once, with SIGKILL; False when
        it was gone before. A node that went down is replaced by a new one."""
        if kind not in {"raylet", "node"}:
            pids = sorted(pid for found, pid in self._workers() if found == kind)
            return bool(pids) and _killed([rng.choice(pids)])
        node = self.nodes.pop(rng.randrange(len(self.nodes)))
        (raylet,) = node.all_processes["raylet"]
        below = [process.pid for process in psutil.Process(raylet.process.pid).children(recursive=True)]
        killed = _killed([raylet.process.pid, *(below if kind == "node" else [])])
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self._node())
        return killed

    def _workers(self) -> list[tuple[str, int]]:
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline())
                found += [(kind, process.pid) for kind, start in KINDS.items() if title.startswith(start)]
        return found


def _small() -> dict[str, Any]:
    return {"object_store_memory": 128 << 20, "include_dashboard": False}


def _killed(pids: list[int]) -> bool:
    killed = False
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed = True
    return killed
