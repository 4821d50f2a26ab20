"""Ways in which a database cannot be written: a full disk, a file that is read-only, another program that holds it."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from hub_server.store import database as module
from hub_server.store.database import Database


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int = 8) -> Iterator[Path]:
    """A file system of its own; needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Leave no octet of a small disk free."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def read_only(database: Database) -> Iterator[None]:
    """SQLite says SQLITE_READONLY to every write."""

    def forbid(connection: Any, *_: Any) -> None:
        connection.execute("PRAGMA query_only=ON")

    event.listen(database.engine, "checkout", forbid)
    try:
        yield
    finally:
        event.remove(database.engine, "checkout", forbid)
        database.engine.dispose()


@contextlib.contextmanager
def locked(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another program is in the middle of a transaction, for longer than the hub waits."""
    monkeypatch.setattr(module, "BUSY", 0.05)
    database.engine.dispose()
    other = sqlite3.connect(database.file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()
