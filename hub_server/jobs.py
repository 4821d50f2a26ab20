"""What happens at a deadline: retention, and the delivery of notifications.

Deadlines of rows (silence, alerts, invites that expire) are `Presence.tick`'s, which sees them within half a second;
here is what may wait an hour.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
import trio
from sqlalchemy import Connection, delete, func, select, update

from hub_server import supervise
from hub_server.domain.token import RETRY_LIFETIME
from hub_server.notify import Notifier
from hub_server.services.core import Core
from hub_server.store import schema

__all__ = ["clean", "run_jobs"]

log = structlog.get_logger("hub.jobs")

EVERY: Final = 3600.0
SAMPLES_FOR: Final = 2 * 86400.0  # the timeline shows one day
SESSIONS_FOR: Final = 2 * 86400.0
DELIVERIES_FOR: Final = 30 * 86400.0
KUBECONFIGS_FOR: Final = 90 * 86400.0
IDEMPOTENCE_FOR: Final = 86400.0
EVENTS_OF_CLUSTER: Final = 20_000  # an edge that talks all day long makes 14,400 of them


async def run_jobs(core: Core) -> None:
    """Run them until cancelled."""
    notifier = Notifier(core.database, core.envelope, core.now, core.webhooks)
    async with trio.open_nursery() as nursery:
        supervise.start_kept(nursery, "notifications", notifier.run)
        supervise.start_kept(nursery, "retention", _clean_forever, core)


async def _clean_forever(core: Core) -> None:
    while True:
        log.info("cleaned up", **await core.database.write(clean, core.now(), core.settings.events_days * 86400))
        await trio.sleep(EVERY)


def clean(connection: Connection, now: float, events_for: float) -> dict[str, int]:
    """Remove what is kept no longer; returns how many rows of each table. The audit log is not touched."""
    events, samples, sessions = schema.events, schema.status_samples, schema.sessions
    deliveries, tokens, keys = schema.deliveries, schema.kubeconfig_tokens, schema.idempotency_keys
    old: list[tuple[Any, Any]] = [
        (events, events.c.at < now - events_for),
        (samples, samples.c.minute < int((now - SAMPLES_FOR) // 60)),
        (sessions, sessions.c.last_used_at < now - SESSIONS_FOR),
        (deliveries, (deliveries.c.created_at < now - DELIVERIES_FOR) & deliveries.c.next_attempt_at.is_(None)),
        (tokens, tokens.c.expires_at < now - KUBECONFIGS_FOR),
        (keys, keys.c.created_at < now - IDEMPOTENCE_FOR),
    ]
    # A key that was not used within a day is none any more; its tombstone stays.
    peers = schema.peers
    unused = peers.c.is_pending & peers.c.retired_at.is_(None) & (peers.c.created_at < now - RETRY_LIFETIME)
    connection.execute(update(peers).where(unused).values(retired_at=now, psk=b""))
    removed = {table.name: connection.execute(delete(table).where(condition)).rowcount for table, condition in old}
    removed[events.name] += _cut_events(connection)
    return removed


def _cut_events(connection: Connection) -> int:
    """Keep the newest events of each cluster: how many there are is decided by its edge."""
    events = schema.events
    counted = select(events.c.cluster_id).group_by(events.c.cluster_id).having(func.count() > EVENTS_OF_CLUSTER)
    removed = 0
    for cluster_id in connection.execute(counted).scalars().all():
        mine = events.c.cluster_id == cluster_id
        newest = select(events.c.id).where(mine).order_by(events.c.id.desc()).offset(EVENTS_OF_CLUSTER).limit(1)
        last = connection.execute(newest).scalar_one()
        removed += connection.execute(delete(events).where(mine, events.c.id <= last)).rowcount
    return removed
