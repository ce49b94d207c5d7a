"""Which outputs of the models' classification heads mean the same."""

from collections.abc import Sequence
from typing import Literal

from actors.merging.checkpoints import Checkpoint
from actors.merging.errors import CheckpointError
from fusion.merging.families import LABELLED, TASK
from fusion.merging.heads import MEANINGLESS, same

How = Literal["names", "positions", "own"]
"""As `heads` of the configuration."""


def labels_of(source: Checkpoint) -> dict[int, str]:
    """The label of each output; nothing for a model without a classification head."""
    rows = [source.headers[f"{head}.weight"][1][0] for head in LABELLED if f"{head}.weight" in source]
    if not rows:
        return {}
    named = {int(number): str(name) for number, name in (source.config.get("id2label") or {}).items()}
    return named or {number: f"LABEL_{number}" for number in range(rows[0])}


def alike(sources: Sequence[Checkpoint], how: How) -> bool:
    """Whether heads are merged as they are. CheckpointError for labels that mean nothing, in several models,
    unless it is said how to take them."""
    maps = {source.name: labels_of(source) for source in sources}
    if how == "own":
        return not any(name.startswith(TASK) for name in sources[0])
    if how == "positions" or not any(maps.values()):
        return len({len(labels) for labels in maps.values()}) == 1
    nameless = [name for name, of in maps.items() if of and all(map(MEANINGLESS.match, of.values()))]
    if len(nameless) > 1:
        raise CheckpointError(
            f"{' and '.join(nameless[:2])} call their labels {maps[nameless[0]][0]} and so on, which may "
            "mean different things: name them (id2label in config.json), or set heads to positions or own"
        )
    try:
        return all(maps.values()) and same(list(maps.values()))
    except ValueError as error:
        raise CheckpointError(str(error)) from None
