"""Writes that can wait: when something was used last, and audit entries of what changed nothing (refusals, requests).

They never stand in the way of a request: they are kept in memory, bounded, and written by one task, many in one
transaction. While the database cannot be written they wait; what is asked meanwhile about a last use sees them.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import structlog
import trio
from sqlalchemy import Connection, Table, update

from hub_server import audit, supervise
from hub_server.domain.errors import Unavailable
from hub_server.store.database import Database

__all__ = ["Later"]

log = structlog.get_logger("hub.later")

TOUCH_EVERY: Final = 60.0  # a last use is written so often, not with every request
_GATHER: Final = 0.25
_RETRY: Final = 2.0
_MOST_ENTRIES: Final = 50_000
_MOST_TOUCHES: Final = 100_000
_AT_ONCE: Final = 1000


class Later:
    """What waits for the database."""

    def __init__(self, database: Database) -> None:
        """Nothing waits."""
        self._database = database
        self._entries: deque[audit.Entry] = deque()
        self._touches: dict[tuple[Table, str], float] = {}
        self._wake = trio.Event()
        self.lost = 0  # entries for which there was no room

    def append(self, entry: audit.Entry) -> None:
        """Add an entry to the audit log, soon."""
        if len(self._entries) >= _MOST_ENTRIES:
            self.lost += 1
            return
        self._entries.append(entry)
        self._wake.set()

    def last_use(self, table: Table, row_id: str, stored: float | None) -> float:
        """When a row was used last: `stored` is what it says itself, which may be behind."""
        return max(stored or 0.0, self._touches.get((table, row_id), 0.0))

    def touch(self, table: Table, row_id: str, stored: float | None, now: float) -> None:
        """Note that a row of a table with the columns `id` and `last_used_at` was used now."""
        key = (table, row_id)
        # A last use in the future was written by a clock that was set back since.
        is_recent = 0 <= now - self.last_use(table, row_id, stored) <= TOUCH_EVERY
        if not is_recent and (key in self._touches or len(self._touches) < _MOST_TOUCHES):
            self._touches[key] = now
            self._wake.set()

    async def run(self) -> None:
        """Write what waits, until cancelled; the rest on the way out."""
        try:
            while True:
                await self._wake.wait()
                await trio.sleep(_GATHER)
                try:
                    await self.flush()
                except Unavailable:
                    await trio.sleep(_RETRY)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(5), supervise.confined("what waits, at the end"):
                await self.flush()

    async def flush(self) -> None:
        """Write all that waits now.

        Raises:
            Unavailable: the database cannot be written; it goes on waiting.
        """
        self._wake = trio.Event()
        while self._entries or self._touches:
            entries = [self._entries.popleft() for _ in range(min(_AT_ONCE, len(self._entries)))]
            touches, self._touches = self._touches, {}
            try:
                await self._database.write(_write, entries, touches)
            except Unavailable:
                self._put_back(entries, touches)
                raise
            except Exception:
                # One of them cannot be written, ever: the others shall not wait behind it.
                await self._one_by_one(entries, touches)
        if self.lost:
            log.error("audit entries were lost, there was no room for them", lost=self.lost)
            self.lost = 0

    def _put_back(self, entries: list[audit.Entry], touches: dict[tuple[Table, str], float]) -> None:
        self._entries.extendleft(reversed(entries))
        self._touches = touches | self._touches
        self._wake.set()

    async def _one_by_one(self, entries: list[audit.Entry], touches: dict[tuple[Table, str], float]) -> None:
        for at, entry in enumerate(entries):
            try:
                await self._database.write(_write, [entry], {})
            except Unavailable:
                self._put_back(entries[at:], touches)
                raise
            except Exception as problem:
                supervise.failed("audit entry", entry.chain, problem)
        with supervise.confined("last uses"):
            await self._database.write(_write, [], touches)


def _write(connection: Connection, entries: list[audit.Entry], touches: dict[tuple[Table, str], float]) -> None:
    for entry in entries:
        audit.append(connection, entry)
    for (table, row_id), at in touches.items():
        columns: Any = table.c
        connection.execute(update(table).where(columns.id == row_id).values(last_used_at=at))
