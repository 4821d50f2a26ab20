"""The hub's services on a real SQLite file, with a clock that is set by hand and a wire that only takes notes."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from sqlalchemy import Connection, event

import wgpy
from edge_agent.contract import Exchange, Token, encode_key
from hub_server.auth.passwords import Passwords
from hub_server.domain.records import PeerFacts, PeerRecord, RealmRecord
from hub_server.domain.roles import Role
from hub_server.services import Services, build
from hub_server.services.core import Core
from hub_server.services.joining import Answer, Joining, Request, parse_request_untrusted
from hub_server.services.live import Live
from hub_server.services.presence import Presence
from hub_server.services.views import Actor, AuditView, ClusterRow, EventView, InviteCreated
from hub_server.settings import Settings
from hub_server.store import migrate
from hub_server.store.database import Database, sqlite_url
from hub_server.store.envelope import Envelope

EMAIL = "admin@localhost"
START = 1_790_000_000.0
HUB_KEY = bytes(range(1, 33))
MASTER = bytes(32)


@dataclass
class Clock:
    """The hub's clock."""

    at: float = START
    was_set: float = 0.0

    def __call__(self) -> float:
        return self.at

    def steady(self) -> float:
        """The clock that nobody sets."""
        return self.at - self.was_set

    def set_by(self, seconds: float) -> None:
        """Set it, while no time passes."""
        self.at += seconds
        self.was_set += seconds

    def forward(self, seconds: float) -> None:
        self.at += seconds


@dataclass
class NotedWire:
    """Who could shake hands now, and whose streams were cut."""

    port: int = 51820
    realms: dict[str, RealmRecord] = field(default_factory=dict)
    peers: dict[str, PeerRecord] = field(default_factory=dict)
    was_cut: list[str] = field(default_factory=list)
    cuts: list[tuple[str, str, bool]] = field(default_factory=list)  # whose, why, of an earlier session only

    def put_realm(self, realm: RealmRecord) -> None:
        self.realms[realm.tenant_id] = realm

    def put_peer(self, peer: PeerRecord) -> None:
        self.peers[peer.cluster_id] = peer

    def drop_peer(self, cluster_id: str) -> None:
        self.peers.pop(cluster_id, None)

    def facts(self, cluster_id: str) -> PeerFacts | None:
        return None

    def cut(self, cluster_id: str, why: str, *, is_restart: bool = False) -> None:
        self.was_cut.append(cluster_id)
        self.cuts.append((cluster_id, why, is_restart))


