"""Bringing a database to the newest schema, and saying where it stands."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from hub_server.store.database import Database


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    return config


def newest() -> str:
    """The revision that this program wants."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def revision_of(connection: Connection) -> str | None:
    """The revision of a database; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(database: Database) -> tuple[str | None, str]:
    """Bring the database up; returns the revision before and after.

    Raises:
        ValueError: a newer hub made it what it is.
    """

    def work(connection: Connection) -> tuple[str | None, str]:
        before = revision_of(connection)
        known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
        if before is not None and before not in known:
            raise ValueError(
                f"{database.file} is at schema {before} and this daalu-hub knows {newest()} at most: "
                "start the newer daalu-hub that wrote it, or restore the backup from before its update"
            )
        command.upgrade(_config(connection), "head")
        return before, newest()

    return database.write_here(work)
