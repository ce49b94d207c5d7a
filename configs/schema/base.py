"""What all configuration models share: unknown keys are refused and values cannot change after loading."""

from pydantic import BaseModel, ConfigDict


class ConfigError(Exception):
    """A configuration that cannot be used; the message is one line: file, key, problem, what is allowed."""


class Strict(BaseModel):
    """Base of all configuration models."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)
