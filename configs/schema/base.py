"""What all configuration models share: unknown keys are refused and values cannot change after loading."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

RESOURCE: Final[dict[str, Any]] = {"resource": True}
"""`Field(json_schema_extra=RESOURCE)` marks what a run may use, not what it is: it can change on resume."""


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
        fields = type(value).model_fields.items()
        return {name: identity(getattr(value, name)) for name, field in fields if not _is_resource(field)}
    if isinstance(value, tuple | list):
        return [identity(item) for item in value]
    if isinstance(value, dict):
        return {key: identity(item) for key, item in value.items()}
    return value


def _is_resource(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("resource"))
