"""Notifications: an outbox that is filled in the transaction of the event, and emptied channel by channel.

    event -> enqueue -> outbox -> Notifier -> one task per channel that has something due -> webhook

Each delivery is a JSON document, signed, with an id to drop duplicates; order per cluster is kept; tries go on for a
day. One channel delays no other: each has its own queue, bounded, and its own pace after failures; a tenant has a few
deliveries at once. Nothing here ever makes a request wait. Source: product.md section 9.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
import trio
from sqlalchemy import Connection, insert, select, update

from hub_server import supervise
from hub_server.domain.errors import Unavailable
from hub_server.domain.names import new_id
from hub_server.store import schema
from hub_server.store.database import Database
from hub_server.store.envelope import Envelope
from hub_server.webhook import Refused, Unreachable, Webhooks

__all__ = ["KINDS", "Notifier", "enqueue"]

KINDS: Final = (
    "connected", "disconnected", "alert_opened", "alert_resolved", "update_available", "invite_used", "test",
)  # fmt: skip
# A message is given up after a day, if it was tried a few times: the clock may have been set meanwhile.
GIVE_UP_AFTER: Final = 24 * 3600.0
_LEAST_ATTEMPTS: Final = 8
FIRST_WAIT: Final = 5.0
LONGEST_WAIT: Final = 1800.0
MOST_WAITING: Final = 1000  # messages of a channel; beyond it the oldest are given up
PER_TENANT: Final = 4  # deliveries at once
LOOK_EVERY: Final = 5.0

log = structlog.get_logger("hub.notify")


def enqueue(
    connection: Connection,
    *,
    random: Callable[[int], bytes],
    tenant_id: str,
    cluster_id: str | None,
    kind: str,
    at: float,
    content: dict[str, Any],
    only_channel: str | None = None,
) -> list[str]:
    """Put a message into the outbox of every channel that wants it; returns the ids of the deliveries."""
    channels = schema.channels
    wanted = select(channels.c.id, channels.c.kinds).where(
        channels.c.tenant_id == tenant_id, channels.c.deleted_at.is_(None)
    )
    ids = []
    for channel in connection.execute(wanted):
        if (only_channel and channel.id != only_channel) or (
            not only_channel and channel.kinds and kind not in channel.kinds
        ):
            continue
        delivery = new_id("dv", random)
        body = {"id": delivery, "kind": kind, "tenant_id": tenant_id, "cluster_id": cluster_id, "at": at, **content}
        connection.execute(
            insert(schema.deliveries).values(
                id=delivery,
                channel_id=channel.id,
                cluster_id=cluster_id,
                kind=kind,
                body=json.dumps(body, sort_keys=True, ensure_ascii=False),
                created_at=at,
                next_attempt_at=at,
            )
        )
        _give_up_oldest(connection, channel.id)
        ids.append(delivery)
    return ids


def _give_up_oldest(connection: Connection, channel_id: str) -> None:
    """Keep the queue of a channel within its bound."""
    deliveries = schema.deliveries
    waiting = (deliveries.c.channel_id == channel_id) & deliveries.c.next_attempt_at.is_not(None)
    newest_lost = (
        select(deliveries.c.number).where(waiting).order_by(deliveries.c.number.desc()).offset(MOST_WAITING).limit(1)
    )
    if (number := connection.execute(newest_lost).scalar_one_or_none()) is not None:
        given_up = update(deliveries).where(waiting, deliveries.c.number <= number)
        connection.execute(given_up.values(next_attempt_at=None, error=f"given up: {MOST_WAITING} newer ones wait"))


@dataclass(slots=True)
class _Pace:
    """When a channel that does not answer is asked again."""

    failures: int = 0
    until: float = 0.0

    def failed(self) -> None:
        self.until = trio.current_time() + _wait(self.failures)
        self.failures += 1


def _wait(failures: int) -> float:
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures, 12))


class Notifier:
    """Empties the outbox."""

    def __init__(
        self, database: Database, envelope: Envelope, now: Callable[[], float], webhooks: Webhooks | None = None
    ) -> None:
        """Take where the outbox is, and who sends."""
        self._database, self._envelope, self._now = database, envelope, now
        self._webhooks = webhooks or Webhooks()
        self._busy: set[str] = set()
        self._paces: dict[str, _Pace] = {}
        self._tenants: defaultdict[str, trio.CapacityLimiter] = defaultdict(lambda: trio.CapacityLimiter(PER_TENANT))
        # What was tried while the database could not be written: it must not be sent again.
        self._unsettled: dict[str, tuple[Any, float, str | None]] = {}

    async def run(self, *, interval: float = LOOK_EVERY) -> None:
        """Deliver what is due, until cancelled."""
        self._busy.clear()
        async with trio.open_nursery() as nursery:
            while True:
                await self.look(nursery)
                await trio.sleep(interval)

    async def look(self, nursery: trio.Nursery) -> None:
        """Start one task for each channel that has something due and is not at it."""
        await self._settle_late()
        waiting = await self._database.read(_channels_with_due, self._now())
        now = trio.current_time()
        self._paces = {channel: pace for channel, pace in self._paces.items() if channel in waiting}
        for channel_id, (tenant_id, has_test) in waiting.items():
            pace = self._paces.get(channel_id)
            # Somebody who asks for a test wants to know now; how often they may is bounded where they ask.
            is_paused = pace is not None and pace.until > now and not has_test
            if channel_id in self._busy or is_paused:
                continue
            self._busy.add(channel_id)
            supervise.start_once(nursery, "deliveries", self._serve, channel_id, tenant_id, victim=channel_id)

    async def _serve(self, channel_id: str, tenant_id: str) -> None:
        """Deliver what is due to one channel, in order, until it does not answer."""
        try:
            stuck: set[str | None] = set()
            for message in await self._database.read(_due, channel_id, self._now()):
                # An earlier message about the same cluster failed: the later ones wait, to keep the order.
                if message.cluster_id in stuck or message.id in self._unsettled:
                    continue
                async with self._tenants[tenant_id]:
                    error, is_alive = await self._deliver(message)
                await self._settle(message, error)
                if error is not None:
                    stuck.add(message.cluster_id)
                if not is_alive:
                    self._paces.setdefault(channel_id, _Pace()).failed()
                    return
                self._paces.pop(channel_id, None)
        finally:
            self._busy.discard(channel_id)

    async def _deliver(self, message: Any) -> tuple[str | None, bool]:
        """Try one message; what went wrong, and whether the channel answers at all."""
        try:
            secret = self._envelope.open(message.secret, message.channel_id)
            body, at = message.body.encode(), math.floor(self._now())
            await self._webhooks.post(message.url, body, secret=secret, delivery=message.id, timestamp=at)
        except Refused as refused:
            return str(refused), True
        except Unreachable as unreachable:
            return str(unreachable), False
        except ValueError:
            return "its secret cannot be opened: make the channel anew", False
        return None, True

    async def _settle(self, message: Any, error: str | None) -> None:
        at = self._now()
        try:
            await self._database.write(_settle, message, at, error)
        except Unavailable:
            self._unsettled[message.id] = (message, at, error)

    async def _settle_late(self) -> None:
        for delivery, (message, at, error) in list(self._unsettled.items()):
            await self._database.write(_settle, message, at, error)
            del self._unsettled[delivery]


# --- units of work ---------------------------------------------------------------------------------------------------


def _is_due(now: float) -> Any:
    """Due, or put off by a clock that was ahead further than anything is ever put off."""
    at = schema.deliveries.c.next_attempt_at
    return (at <= now) | (at > now + 2 * LONGEST_WAIT)


def _channels_with_due(connection: Connection, now: float) -> dict[str, tuple[str, bool]]:
    """Of each channel that has something due: its tenant, and whether a test message is new among it."""
    deliveries, channels = schema.deliveries, schema.channels
    due = select(deliveries.c.id).where(deliveries.c.channel_id == channels.c.id, _is_due(now))
    is_test = (deliveries.c.kind == "test") & (deliveries.c.attempts == 0)
    found = (
        select(channels.c.id, channels.c.tenant_id, due.where(is_test).exists().label("has_test"))
        .where(channels.c.deleted_at.is_(None))
        .where(due.exists())
    )
    return {row.id: (row.tenant_id, bool(row.has_test)) for row in connection.execute(found)}


def _due(connection: Connection, channel_id: str, now: float) -> list[Any]:
    """What is due to a channel; nothing about a cluster of which an earlier message is put off."""
    deliveries, channels = schema.deliveries, schema.channels
    waiting = (
        select(deliveries, channels.c.url, channels.c.secret, _is_due(now).label("is_due"))
        .join(channels, channels.c.id == deliveries.c.channel_id)
        .where(deliveries.c.channel_id == channel_id, deliveries.c.next_attempt_at.is_not(None))
        .where(channels.c.deleted_at.is_(None))
        .order_by(deliveries.c.number)
        .limit(MOST_WAITING)
    )
    result, blocked = [], set()
    for row in connection.execute(waiting):
        if not row.is_due:
            blocked.add(row.cluster_id)
        elif row.cluster_id not in blocked:
            result.append(row)
    return result


def _settle(connection: Connection, message: Any, now: float, error: str | None) -> None:
    deliveries = schema.deliveries
    attempts = message.attempts + 1
    if error is None:
        values: dict[str, Any] = {"delivered_at": now, "next_attempt_at": None, "error": None}
    elif now - message.created_at >= GIVE_UP_AFTER and attempts >= _LEAST_ATTEMPTS:
        values = {"next_attempt_at": None, "error": f"given up: {error}"[:500]}
        # Those behind it were put off by the same: they are given up with it, once they are as old.
        old = (deliveries.c.channel_id == message.channel_id) & deliveries.c.next_attempt_at.is_not(None)
        old &= deliveries.c.created_at <= now - GIVE_UP_AFTER
        connection.execute(update(deliveries).where(old).values(**values))
    else:
        values = {"next_attempt_at": now + _wait(message.attempts), "error": error[:500]}
    connection.execute(update(deliveries).where(deliveries.c.id == message.id).values(attempts=attempts, **values))
