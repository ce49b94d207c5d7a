"""What a person writes: the pydantic schema of every job and the YAML files that ship."""

__version__ = "0.1.0"
