"""What all services share: the database, the clock, who may do what, and the audit of refusals."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import trio
from sqlalchemy import Connection, insert, select

from hub_server import acts, audit, notify
from hub_server.auth.passwords import Passwords
from hub_server.domain import alerts
from hub_server.domain.errors import Forbidden, NotFound, ReauthRequired
from hub_server.domain.names import new_id
from hub_server.domain.records import PeerFacts, PeerRecord, RealmRecord
from hub_server.domain.roles import Right
from hub_server.grounds import Ground, Grounds
from hub_server.services import standing
from hub_server.services.later import Later
from hub_server.services.live import Live
from hub_server.services.views import Actor
from hub_server.settings import Settings
from hub_server.store import schema
from hub_server.store.database import Database
from hub_server.store.envelope import Envelope
from hub_server.webhook import Webhooks

REAUTH_LIFETIME = 300.0  # seconds that a typed password is good for


class Wire(Protocol):
    """What services need of the wire; `hub_server.wire.Wire` is it."""

    port: int

    def put_realm(self, realm: RealmRecord) -> None:
        """Add or replace a realm."""

    def put_peer(self, peer: PeerRecord) -> None:
        """Add or replace a peer."""

    def drop_peer(self, cluster_id: str) -> None:
        """Forget a peer: its handshakes are not answered any more."""

    def put_probe(self, public_key: bytes) -> bool:
        """Let a key shake hands, and nothing more; False for one that is known already."""
        ...

    def drop_probe(self, public_key: bytes) -> None:
        """Forget such a key."""

    def facts(self, cluster_id: str) -> PeerFacts | None:
        """What is known of a peer."""

    def cut(self, cluster_id: str, why: str, *, is_restart: bool = False) -> None:
        """End its live streams; `is_restart`: those of an earlier session only."""


class Passed(NamedTuple):
    """One question of authority that was answered with yes; `tenant_id` is None for a right of the whole hub."""

    tenant_id: str | None
    right: str
    action: str
    cluster_id: str | None
    reauth: bool


_passed: ContextVar[list[Passed] | None] = ContextVar("passed", default=None)


@contextmanager
def noting_rights() -> Iterator[list[Passed]]:
    """Collect what this task is permitted, so that a repeat of what it does can be judged by the same questions."""
    noted: list[Passed] = []
    token = _passed.set(noted)
    try:
        yield noted
    finally:
        _passed.reset(token)


@dataclass(slots=True)
class Core:
    """The ground that services stand on. `wire` is None until it is open, and in tests of pages."""

    database: Database
    envelope: Envelope
    settings: Settings
    now: Callable[[], float]
    live: Live
    passwords: Passwords
    hub_key: bytes  # WireGuard public key
    endpoints: tuple[str, ...]
    ca_pem: str | None = None
    wire: Wire | None = None
    config_changed: Callable[[str], None] = lambda _cluster_id: None  # tells an edge that is connected
    monotonic: Callable[[], float] = trio.current_time  # for durations: setting the hub's clock does not move it
    random: Callable[[int], bytes] = field(default=secrets.token_bytes)
    grounds: Grounds = field(init=False)  # what open streams stand on
    later: Later = field(init=False)
    webhooks: Webhooks = field(init=False)

    def __post_init__(self) -> None:
        """Let whatever is committed be looked at: it may have taken a stream's ground away."""
        self.grounds = Grounds(self._lost)
        self.database.on_commit.append(self.grounds.look_soon)
        self.later = Later(self.database)
        self.webhooks = Webhooks(self.settings.webhook_allow)

    async def _lost(self, grounds: Collection[Ground]) -> Mapping[Ground, str]:
        return await self.database.read(standing.lost, grounds, self.now(), self.settings)

    def id(self, prefix: str) -> str:
        """Make an id."""
        return new_id(prefix, self.random)

    def entry(
        self,
        actor: Actor,
        tenant_id: str,
        action: str,
        *,
        result: str = "ok",
        cluster_id: str | None = None,
        target: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> audit.Entry:
        """An audit entry about an actor's act."""
        return audit.Entry(
            chain=tenant_id,
            at=self.now(),
            actor=actor.email or actor.id,
            action=action,
            result=result,
            cluster_id=cluster_id,
            target=target,
            remote=actor.remote,
            request_id=actor.request_id,
            detail=detail or {},
        )

    async def permit(
        self,
        actor: Actor,
        tenant_id: str | None,
        right: Right,
        action: str,
        *,
        cluster_id: str | None = None,
        reauth: bool = False,
    ) -> None:
        """Let the actor pass, or audit the refusal and raise it.

        Raises:
            NotFound: the tenant does not exist, or the actor is no member: both read alike.
            Forbidden: the role, or the token's scopes, do not allow it.
            ReauthRequired: the password must be typed again.
        """
        if tenant_id is None or tenant_id not in actor.roles:
            chain = tenant_id or audit.HUB_CHAIN
            self.later.append(self.entry(actor, chain, action, result="not_found", cluster_id=cluster_id))
            raise NotFound()
        if not actor.may(tenant_id, right):
            self.later.append(self.entry(actor, tenant_id, action, result="forbidden", cluster_id=cluster_id))
            whose = "your role in this tenant does" if actor.kind == "user" else "the scopes of this token do"
            raise Forbidden(f"{whose} not allow that")
        self._pass(actor, Passed(tenant_id, right.value, action, cluster_id, reauth))

    async def permit_hub(self, actor: Actor, action: str, *, reauth: bool = False) -> None:
        """The same for what concerns the whole hub: its administrators alone.

        Raises:
            Forbidden: the actor is none.
            ReauthRequired: the password must be typed again.
        """
        if not actor.hub_admin:
            self.later.append(self.entry(actor, audit.HUB_CHAIN, action, result="forbidden"))
            raise Forbidden("only an administrator of the hub does that")
        self._pass(actor, Passed(None, "hub", action, None, reauth))

    async def permit_again(self, actor: Actor, passed: Passed) -> None:
        """Ask a question of authority once more."""
        if passed.tenant_id is None:
            await self.permit_hub(actor, passed.action, reauth=passed.reauth)
        else:
            await self.permit(
                actor,
                passed.tenant_id,
                Right(passed.right),
                passed.action,
                cluster_id=passed.cluster_id,
                reauth=passed.reauth,
            )

    def _pass(self, actor: Actor, passed: Passed) -> None:
        if passed.reauth and actor.kind == "user" and not self.is_reauthenticated(actor):
            raise ReauthRequired()
        if (noted := _passed.get()) is not None:
            noted.append(passed)

    def is_reauthenticated(self, actor: Actor) -> bool:
        """Whether the actor typed the password within five minutes."""
        at = actor.reauthenticated_at
        return at is not None and abs(self.now() - at) <= REAUTH_LIFETIME  # a clock set back prolongs nothing

    async def tenant_of(self, cluster_id: str) -> str | None:
        """The tenant of a live cluster."""
        return await self.database.read(_tenant_of, cluster_id)


def _tenant_of(connection: Connection, cluster_id: str) -> str | None:
    table = schema.clusters
    found = select(table.c.tenant_id).where(table.c.id == cluster_id, table.c.deleted_at.is_(None))
    return connection.execute(found).scalar_one_or_none()


# Which events a channel hears of, and by which name.
_NOTIFIED = {
    "tunnel.connected": "connected",
    "tunnel.restored": "connected",
    "tunnel.disconnected": "disconnected",
    "edge.goodbye": "disconnected",
    "alert.opened": "alert_opened",
    "alert.resolved": "alert_resolved",
    "update.available": "update_available",
    "invite.misused": "invite_used",
}


def add_event(
    connection: Connection,
    *,
    tenant_id: str,
    cluster_id: str | None,
    kind: str,
    at: float,
    reason: str | None = None,
    detail: str = "",
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> None:
    """Add an event, and a message for every channel that wants to hear of it."""
    connection.execute(
        insert(schema.events).values(
            tenant_id=tenant_id, cluster_id=cluster_id, kind=kind, reason=reason, detail=detail, at=at
        )
    )
    acts.tell(connection, kind, tenant=tenant_id, cluster=cluster_id, reason=reason, detail=detail)
    if (notified := _NOTIFIED.get(kind)) is not None:
        name = select(schema.clusters.c.name).where(schema.clusters.c.id == cluster_id)
        content = {"event": kind, "reason": reason, "detail": detail}
        content["cluster"] = connection.execute(name).scalar_one_or_none()
        notify.enqueue(
            connection,
            random=random,
            tenant_id=tenant_id,
            cluster_id=cluster_id,
            kind=notified,
            at=at,
            content=content,
        )


def open_alert(
    connection: Connection,
    *,
    alert_id: str,
    tenant_id: str,
    cluster_id: str,
    kind: alerts.Kind,
    at: float,
    detail: str,
    down_since: float | None = None,
) -> bool:
    """Open an alert unless one of this kind is open for the cluster; says whether it did."""
    table = schema.alerts
    is_open = select(table.c.id).where(
        table.c.cluster_id == cluster_id, table.c.kind == kind.value, table.c.resolved_at.is_(None)
    )
    if connection.execute(is_open).first() is not None:
        return False
    connection.execute(
        insert(table).values(
            id=alert_id,
            tenant_id=tenant_id,
            cluster_id=cluster_id,
            kind=kind.value,
            severity="critical",
            detail=detail,
            opened_at=at,
            down_since=down_since,
        )
    )
    add_event(
        connection,
        tenant_id=tenant_id,
        cluster_id=cluster_id,
        kind="alert.opened",
        at=at,
        reason=kind.value,
        detail=detail,
    )
    return True


def meta_get(connection: Connection, key: str) -> str | None:
    """Read what the hub remembers about itself."""
    return connection.execute(select(schema.meta.c.value).where(schema.meta.c.key == key)).scalar_one_or_none()


def meta_put(connection: Connection, key: str, value: str) -> None:
    """Remember something about the hub itself."""
    changed = connection.execute(schema.meta.update().where(schema.meta.c.key == key).values(value=value))
    if changed.rowcount == 0:
        connection.execute(insert(schema.meta).values(key=key, value=value))
