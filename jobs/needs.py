"""What a job asks a cluster for at the same time, phase by phase, and whether a cluster file has it."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from cluster.capacity import CapacityError, Demand, NodeType, node_types, placed
from configs.load import locate
from configs.schema.base import ConfigError
from configs.schema.expert import LiveExperts
from configs.schema.foe import FoeConfig
from configs.schema.fusegen import FusegenConfig
from configs.schema.merge import MergeConfig

DRIVER = Demand("the driver and what waits for Ray Data", cpus=2)


def phases(config: FusegenConfig | FoeConfig | MergeConfig) -> dict[str, list[Demand]]:
    """What is asked for together, by phase; of tasks that need not run side by side, one."""
    if isinstance(config, FusegenConfig):
        writers = [_actor("plm", plm) for plm in config.plms]
        rounds, final = (_task(f"stm.{name}", getattr(config.stm, name)) for name in ("rounds", "final"))
        return {
            "writing and training in rounds": [DRIVER, *writers, rounds],
            "final training": [DRIVER, final],
        }
    if isinstance(config, FoeConfig):
        tasks = [DRIVER, Demand("training of a fuser", cpus=config.num_cpus)]
        if isinstance(config.experts, LiveExperts):
            return {
                "asking": [DRIVER, *(_actor("expert", e) for e in config.experts.pool)],
                "training": tasks,
            }
        return {"training": tasks}
    return {"merging": [DRIVER, Demand("work on one model", cpus=config.num_cpus, gpus=config.num_gpus)]}


def _actor(kind: str, spec: Any) -> Demand:  # noqa: ANN401
    return Demand(f"{kind} {spec.name}", spec.num_cpus, spec.num_gpus, spec.accelerator_type, spec.replicas)


def _task(name: str, spec: Any) -> Demand:  # noqa: ANN401
    return Demand(name, spec.num_cpus, spec.num_gpus, spec.accelerator_type)


def describe(config: FusegenConfig | FoeConfig | MergeConfig, file: str) -> str:
    """What of a cluster each phase needs, and what that costs an hour; ConfigError where it is too small."""
    try:
        types = node_types(locate(file))
        return "\n".join(_lines(config, types, file))
    except CapacityError as error:
        reason = str(error)
        raise ConfigError(reason if reason.startswith(str(locate(file))) else f"{file}: {reason}") from None


def _lines(
    config: FusegenConfig | FoeConfig | MergeConfig, types: list[NodeType], file: str
) -> Iterator[str]:
    yield f"{file}: {config.name} fits"
    for phase, demands in phases(config).items():
        try:
            nodes = placed(demands, types)
        except CapacityError as error:
            raise CapacityError(f"too small for {config.name}: {phase}: {error}") from None
        yield f"  {phase}: {_nodes(nodes)}"


def _nodes(nodes: Counter[NodeType]) -> str:
    price = sum(kind.price * count for kind, count in nodes.items())
    said = ", ".join(f"{count} x {kind.name}" for kind, count in nodes.items())
    return f"{said}, {price:.2f} USD an hour" if price else said
