"""One JSON object per line on standard error; configured once, by `cli`.

Nothing here knows a secret, and nobody hands it one: tokens and keys are values whose repr hides them.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys

__all__ = ["configure", "format_record"]


def format_record(record: logging.LogRecord) -> str:
    """The line of a record."""
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    line = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    if record.exc_info:
        line["exception"] = logging.Formatter().formatException(record.exc_info)
    return json.dumps(line, ensure_ascii=False)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return format_record(record)


def configure(level: str) -> None:
    """Print what is at least this important."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