@dataclass
class Ground:
    """The services, and the first administrator signed in."""

    core: Core
    presence: Presence
    services: Services
    joining: Joining
    clock: Clock
    wire: NotedWire
    password: str
    admin: Actor
    cookie: str
    tenant_id: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    async def make(cls, folder: Path, *, clock: Clock | None = None, password: str = "", **more: Any) -> Ground:
        """Start, or start again: `password` is that of an earlier start in the same folder."""
        clock = clock or Clock()
        folder.mkdir(exist_ok=True)  # noqa: ASYNC240
        database = Database(sqlite_url(folder / "hub.db"))
        migrate.upgrade(database)
        values: dict[str, Any] = {"public_url": "https://hub.example", "wireguard_endpoints": ("hub.example:51820",)}
        wire = NotedWire()
        core = Core(
            database=database,
            envelope=Envelope(MASTER),
            settings=Settings(data=folder, **(values | more)),
            now=clock,
            monotonic=clock.steady,
            live=Live(clock),
            passwords=Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)),
            hub_key=bytes(wgpy.PrivateKey(HUB_KEY).public_key),
            endpoints=("hub.example:51820",),
            wire=wire,
        )
        presence = Presence(core)
        services = build(core, presence)
        password = await services.accounts.ensure_first_administrator() or password
        realms, peers = await presence.load()
        for realm in realms:
            wire.put_realm(realm)
        for peer in peers:
            wire.put_peer(peer)
        signed_in = await services.accounts.sign_in(EMAIL, password, remote="192.0.2.9", user_agent="test")
        [tenant_id, *_] = signed_in.actor.roles
        return cls(
            core, presence, services, Joining(core, presence, HUB_KEY), clock, wire,
            password, signed_in.actor, signed_in.cookie, tenant_id,
        )  # fmt: skip

    # --- people ------------------------------------------------------------------------------------------------------

    async def person(self, role: Role, tenant_id: str | None = None) -> Actor:
        """Somebody new in a tenant, signed in."""
        email = f"{role.value}{next(self._numbers)}@example.com"
        by = await self.reauthenticated()
        made = await self.services.tenants.add_member(by, tenant_id or self.tenant_id, email=email, name="", role=role)
        assert made.password is not None
        return (await self.sign_in(email, made.password)).actor

    async def sign_in(self, email: str, password: str, remote: str = "192.0.2.9") -> Any:
        return await self.services.accounts.sign_in(email, password, remote=remote, user_agent="test")

    async def reauthenticated(self) -> Actor:
        """The administrator, with the roles of now and the password typed a moment ago."""
        signed_in = await self.sign_in(EMAIL, self.password)
        self.admin = signed_in.actor
        return self.admin

    async def other_tenant(self, slug: str = "other") -> str:
        return (await self.services.tenants.create(self.admin, slug=slug, name=slug.title())).id

    # --- clusters ----------------------------------------------------------------------------------------------------

    async def invite(self, name: str = "acme", tenant_id: str | None = None, **more: Any) -> InviteCreated:
        return await self.services.clusters.create(self.admin, tenant_id or self.tenant_id, name=name, **more)

    def request(self, token: str, key: bytes | None = None, **changes: Any) -> Request:
        """What a Job sends; `changes` are made after it was proved."""
        known = Token.parse(token)
        exchange = Exchange(key or bytes(wgpy.PrivateKey.generate()), known.hub_key)
        nonce, now = os.urandom(16), int(self.clock())
        proof = exchange.request_proof(known.id, nonce, now)
        document = {
            "token": token, "pubkey": encode_key(exchange.public_key), "proof": encode_key(proof),
            "nonce": encode_key(nonce), "ts": now, "protocol": 1, "chart_version": "1.0.0", "agent_version": "1.0.0",
            "kube_version": "v1.36.3", "cluster_uid": None,
        }  # fmt: skip
        return parse_request_untrusted(document | changes, has_token=True)

    async def redeem(self, token: str, key: bytes | None = None, remote: str = "192.0.2.1", **changes: Any) -> Answer:
        return await self.joining.redeem(self.request(token, key, **changes), remote)

    async def connected(self, name: str = "acme", tenant_id: str | None = None) -> str:
        """A cluster that joined and was heard; its id."""
        invite = await self.invite(name, tenant_id)
        await self.redeem(invite.token)
        self.presence.handshake_confirmed(invite.cluster_id, "192.0.2.1:4500", self.clock())
        await self.presence.flush()
        return invite.cluster_id

    async def row(self, cluster_id: str) -> ClusterRow:
        return await self.services.clusters.row(self.admin, cluster_id)

    async def events(self, cluster_id: str) -> list[EventView]:
        """Oldest first."""
        return list(reversed((await self.services.clusters.events(self.admin, cluster_id, limit=500)).items))

    async def alerts(self, **more: Any) -> list[Any]:
        await self.presence.flush()
        return list((await self.services.alerts.list(self.admin, self.tenant_id, **more)).items)

    async def audited(self, action: str = "", tenant_id: str | None = None) -> list[AuditView]:
        """Newest first."""
        await self.core.later.flush()
        page = await self.services.audit.list(self.admin, tenant_id or self.tenant_id, action=action, limit=500)
        return list(page.items)

    # --- time --------------------------------------------------------------------------------------------------------

    async def wait(self, seconds: float, *, step: float = 0.5, beat: str | None = None) -> None:
        """Let time pass as the hub sees it; with `beat` that cluster sends one every five seconds."""
        end, last = self.clock() + seconds, self.clock()
        while self.clock() < end:
            self.clock.at = min(end, self.clock() + step)
            if beat is not None and self.clock() - last >= 5:
                last = self.clock()
                self.presence.beat(beat, last, 0.04, None)
            self.presence.tick()
        await self.presence.flush()

    # --- the database ------------------------------------------------------------------------------------------------

    def count(self, table: Any, *conditions: Any) -> int:
        from sqlalchemy import func, select

        def work(connection: Connection) -> int:
            return connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()

        return self.core.database.read_here(work)

    @contextlib.contextmanager
    def statements(self) -> Iterator[list[str]]:
        """What is asked of the database."""
        asked: list[str] = []

        def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            asked.append(statement)

        event.listen(self.core.database.engine, "before_cursor_execute", note)
        try:
            yield asked
        finally:
            event.remove(self.core.database.engine, "before_cursor_execute", note)
