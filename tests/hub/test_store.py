"""Tables and migrations say the same; a transaction is whole or was never there."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, select

from hub_server.services.core import meta_get, meta_put
from hub_server.store import migrate, schema
from hub_server.store.database import Database, sqlite_url


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(sqlite_url(tmp_path / "hub.db"))
    migrate.upgrade(made)
    return made


def test_the_migrations_lead_to_the_tables(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), schema.metadata))

    assert database.read_here(differences) == []
    database.close()


def test_migrating_again_changes_nothing(database: Database) -> None:
    assert migrate.upgrade(database) == (migrate.newest(), migrate.newest())
    database.close()


async def test_what_raises_was_never_there(database: Database) -> None:
    def work(connection: Connection) -> None:
        meta_put(connection, "half", "done")
        raise LookupError("on purpose")

    with pytest.raises(LookupError):
        await database.write(work)
    assert await database.read(meta_get, "half") is None
    await database.write(meta_put, "whole", "done")
    assert await database.read(meta_get, "whole") == "done"
    database.close()


async def test_sqlite_is_safe_and_enforces_what_belongs_together(database: Database) -> None:
    def pragmas(connection: Connection) -> tuple[object, ...]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return tuple(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names)

    assert await database.read(pragmas) == ("wal", 2, 1)
    assert await database.read(lambda connection: connection.execute(select(schema.clusters)).all()) == []
    database.close()


def test_a_database_of_a_newer_hub_is_named(database: Database) -> None:
    database.write_here(lambda connection: connection.exec_driver_sql("UPDATE alembic_version SET version_num='9999'"))
    with pytest.raises(ValueError, match=f"at schema 9999 and this daalu-hub knows {migrate.newest()} at most"):
        migrate.upgrade(database)
    database.close()
