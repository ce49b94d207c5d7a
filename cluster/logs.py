"""Logs as lines of JSON, for whatever collects them: `time`, `level`, `event`, and facts that never hold
texts."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any


class JsonLines(logging.Formatter):
    """One JSON object per record; what is logged with `extra={"facts": {…}}` becomes its keys."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        return json.dumps(line, ensure_ascii=False)


def logger(name: str) -> logging.Logger:
    """A logger that writes to this process's standard error, which Ray keeps beside its own logs."""
    found = logging.getLogger(f"amalgam.{name}")
    if not found.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines())
        found.addHandler(handler)
        found.setLevel(logging.INFO)
        found.propagate = False
    return found
