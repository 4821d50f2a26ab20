"""One JSON object per line on standard error; configured once, by `cli`.

`structlog` and `logging` write the same lines, so that libraries and the hub read alike. Nothing here knows a secret,
and nobody hands it one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import structlog

__all__ = ["about_request", "configure", "present_request"]

_request: ContextVar[str] = ContextVar("request", default="")


@contextmanager
def about_request(request_id: str) -> Iterator[None]:
    """What is logged in the block, by whomever, carries the id of this request."""
    before = _request.set(request_id)
    try:
        yield
    finally:
        _request.reset(before)


def present_request() -> str:
    """The id of the request that is being served; empty outside of one."""
    return _request.get()


def _add_request(_: object, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if request_id := _request.get():
        line.setdefault("request", request_id)
    return line


_SHARED: list[structlog.typing.Processor] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    _add_request,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    structlog.processors.format_exc_info,
]


def configure(level: str) -> None:
    """Print what is at least this important."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Libraries that tell about every request or connection.
    for chatty in ("httpx", "httpcore", "alembic", "python_multipart"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
