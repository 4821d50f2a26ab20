"""What matters, in the log: acts of people and changes of state, one line of info each, once they are committed.

The audit and the events say it; here is only how it is told, with their codes. Reading is not told, and what strangers
can cause as often as they like (refusals) is bounded: a few lines a minute, then their number. Entries hold names, ids
and counts, never a secret; so do these lines.
"""

from __future__ import annotations

import time
from typing import Any, Final

import structlog
from sqlalchemy import Connection

from hub_server.store.database import after_commit

__all__ = ["tell"]

_log = structlog.get_logger("hub.acts")

# Looks, of which there are many: requests through the tunnel, lines of the panel, lists.
_QUIET: Final = ("kubectl.", "panel.", ".list")
_REFUSALS_A_MINUTE: Final = 20


class _Minute:
    """How many refusals were told since when, and how many were not."""

    began = 0.0
    told = 0
    untold = 0


_minute = _Minute()


def tell(connection: Connection, code: str, *, result: str = "ok", **facts: Any) -> None:
    """Log an act or a change when the transaction is committed.

    Args:
        connection: of the transaction that records it.
        code: of the audit's action or the event's kind.
        result: of the audit; other than `ok`, it was refused.
        facts: who, what, where; empty ones are left out.
    """
    if code.startswith(_QUIET[:2]) or code.endswith(_QUIET[2]):
        return
    words = {name: value for name, value in facts.items() if value not in (None, "")}
    after_commit(connection, lambda: _say(code, result, words))


def _say(code: str, result: str, words: dict[str, Any]) -> None:
    if result == "ok":
        _log.info(code, **words)
        return
    now = time.monotonic()
    if now - _minute.began >= 60:
        if _minute.untold:
            _log.info("refused", more=_minute.untold)
        _minute.began, _minute.told, _minute.untold = now, 0, 0
    if _minute.told >= _REFUSALS_A_MINUTE:
        _minute.untold += 1
        return
    _minute.told += 1
    _log.info(code, result=result, **words)
