"""The way to the database: units of work in worker threads, one writer at a time on SQLite.

A unit of work is a plain function of a `Connection`; it returns values, never rows that are still bound to it. What
`write` returned was committed: an answer sent after it survives `kill -9`. Nothing here runs on trio's thread but the
waiting.

A disk that is full, a file that is locked or may not be written: each such write is refused with `StoreUnavailable`,
while reading goes on; one line a minute says so, `trouble` says it to whoever asks, and the first write that succeeds
ends it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

import sqlalchemy
import structlog
import trio
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hub_server.domain.errors import Unavailable
from hub_server.keyfiles import harden
from hub_server.supervise import DataLost

__all__ = ["READERS", "Database", "StoreUnavailable", "Trouble", "after_commit", "sqlite_url"]

_log = structlog.get_logger("hub.store")

T = TypeVar("T")
P = ParamSpec("P")

READERS: Final = 8  # threads that read at once
# Seconds that another program (a backup, a command of ours) may hold the file before a write is refused.
BUSY: Final = 5.0
# Once a write was refused, others are refused at once; so often, in seconds, one may try whether it is over.
RETRY: Final = 1.0
LINE_EVERY: Final = 60.0

# SQLite's primary result codes that say something about the disk or the file, not about the statement.
_TROUBLES: Final = {
    sqlite3.SQLITE_FULL: ("disk_full", "the disk of the hub's database is full"),
    sqlite3.SQLITE_IOERR: ("disk_error", "the disk of the hub's database does not work"),
    sqlite3.SQLITE_READONLY: ("database_read_only", "the hub's database cannot be written: it is read-only"),
    sqlite3.SQLITE_PERM: ("database_read_only", "the hub may not write its database"),
    sqlite3.SQLITE_BUSY: ("database_locked", "another program holds the hub's database"),
    sqlite3.SQLITE_LOCKED: ("database_locked", "another program holds the hub's database"),
    sqlite3.SQLITE_PROTOCOL: ("database_locked", "another program holds the hub's database"),
    sqlite3.SQLITE_CANTOPEN: ("database_missing", "the hub's database cannot be opened"),
    sqlite3.SQLITE_CORRUPT: ("database_damaged", "the hub's database is damaged: restore a backup"),
    sqlite3.SQLITE_NOTADB: ("database_damaged", "the hub's database is damaged: restore a backup"),
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the database cannot be written, or not even read.

    Attributes:
        code: stable, for programs.
        text: for people.
    """

    code: str
    text: str


class StoreUnavailable(Unavailable):
    """The database cannot do it now; what was asked for did not happen."""

    def __init__(self, trouble: Trouble) -> None:
        """Say why."""
        super().__init__(f"{trouble.text}. Nothing was changed; try again later", code=trouble.code, retry_after=5)
        self.trouble = trouble


def sqlite_url(path: Path) -> URL:
    """The address of a file."""
    return URL.create("sqlite", database=str(path))


def after_commit(connection: Connection, call: Callable[[], None]) -> None:
    """Call something when the transaction of this `write` is committed; never when it is undone. It may not wait."""
    waiting = connection.get_execution_options().get("daalu_commit")
    if waiting is not None:
        waiting.append(call)


