"""What a cluster can become, by its file, and whether what a job asks for at the same time fits.

    cluster file -> node types, by Ray's own parsers -> actors and tasks are placed, largest first -> nodes

Files are those of `ray up`, and KubeRay's RayCluster and RayService. A node type's label `usd-per-hour` is
its price.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PRICE = "usd-per-hour"
ACCELERATOR = "accelerator_type:"
SPECS = {"RayCluster": "spec", "RayService": "rayClusterConfig", "RayJob": "rayClusterSpec"}


class CapacityError(Exception):
    """A cluster file that cannot be used, or a cluster that is too small; the message is one line."""


@dataclass(frozen=True)
class NodeType:
    """A kind of machine that a cluster may have."""

    name: str
    cpus: float
    gpus: float
    accelerators: frozenset[str]
    """GPU models, by Ray's names."""
    most: int
    """How many there may be."""
    price: float
    """USD per hour; 0 where the file does not say."""

    def __str__(self) -> str:
        gpus = f", {self.gpus:g} GPU {' '.join(sorted(self.accelerators))}".rstrip() if self.gpus else ""
        return f"{self.most} x {self.name} ({self.cpus:g} CPU{gpus})"


@dataclass(frozen=True)
class Demand:
    """What so many actors or tasks ask for, each."""

    name: str
    cpus: float = 0.0
    gpus: float = 0.0
    accelerator: str | None = None
    count: int = 1

    def __str__(self) -> str:
        gpus = f"{self.gpus:g} GPU{f' of type {self.accelerator}' if self.accelerator else ''} and "
        return f"{self.name}: {gpus if self.gpus else ''}{self.cpus:g} CPU"


@dataclass
class _Node:
    kind: NodeType
    cpus: float
    gpus: float


def node_types(path: Path) -> list[NodeType]:
    """The machines that do the work of the cluster of a file, in its order; CapacityError when Ray would
    refuse the file."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CapacityError(f"{path}: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise CapacityError(f"{path}: not a cluster file")
    with contextlib.redirect_stdout(io.StringIO()):
        config = _of_kuberay(path, content) if "kind" in content else _of_ray_up(path, content)
    head, types = config["head_node_type"], config["available_node_types"]
    most = int(config["max_workers"])
    return [_node_type(name, one, most) for name, one in types.items() if name != head]


def _of_ray_up(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    # These names are private to Ray; they are those of version 2.60.
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        config: dict[str, Any] = prepare_config(content)
        validate_config(config)
    except ValidationError as error:
        where = ".".join(map(str, error.absolute_path))
        raise CapacityError(f"{path}: {where + ': ' if where else ''}{error.message[:200]}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise CapacityError(f"{path}: Ray refuses it: {' '.join(str(error).split())[:200]}") from None
    return config


def _of_kuberay(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    kind = content["kind"]
    if kind not in SPECS:
        raise CapacityError(f"{path}: kind {kind}: allowed: {', '.join(SPECS)}")
    spec = content["spec"] if kind == "RayCluster" else content["spec"].get(SPECS[kind])
    if spec is None:
        raise CapacityError(f"{path}: runs on a cluster that another file describes; name that one")
    metadata = {"namespace": "default", **content.get("metadata", {})}
    try:
        found: dict[str, Any] = _derive_autoscaling_config_from_ray_cr({"metadata": metadata, "spec": spec})
    except (KeyError, TypeError, ValueError) as error:
        raise CapacityError(f"{path}: Ray refuses it: {' '.join(str(error).split())[:200]}") from None
    return found


def _node_type(name: str, spec: dict[str, Any], most: int) -> NodeType:
    resources, labels = spec["resources"], spec.get("labels", {})
    return NodeType(
        name,
        float(resources.get("CPU", 0)),
        float(resources.get("GPU", 0)),
        frozenset(key.removeprefix(ACCELERATOR) for key in resources if key.startswith(ACCELERATOR)),
        min(most, int(spec.get("max_workers", most))),
        float(labels.get(PRICE, 0)),
    )


def placed(demands: Sequence[Demand], types: Sequence[NodeType]) -> Counter[NodeType]:
    """Nodes that hold everything at the same time, largest demands first, on the cheapest type that can;
    CapacityError names the first that finds no room."""
    nodes: list[_Node] = []
    used: Counter[NodeType] = Counter()
    for demand in _single(demands):
        fitting = [kind for kind in types if _can(kind, demand)]
        if not fitting:
            raise CapacityError(f"{demand}: no node type has that; there are {_all(types)}")
        node = next((n for n in nodes if n.kind in fitting and _room(n, demand)), None)
        if node is None:
            free = [kind for kind in fitting if used[kind] < kind.most]
            if not free:
                raise CapacityError(f"{demand}: no room beside the others; there are {_all(types)}")
            kind = min(free, key=lambda kind: (kind.gpus > 0, kind.price, kind.gpus, kind.cpus))
            node = _Node(kind, kind.cpus, kind.gpus)
            nodes.append(node)
            used[kind] += 1
        node.cpus -= demand.cpus
        node.gpus -= demand.gpus
    return used


def _single(demands: Sequence[Demand]) -> Iterator[Demand]:
    for demand in sorted(demands, key=lambda d: (-d.gpus, d.accelerator is None, -d.cpus)):
        yield from [demand] * demand.count


def _can(kind: NodeType, demand: Demand) -> bool:
    known = demand.accelerator is None or demand.accelerator in kind.accelerators
    return known and demand.cpus <= kind.cpus and demand.gpus <= kind.gpus


def _room(node: _Node, demand: Demand) -> bool:
    return demand.cpus <= node.cpus + 1e-9 and demand.gpus <= node.gpus + 1e-9


def _all(types: Sequence[NodeType]) -> str:
    return ", ".join(map(str, types))
