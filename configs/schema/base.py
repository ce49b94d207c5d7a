"""What all configuration models share: unknown keys are refused and values cannot change after loading."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

RESOURCE: Final[dict[str, Any]] = {"resource": True}
"""`Field(json_schema_extra=RESOURCE)` marks what a run may use, not what it is: it can change on resume."""
LATER: Final[dict[str, Any]] = {"later": True}
"""Marks what came after the first runs: at its default it is no part of what a run is, so that they go on."""


class ConfigError(Exception):
    """A configuration that cannot be used; the message is one line: file, key, problem, what is allowed."""


class Strict(BaseModel):
    """Base of all configuration models."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )


def identity(value: Any) -> Any:  # noqa: ANN401
    """JSON form of a configuration without the fields marked as resources, which cannot change results."""
    if isinstance(value, BaseModel):
        fields = {name: (getattr(value, name), field) for name, field in type(value).model_fields.items()}
        return {name: identity(mine) for name, (mine, field) in fields.items() if _counts(mine, field)}
    if isinstance(value, tuple | list):
        return [identity(item) for item in value]
    if isinstance(value, dict):
        return {key: identity(item) for key, item in value.items()}
    return value


def _counts(value: object, field: FieldInfo) -> bool:
    """Whether a field is part of what a configuration is."""
    extra = field.json_schema_extra
    marks = extra if isinstance(extra, dict) else {}
    return not marks.get("resource") and not (marks.get("later") and value == field.default)
