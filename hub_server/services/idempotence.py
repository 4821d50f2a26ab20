"""Answers that are given again: for a day, by actor and `Idempotency-Key`; sealed, since they may hold a token."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from hub_server.services.core import Core
from hub_server.services.views import Actor
from hub_server.store import schema


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was given."""

    request_hash: bytes
    status: int
    body: bytes


class Idempotence:
    """Answers that are given again."""

    def __init__(self, core: Core) -> None:
        """Stand on the core."""
        self._core = core

    async def find(self, actor: Actor, key: str) -> Kept | None:
        """What was answered under this key."""
        core, table = self._core, schema.idempotency_keys

        def work(connection: Connection) -> Kept | None:
            found = (table.c.actor == actor.id) & (table.c.key == key)
            row = connection.execute(select(table).where(found)).one_or_none()
            if row is None:
                return None
            return Kept(row.request_hash, row.status, core.envelope.open(row.body, f"{actor.id} {key}"))

        return await core.database.read(work)

    async def keep(self, actor: Actor, key: str, request_hash: bytes, status: int, body: bytes) -> None:
        """Remember an answer."""
        core, table = self._core, schema.idempotency_keys
        sealed = core.envelope.seal(body, f"{actor.id} {key}")

        def work(connection: Connection) -> None:
            connection.execute(delete(table).where(table.c.actor == actor.id, table.c.key == key))
            values = {"actor": actor.id, "key": key, "request_hash": request_hash, "status": status, "body": sealed}
            connection.execute(insert(table).values(created_at=core.now(), **values))

        await core.database.write(work)
