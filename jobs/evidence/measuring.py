"""A run, whether it is one that a claim is about, and the number in its summary that is meant."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache, reduce
from operator import getitem
from typing import Any, NamedTuple

import numpy as np

from cluster.storage import Run, canonical, differences
from configs.load import locate, read_yaml, resolve
from configs.schema.base import ConfigError, Strict, identity
from configs.schema.compare import CompareConfig
from configs.schema.evidence import Claim, Measure
from configs.schema.foe import FoeConfig
from configs.schema.fusegen import FusegenConfig
from configs.schema.merge import MergeConfig
from fusion.routing.evaluation import Point, quality_at

SCHEMAS: dict[str, type[Strict]] = {
    "fusegen": FusegenConfig,
    "foe": FoeConfig,
    "merge": MergeConfig,
    "compare": CompareConfig,
}
"""What the file of a job is checked against."""
TAKE = {"mean": np.mean, "max": np.max, "min": np.min}
ANY_PLACE = ".path"
"""Keys that end so say where data lie; they may differ."""


class Kind(NamedTuple):
    """Runs of a configuration that ships, with some values set apart, as JSON."""

    config: str
    where: str


def kinds(claim: Claim, measure: Measure) -> list[Kind]:
    """The runs in which a measure of a claim is looked up."""
    return [Kind(config, canonical(measure.where)) for config in claim.configs]


@dataclass(frozen=True)
class Found:
    """A finished run: its directory, what it was told, and what came out."""

    run: str
    config: dict[str, Any]
    version: str
    summary: dict[str, Any]

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.config["seed"])

    def strays(self, kind: Kind) -> list[str]:
        """Dotted keys in which it differs from runs of a kind."""
        content = shipped(kind.config)
        for key in ("job", "name"):
            if content.get(key) != self.config[key]:
                return [key]
        places = canonical(_places(self.config))
        expected = _expected(kind, self.seed, places)
        return [key for key in differences(_listed(self.config), expected) if not key.endswith(ANY_PLACE)]

    def why_not(self, kinds: Iterable[Kind]) -> str:
        """Why it is of none of these kinds: the one that it is nearest to, and where it differs."""
        mine = [kind for kind in kinds if shipped(kind.config).get("name") == self.config["name"]]
        if not mine:
            return f"no claim is about runs of the name {self.config['name']}"
        nearest = min(mine, key=lambda kind: (len(self.strays(kind)), str(kind)))
        return f"it differs from {nearest.config} in {', '.join(self.strays(nearest)[:5])}"

    def number(self, measure: Measure) -> float:
        """What it measured; ConfigError where its summary has no such number."""
        values = [value for value in _at(self.summary, measure.path) if value is not None]
        if measure.at_cost is not None:
            values = [_on_curve(points, measure.at_cost) for points in values]
        try:
            numbers = np.array(values, float)
        except (TypeError, ValueError):
            numbers = np.array([np.nan])
        if not len(numbers) or not np.isfinite(numbers).all():
            raise ConfigError(f"{self.run}: summary.json has no number at {' > '.join(measure.path)}")
        return float(TAKE[measure.take](numbers))


def read(uri: str) -> Found:
    """A finished run; ConfigError when it is none."""
    run = Run(uri)
    if not run.exists("run.json") or not run.exists("summary.json"):
        raise ConfigError(f"{uri}: not a run directory with results")
    record, summary = run.read_json("run.json"), run.read_json("summary.json")
    if summary.get("status") != "done":
        raise ConfigError(f"{uri}: {summary.get('status', 'not done')}; only finished runs are evidence")
    return Found(uri, as_now(record["config"]), record["version"], summary)


def as_now(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run with the defaults of keys that came later; as it is where it is not valid
    any more, which makes it one that does not ship."""
    try:
        return identity(SCHEMAS[config["job"]].model_validate(config))
    except (KeyError, ValueError):
        return config


@lru_cache(256)
def shipped(config: str) -> dict[str, Any]:
    """The content of the file of a job; ConfigError when it is none. Not to be changed."""
    content = read_yaml(locate(config))
    if content.get("job") not in SCHEMAS:
        raise ConfigError(f"{config}: not the file of a job; allowed: {', '.join(SCHEMAS)}")
    return content


@lru_cache(256)
def _expected(kind: Kind, seed: int, places: str) -> Any:  # noqa: ANN401
    """The configuration of runs of a kind."""
    changes = {**json.loads(places), **json.loads(kind.where), "seed": seed}
    return _listed(identity(resolve(kind.config, SCHEMAS[shipped(kind.config)["job"]], changes)))


def _places(config: dict[str, Any]) -> dict[str, str]:
    """Where the data of a run lay, by dotted key."""
    return {
        f"{section}{ANY_PLACE}": value["path"]
        for section, value in config.items()
        if isinstance(value, dict) and value.get("path")
    }


def _listed(value: Any) -> Any:  # noqa: ANN401
    """The same with lists as mappings, so that what differs has a key."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, list):
        return {str(place): _listed(item) for place, item in enumerate(value)}
    return value


def _at(value: Any, path: tuple[str, ...]) -> Iterator[Any]:  # noqa: ANN401
    """What a path with patterns leads to."""
    for keys in _ways(value, path, value):
        yield reduce(getitem, keys, value)


def _ways(value: Any, path: tuple[str, ...], top: Any) -> Iterator[tuple[str, ...]]:  # noqa: ANN401
    """The keys that a path with patterns stands for, from a value within `top`."""
    if not path:
        yield ()
        return
    if not isinstance(value, dict):
        return
    key, rest = path[0], path[1:]
    if key.startswith("$"):
        named = top.get(key[1:], [])
        keys = [named] if isinstance(named, str) else list(named)
    else:
        keys = [name for name in value if fnmatchcase(name, key)]
    for name in keys:
        if name in value:
            yield from ((name, *keys) for keys in _ways(value[name], rest, top))


def excerpt(value: dict[str, Any], path: tuple[str, ...], kept: dict[str, Any]) -> None:
    """Copy what a path with patterns leads to into `kept`, with what it names."""
    names = [key[1:] for key in path if key.startswith("$")]
    kept.update({name: value[name] for name in names if name in value})
    for keys in _ways(value, path, value):
        source, target = value, kept
        for key in keys[:-1]:
            source, target = source[key], target.setdefault(key, {})
        target[keys[-1]] = source[keys[-1]]


def _on_curve(points: Any, cost: float) -> float:  # noqa: ANN401
    """The quality that a curve reaches for a price."""
    return quality_at([Point(point["cost"], point["accuracy"]) for point in points], cost)
