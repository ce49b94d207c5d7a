"""Small task models: `create` an untrained one from its configuration, `load` a trained one from a folder.

The kinds are imported when they are used: `linear` needs no transformer library.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.stms.base import AnySpec, Description, Stm, StmError

if TYPE_CHECKING:
    from actors.stms.full import FullModel
    from actors.stms.head import HeadModel
    from actors.stms.linear import LinearModel

__all__ = ["Stm", "StmError", "create", "load"]


def create(spec: AnySpec, labels: Sequence[str], seed: int) -> Stm[Any, Any]:
    """Return the untrained model that `spec` describes, with these classes; all randomness is `seed`'s."""
    return _model_class(spec.kind)(spec, labels, seed)  # type: ignore[arg-type]


def load(folder: Path) -> Stm[Any, Any]:
    """Read a model of any kind that `save_pretrained` wrote; `StmError` when `folder` holds none."""
    return _model_class(Description.read(folder).spec.kind).from_pretrained(folder)


def _model_class(kind: str) -> "type[LinearModel | FullModel | HeadModel]":
    if kind == "linear":
        from actors.stms.linear import LinearModel

        return LinearModel
    if kind == "full":
        from actors.stms.full import FullModel

        return FullModel
    from actors.stms.head import HeadModel

    return HeadModel
