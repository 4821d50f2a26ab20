"""The way to the database: units of work in worker threads, one writer at a time on SQLite.

A unit of work is a plain function of a `Connection`; it returns values, never rows that are still bound to it. What
`write` returned was committed: an answer sent after it survives `kill -9`. Nothing here runs on trio's thread but the
waiting.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy
import trio
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL, make_url

T = TypeVar("T")
P = ParamSpec("P")

READERS = 8  # threads that read at once


def sqlite_url(path: Path) -> URL:
    """The address of a file."""
    return URL.create("sqlite", database=str(path))


class Database:
    """One engine, a limiter for readers and one for writers.

    Attributes:
        on_commit: called on trio's thread after every transaction that `write` committed.
    """

    def __init__(self, url: str | URL) -> None:
        """Open nothing yet; the first unit of work connects."""
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _engine(self.url, self.is_sqlite)
        self._readers = trio.CapacityLimiter(READERS)
        self._writers = trio.CapacityLimiter(1 if self.is_sqlite else READERS)
        self.on_commit: list[Callable[[], None]] = []

    async def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit of work that only looks."""
        return await trio.to_thread.run_sync(
            lambda: self.read_here(work, *args, **kwargs), limiter=self._readers, abandon_on_cancel=False
        )

    async def write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit of work in one transaction; it is committed when this returns, and undone when it raises.

        A unit that began runs to its end even if the waiting is cancelled: nothing is ever half done.
        """
        result = await trio.to_thread.run_sync(
            lambda: self.write_here(work, *args, **kwargs), limiter=self._writers, abandon_on_cancel=False
        )
        for tell in self.on_commit:
            tell()
        return result

    def read_here(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same on the calling thread, for commands."""
        with self.engine.connect() as connection:
            return work(connection, *args, **kwargs)

    def write_here(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same on the calling thread, for commands."""
        with self._transaction() as connection:
            return work(connection, *args, **kwargs)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        if not self.is_sqlite:
            with self.engine.begin() as connection:
                yield connection
            return
        with self.engine.connect().execution_options(daalu_writes=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def _engine(url: URL, is_sqlite: bool) -> Engine:
    if not is_sqlite:
        return sqlalchemy.create_engine(url, pool_pre_ping=True)
    engine = sqlalchemy.create_engine(
        url, connect_args={"check_same_thread": False, "timeout": 30}, pool_size=READERS + 2, max_overflow=0
    )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlalchemy.engine.interfaces.DBAPIConnection, _: object) -> None:
        # The driver's own idea of transactions begins them too late; `begin` below says what it wants.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("daalu_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
