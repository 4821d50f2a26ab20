"""What was asked under an `Idempotency-Key`: carried out once, and answered again for a day to the same caller.

A key is reserved in the database before anything is done, so of many requests at once one acts and the others are told
so. A reservation whose request broke off with the process stays: nobody knows whether it was carried out. With the
answer, which is sealed since it may hold a token, stands what it was permitted by: a repeat must be permitted it too.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from hub_server.domain import foreign
from hub_server.domain.errors import Conflict
from hub_server.services.core import Core, Passed
from hub_server.services.views import Actor
from hub_server.store import schema

_RESERVED = 0  # in place of an answer's status


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was given."""

    status: int
    body: bytes
    passed: tuple[Passed, ...]


class Idempotence:
    """What was asked under an `Idempotency-Key`."""

    def __init__(self, core: Core) -> None:
        """Stand on the core."""
        self._core = core
        self._at_work: set[tuple[str, str]] = set()

    async def begin(self, actor: Actor, key: str, request_hash: bytes) -> Kept | None:
        """Reserve a key for a request: None means go on, and `finish` or `forget` it; else what was answered.

        Raises:
            Conflict: the key was used for another request, its request is being carried out, or broke off.
            HubError: the actor has lost the right to what was answered.
        """
        core = self._core
        row = await core.database.write(_reserve, actor.id, key, request_hash, core.now())
        if row is None:
            self._at_work.add((actor.id, key))
            return None
        if not hmac.compare_digest(row.request_hash, request_hash):
            raise Conflict("this Idempotency-Key was used for another request", code="idempotency_mismatch")
        if row.status == _RESERVED and (actor.id, key) in self._at_work:
            raise Conflict(
                "a request with this Idempotency-Key is being carried out: ask again for its answer",
                code="idempotency_in_progress",
            )
        if row.status == _RESERVED:
            raise Conflict(
                "the request with this Idempotency-Key broke off: look whether it was done, then use another key",
                code="idempotency_unknown",
            )
        kept = _opened(row.status, core.envelope.open(row.body, f"{actor.id} {key}"))
        for passed in kept.passed:
            await core.permit_again(actor, passed)
        return kept

    async def finish(self, actor: Actor, key: str, status: int, body: bytes, passed: Sequence[Passed]) -> None:
        """Remember the answer."""
        core = self._core
        content = json.dumps({"body": base64.b64encode(body).decode(), "passed": passed}).encode()
        sealed = core.envelope.seal(content, f"{actor.id} {key}")
        await core.database.write(_keep, actor.id, key, status, sealed)
        self._at_work.discard((actor.id, key))

    async def forget(self, actor: Actor, key: str) -> None:
        """Nothing was done: the key may be used again."""
        await self._core.database.write(_forget, actor.id, key)
        self._at_work.discard((actor.id, key))

    def broke_off(self, actor: Actor, key: str) -> None:
        """What was done is not known: the reservation stays, and says so."""
        self._at_work.discard((actor.id, key))


def _opened(status: int, content: bytes) -> Kept:
    document = foreign.decode_json(content, 2**26)
    return Kept(status, base64.b64decode(document["body"]), tuple(Passed(*one) for one in document["passed"]))


# --- units of work ---------------------------------------------------------------------------------------------------


def _mine(actor_id: str, key: str) -> Any:
    table = schema.idempotency_keys
    return (table.c.actor == actor_id) & (table.c.key == key)


def _reserve(connection: Connection, actor_id: str, key: str, request_hash: bytes, now: float) -> Any:
    """Insert a reservation, and return None; else the row that is there."""
    table = schema.idempotency_keys
    values = {"actor": actor_id, "key": key, "request_hash": request_hash, "status": _RESERVED, "body": b""}
    try:
        with connection.begin_nested():
            connection.execute(insert(table).values(created_at=now, **values))
    except IntegrityError:
        return connection.execute(select(table).where(_mine(actor_id, key))).one()
    return None


def _keep(connection: Connection, actor_id: str, key: str, status: int, sealed: bytes) -> None:
    table = schema.idempotency_keys
    connection.execute(update(table).where(_mine(actor_id, key)).values(status=status, body=sealed))


def _forget(connection: Connection, actor_id: str, key: str) -> None:
    connection.execute(delete(schema.idempotency_keys).where(_mine(actor_id, key)))
