"""Small task models: `create` an untrained one from its configuration, `load` a trained one from a folder.

The kinds are imported when they are used: `linear` needs no transformer library.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.stms.base import AnySpec, Description, Stm, StmError

__all__ = ["Stm", "StmError", "create", "load"]


def create(spec: AnySpec, labels: Sequence[str], seed: int, cache: str | None = None) -> Stm[Any, Any]:
    """Return the untrained model that `spec` describes, with these classes; all randomness is `seed`'s.

    `cache` is the folder that `actors.vectors.embed_once` filled, of use to `head` only.
    """
    if spec.kind == "linear":
        from actors.stms.linear import LinearModel

        return LinearModel(spec, labels, seed)
    if spec.kind == "full":
        from actors.stms.full import FullModel

        return FullModel(spec, labels, seed)
    if spec.kind == "span":
        from actors.stms.span import SpanModel

        return SpanModel(spec, labels, seed)
    from actors.stms.head import HeadModel

    return HeadModel(spec, labels, seed, cache)


def load(folder: Path) -> Stm[Any, Any]:
    """Read a model of any kind that `save_pretrained` wrote; `StmError` when `folder` holds none."""
    described = Description.read(folder)
    return type(create(described.spec, described.labels, described.seed)).from_pretrained(folder)
