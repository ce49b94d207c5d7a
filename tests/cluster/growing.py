"""A cluster on this machine that begins as a head, and whose autoscaler adds nodes without hardware.

Ray's own class for this needs a file that its wheel lacks, and ends every Ray process of the machine. This
one starts a head in a process of its own, with Ray's fake provider of nodes as an external one.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.util import get_node_ip_address

from cluster.proxy import free_port

HEAD = "f" * 51 + "00000"
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
STORE_BYTES = 100 << 20
LEGACY = {"auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": []} | {
    name: []
    for name in (
        "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands", "head_setup_commands",
        "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands",
    )
}  # fmt: skip


class Growing:
    """The cluster; `types` are resources and labels by node type, each up to two of them."""

    def __init__(self, types: dict[str, dict[str, Any]], cpus: int, idle_s: float) -> None:
        self.types, self.cpus, self.idle_s = types, cpus, idle_s
        self.address = f"{get_node_ip_address()}:{free_port()}"

    def __enter__(self) -> Self:
        self.folder = tempfile.mkdtemp(prefix="ray-")  # short: it becomes part of socket names
        file = Path(self.folder) / "cluster.json"
        file.write_text(json.dumps(self._config()))
        command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block"]
        command += [f"--port={self.address.rpartition(':')[2]}", f"--num-cpus={self.cpus}"]
        command += [f"--temp-dir={self.folder}", f"--autoscaling-config={file}", "--include-dashboard=false"]
        command += [
            f"--dashboard-agent-listen-port={free_port()}",
            f"--object-store-memory={2 * STORE_BYTES}",
        ]
        environment = {
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
        }
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.head = subprocess.Popen(command, env={**os.environ, **environment}, **quiet)
        self._until_up()
        return self

    def _config(self) -> dict[str, Any]:
        def of(resources: dict[str, int], labels: dict[str, str], most: int) -> dict[str, Any]:
            store = {"object_store_memory": STORE_BYTES}
            return {
                "resources": {**resources, **store},
                "labels": labels,
                "node_config": {},
                "max_workers": most,
            }

        types = {name: of(one["resources"], one.get("labels", {}), 2) for name, one in self.types.items()}
        return {
            "cluster_name": "growing",
            "max_workers": 8,
            "provider": {
                "type": "external",
                "module": PROVIDER,
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
                "launch_multiple": True,
                "head_node_id": HEAD,
                "gcs_address": self.address,
            },
            "available_node_types": {"ray.head.default": of({"CPU": self.cpus}, {}, 0), **types},
            "head_node_type": "ray.head.default",
            "upscaling_speed": 100,
            "idle_timeout_minutes": self.idle_s / 60,
            **LEGACY,
        }

    def _until_up(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(Exception):
                if get_cluster_status(self.address).idle_nodes:
                    return
            time.sleep(0.2)
        raise TimeoutError("the head did not start")

    def nodes(self) -> Counter[str]:
        """Living nodes by their type, the head excepted."""
        status = get_cluster_status(self.address)
        names = [node.ray_node_type_name for node in [*status.active_nodes, *status.idle_nodes]]
        return Counter(name for name in names if name in self.types)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        mine = [self.head, *psutil.Process(self.head.pid).children(recursive=True)]
        self.head.terminate()
        psutil.wait_procs(mine[1:], timeout=3)
        for process in psutil.process_iter(["cmdline"]):  # those of fake nodes may have left the family
            if self.folder in " ".join(process.info["cmdline"] or ()):
                mine.append(process)
        for process in mine:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                process.kill()
        self.head.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