class Database:
    """One engine, a limiter for readers and one for writers.

    Attributes:
        trouble: why nothing can be written now; None while all is well.
        on_commit: called on trio's thread after every transaction that `write` committed.
    """

    def __init__(self, url: str | URL) -> None:
        """Open nothing yet; the first unit of work connects."""
        self.url = make_url(url)
        self.file = Path(self.url.database or "")
        self.engine = _engine(self.url)
        self.trouble: Trouble | None = None
        self._readers = trio.CapacityLimiter(READERS)
        self._writer = trio.CapacityLimiter(1)
        self._place: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._tried_at = self._told_at = 0.0
        self._refused = 0
        self.on_commit: list[Callable[[], None]] = []

    async def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit of work that only looks.

        Raises:
            StoreUnavailable: the file cannot be read.
        """
        return await trio.to_thread.run_sync(
            lambda: self.read_here(work, *args, **kwargs), limiter=self._readers, abandon_on_cancel=False
        )

    async def write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit of work in one transaction; it is committed when this returns, and undone when it raises.

        A unit that began runs to its end even if the waiting is cancelled: nothing is ever half done.

        Raises:
            StoreUnavailable: the file cannot be written; nothing was.
        """
        result = await trio.to_thread.run_sync(
            lambda: self.write_here(work, *args, **kwargs), limiter=self._writer, abandon_on_cancel=False
        )
        for tell in self.on_commit:
            tell()
        return result

    def read_here(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same on the calling thread, for commands."""
        try:
            with self.engine.connect() as connection:
                return work(connection, *args, **kwargs)
        except (DBAPIError, PoolTimeout) as problem:
            if (trouble := _trouble(problem)) is None:
                raise
            raise StoreUnavailable(trouble) from problem

    def write_here(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same on the calling thread, for commands."""
        self._refuse_at_once()
        after: list[Callable[[], None]] = []
        options = {"daalu_writes": True, "daalu_commit": after}
        try:
            with self.engine.connect().execution_options(**options) as connection, connection.begin():
                result = work(connection, *args, **kwargs)
        except (DBAPIError, PoolTimeout) as problem:
            if (trouble := _trouble(problem)) is None:
                raise
            self._in_trouble(trouble)
            raise StoreUnavailable(trouble) from problem
        self._is_well()
        for call in after:
            call()
        return result

    def check_place(self) -> None:
        """See that the file that is written is the one that the next start will read.

        Raises:
            DataLost: it was removed or replaced; what is written now goes nowhere.
        """
        try:
            status = os.stat(self.file)
        except FileNotFoundError:
            status = None
        except OSError:
            return  # the folder cannot be looked into just now
        place = None if status is None else (status.st_dev, status.st_ino)
        if self._place is None:
            self._place = place
        elif place != self._place:
            what = "removed" if place is None else "replaced"
            raise DataLost(
                f"the database {self.file} was {what} while the hub ran, so what it writes is lost: "
                "put the right file there and start again"
            )

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    # --- trouble -----------------------------------------------------------------------------------------------------

    def _refuse_at_once(self) -> None:
        """Do not let everybody wait in turn for what has just failed."""
        with self._lock:
            now = time.monotonic()
            if self.trouble is None or now - self._tried_at >= RETRY:
                self._tried_at = now
                return
            self._refused += 1
            trouble = self.trouble
        raise StoreUnavailable(trouble)

    def _in_trouble(self, trouble: Trouble) -> None:
        with self._lock:
            is_new, self.trouble = self.trouble != trouble, trouble
            self._refused += 1
            now = self._tried_at = time.monotonic()
            if not is_new and now - self._told_at < LINE_EVERY:
                return
            refused, self._refused, self._told_at = self._refused, 0, now
        _log.error("the database cannot be written", code=trouble.code, reason=trouble.text, refused=refused)

    def _is_well(self) -> None:
        with self._lock:
            trouble, self.trouble = self.trouble, None
            self._refused = 0
        if trouble is not None:
            _log.info("the database is written again", code=trouble.code)


def _trouble(problem: Exception) -> Trouble | None:
    """What an error says about the disk or the file; None when it is about the statement."""
    if isinstance(problem, PoolTimeout):
        return Trouble("database_busy", "the hub's database does not keep up")
    origin = problem.orig if isinstance(problem, DBAPIError) else None
    code = getattr(origin, "sqlite_errorcode", None)
    if code is None or (code & 0xFF) not in _TROUBLES:
        return None
    name, text = _TROUBLES[code & 0xFF]
    return Trouble(name, text)


def _engine(url: URL) -> Engine:
    engine = sqlalchemy.create_engine(
        url, connect_args={"check_same_thread": False, "timeout": BUSY}, pool_size=READERS + 2, max_overflow=0
    )

    @event.listens_for(engine, "do_connect")
    def _before_connect(*_: object) -> None:
        if url.database:
            harden(Path(url.database))

    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlalchemy.engine.interfaces.DBAPIConnection, _: object) -> None:
        # The driver's own idea of transactions begins them too late; `begin` below says what it wants.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY * 1000:.0f}"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("daalu_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
