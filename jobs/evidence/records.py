"""Runs as records, a line of JSON each: their configurations, and of their summaries what claims read.

Run directories are large, and are cleared away; their records can be kept beside the page and held against
the claims again, together with new runs.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cluster.storage import canonical
from configs.schema.base import ConfigError
from configs.schema.evidence import Measure
from jobs.evidence.measuring import Found, as_now, excerpt, read

SUFFIX = ".jsonl"


def load(uris: Iterable[str]) -> list[Found]:
    """Runs from their directories, and from files of records; of those told the same the last is taken."""
    found = [run for uri in uris for run in (_recorded(Path(uri)) if uri.endswith(SUFFIX) else [read(uri)])]
    return list({canonical(_portable(run.config)): run for run in found}.values())


def write(place: Path, runs: Sequence[Found], measures: Sequence[Measure]) -> None:
    """Keep what `measures` read of runs."""
    lines = []
    for run in runs:
        summary: dict[str, Any] = {}
        for measure in measures:
            excerpt(run.summary, measure.path, summary)
        lines.append(
            canonical({"config": _portable(run.config), "version": run.version, "summary": summary}) + "\n"
        )
    place.write_text("".join(sorted(lines)))


def _recorded(place: Path) -> list[Found]:
    """The runs of a file; ConfigError when it holds anything else."""
    found = []
    try:
        lines = place.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: cannot be read: {getattr(error, 'strerror', 'not text')}") from None
    for number, line in enumerate(lines, 1):
        try:
            one = json.loads(line)
            run = Found(f"{place}, line {number}", as_now(one["config"]), one["version"], one["summary"])
            _ = run.seed, run.config["name"], run.config["job"]
        except (ValueError, KeyError, TypeError):
            raise ConfigError(
                f"{place}, line {number}: not the record of a run; allowed: what `jobs evidence` writes"
            ) from None
        found.append(run)
    return found


def _portable(value: Any) -> Any:  # noqa: ANN401
    """The same configuration, in which no folder of one machine is named."""
    if isinstance(value, dict):
        return {key: _named(item) if key == "path" else _portable(item) for key, item in value.items()}
    return [_portable(item) for item in value] if isinstance(value, list) else value


def _named(path: Any) -> Any:  # noqa: ANN401
    there = isinstance(path, str) and (path.startswith("/") or "://" in path)
    return PurePosixPath(path).name if there else _portable(path)
