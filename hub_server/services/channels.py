"""Notification channels: signed webhooks."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from hub_server import audit, notify
from hub_server.domain.errors import Conflict, Invalid, NotFound, TooMany
from hub_server.domain.roles import Right
from hub_server.services.core import Core
from hub_server.services.views import Actor, ChannelView, DeliveryView, NewChannel
from hub_server.store import schema
from hub_server.webhook import check_url

MOST: Final = 20  # channels of a tenant
SHOWN: Final = 50  # deliveries
TEST_EVERY: Final = 10.0  # seconds between two test messages of a channel


class Channels:
    """Notification channels: signed webhooks."""

    def __init__(self, core: Core) -> None:
        """Stand on the core."""
        self._core = core

    async def list(self, actor: Actor, tenant_id: str) -> tuple[ChannelView, ...]:
        """The channels of a tenant."""
        await self._core.permit(actor, tenant_id, Right.MANAGE, "channels.list")
        return await self._core.database.read(_channels, tenant_id)

    async def create(
        self, actor: Actor, tenant_id: str, *, name: str, url: str, kinds: Sequence[str] = ()
    ) -> NewChannel:
        """Add a webhook. Raises Invalid(field name|url|kinds)."""
        core = self._core
        await core.permit(actor, tenant_id, Right.MANAGE, "channel.create")
        name, url = name.strip(), url.strip()
        if not 0 < len(name) <= 100:
            raise Invalid("name", "give the channel a name of at most 100 characters")
        if len(url) > 2000 or (problem := check_url(url)):
            raise Invalid("url", "a URL has at most 2000 characters" if len(url) > 2000 else problem)
        if unknown := [kind for kind in kinds if kind not in notify.KINDS]:
            raise Invalid("kinds", f"no such event: {', '.join(unknown)}")
        if problem := await core.webhooks.check_target(url):
            raise Invalid("url", problem)
        channel_id, secret = core.id("ch"), secrets.token_urlsafe(32)

        def work(connection: Connection) -> ChannelView:
            if len(_channels(connection, tenant_id)) >= MOST:
                raise Conflict(f"a tenant has at most {MOST} channels")
            connection.execute(
                insert(schema.channels).values(
                    id=channel_id,
                    tenant_id=tenant_id,
                    name=name,
                    url=url,
                    kinds=sorted(set(kinds)),
                    secret=core.envelope.seal(secret.encode(), channel_id),
                    created_at=core.now(),
                )
            )
            audit.append(connection, core.entry(actor, tenant_id, "channel.create", target=name))
            return next(view for view in _channels(connection, tenant_id) if view.id == channel_id)

        return NewChannel(await core.database.write(work), secret)

    async def delete(self, actor: Actor, tenant_id: str, channel_id: str) -> None:
        """Remove it."""
        core = self._core
        await core.permit(actor, tenant_id, Right.MANAGE, "channel.delete")

        def work(connection: Connection) -> None:
            channel, deliveries, now = _channel(connection, tenant_id, channel_id), schema.deliveries, core.now()
            table = schema.channels
            # The secret goes at once; what was not delivered yet never is.
            connection.execute(update(table).where(table.c.id == channel_id).values(deleted_at=now, secret=b""))
            waiting = (deliveries.c.channel_id == channel_id) & deliveries.c.next_attempt_at.is_not(None)
            connection.execute(update(deliveries).where(waiting).values(next_attempt_at=None, error="channel removed"))
            audit.append(connection, core.entry(actor, tenant_id, "channel.delete", target=channel.name))

        await core.database.write(work)

    async def send_test(self, actor: Actor, tenant_id: str, channel_id: str) -> DeliveryView:
        """Queue a test message. Raises TooMany: one was sent a moment ago, or is still being tried."""
        core = self._core
        await core.permit(actor, tenant_id, Right.MANAGE, "channel.test")

        def work(connection: Connection) -> DeliveryView:
            _channel(connection, tenant_id, channel_id)
            _limit_tests(connection, channel_id, core.now())
            notify.enqueue(
                connection,
                random=core.random,
                tenant_id=tenant_id,
                cluster_id=None,
                kind="test",
                at=core.now(),
                content={"event": "test", "detail": f"sent by {actor.email or actor.name}"},
                only_channel=channel_id,
            )
            audit.append(connection, core.entry(actor, tenant_id, "channel.test", target=channel_id))
            return _deliveries(connection, channel_id, 1)[0]

        return await core.database.write(work)

    async def deliveries(self, actor: Actor, tenant_id: str, channel_id: str) -> tuple[DeliveryView, ...]:
        """The last deliveries, newest first."""
        await self._core.permit(actor, tenant_id, Right.MANAGE, "channels.list")

        def work(connection: Connection) -> tuple[DeliveryView, ...]:
            _channel(connection, tenant_id, channel_id)
            return _deliveries(connection, channel_id, SHOWN)

        return await self._core.database.read(work)


# --- units of work ---------------------------------------------------------------------------------------------------


def _channels(connection: Connection, tenant_id: str) -> tuple[ChannelView, ...]:
    table = schema.channels
    query = select(table).where(table.c.tenant_id == tenant_id, table.c.deleted_at.is_(None)).order_by(table.c.name)
    return tuple(_view(connection, row) for row in connection.execute(query).all())


def _channel(connection: Connection, tenant_id: str, channel_id: str) -> Any:
    table = schema.channels
    found = (table.c.id == channel_id) & (table.c.tenant_id == tenant_id) & table.c.deleted_at.is_(None)
    row = connection.execute(select(table).where(found)).one_or_none()
    if row is None:
        raise NotFound()
    return row


def _limit_tests(connection: Connection, channel_id: str, now: float) -> None:
    """Let a test message pass now and then; it takes the place of one that failed."""
    table = schema.deliveries
    tests = (table.c.channel_id == channel_id) & (table.c.kind == "test")
    last = connection.execute(select(table).where(tests).order_by(table.c.number.desc()).limit(1)).one_or_none()
    if last is None:
        return
    if last.next_attempt_at is not None and last.attempts == 0:
        raise TooMany("the last test message was not sent yet: see its result first", retry_after=TEST_EVERY)
    if 0 <= now - last.created_at < TEST_EVERY:
        raise TooMany(f"one test message every {TEST_EVERY:g} s", retry_after=TEST_EVERY - (now - last.created_at))
    given_up = update(table).where(tests, table.c.next_attempt_at.is_not(None))
    connection.execute(given_up.values(next_attempt_at=None, error="given up: a newer test message was sent"))


def _view(connection: Connection, row: Any) -> ChannelView:
    last = next(iter(_deliveries(connection, row.id, 1)), None)
    return ChannelView(
        id=row.id,
        name=row.name,
        url=row.url,
        kinds=tuple(row.kinds),
        created_at=row.created_at,
        last_delivery_at=last.delivered_at if last is not None else None,
        last_error=last.error if last is not None else None,
    )


def _deliveries(connection: Connection, channel_id: str, limit: int) -> tuple[DeliveryView, ...]:
    table = schema.deliveries
    query = select(table).where(table.c.channel_id == channel_id).order_by(table.c.number.desc()).limit(limit)
    return tuple(
        DeliveryView(
            id=row.id,
            kind=row.kind,
            created_at=row.created_at,
            attempts=row.attempts,
            delivered_at=row.delivered_at,
            next_attempt_at=row.next_attempt_at,
            error=row.error,
        )
        for row in connection.execute(query)
    )
