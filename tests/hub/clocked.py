"""A hub without sockets, by a clock that the test sets: services, API and bootstrap over a database in a folder."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from argon2 import PasswordHasher

import wgpy
from edge_agent.contract import Exchange, Token
from hub_server.app import open_store, site
from hub_server.auth.passwords import Passwords
from hub_server.domain.records import PeerFacts, PeerRecord, RealmRecord
from hub_server.domain.roles import RIGHTS, Role
from hub_server.keyfiles import ensure_secret
from hub_server.services import Services, build
from hub_server.services.core import Core
from hub_server.services.joining import Joining
from hub_server.services.live import Live
from hub_server.services.presence import Presence
from hub_server.services.views import Actor, ClusterRow, InviteCreated
from hub_server.settings import Settings

START = 1_750_000_000.0
URL = "https://hub.example"
REMOTE = "198.51.100.7:40000"


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> float:
        return self.at


@dataclass
class Cable:
    """A wire that only remembers what it was told."""

    port: int = 51820
    realms: dict[str, RealmRecord] = field(default_factory=dict)
    peers: dict[str, PeerRecord] = field(default_factory=dict)
    was_cut: list[str] = field(default_factory=list)
    cuts: list[tuple[str, str, bool]] = field(default_factory=list)  # whose, why, of an earlier session only
    known: dict[str, PeerFacts] = field(default_factory=dict)

    def put_realm(self, realm: RealmRecord) -> None:
        self.realms[realm.tenant_id] = realm

    def put_peer(self, peer: PeerRecord) -> None:
        self.peers[peer.cluster_id] = peer

    def drop_peer(self, cluster_id: str) -> None:
        self.peers.pop(cluster_id, None)

    def facts(self, cluster_id: str) -> PeerFacts | None:
        return self.known.get(cluster_id)

    def cut(self, cluster_id: str, why: str, *, is_restart: bool = False) -> None:
        self.was_cut.append(cluster_id)
        self.cuts.append((cluster_id, why, is_restart))


class Key:
    """An edge's key, and the requests that it makes."""

    def __init__(self, hub_key: bytes) -> None:
        self.exchange = Exchange(bytes(wgpy.PrivateKey.generate()), hub_key)

    def asks(self, token: str, ts: float, **more: Any) -> dict[str, Any]:
        """The document of a bootstrap request."""
        nonce = more.pop("nonce", None) or os.urandom(16)
        proof = self.exchange.request_proof(Token.parse(token).id, nonce, int(ts))
        document = {
            "token": token, "pubkey": _text(self.exchange.public_key), "proof": _text(proof), "nonce": _text(nonce),
            "ts": int(ts), "protocol": 1, "chart_version": "1.0.0", "agent_version": "1.0.0", "kube_version": "v1.36.3",
            "cluster_uid": None,
        }  # fmt: skip
        return document | more

    def asks_for_itself(self, ts: float, **more: Any) -> dict[str, Any]:
        """The document of a question about oneself."""
        nonce = os.urandom(16)
        proof = self.exchange.self_proof(nonce, int(ts))
        own = {"pubkey": _text(self.exchange.public_key), "proof": _text(proof), "nonce": _text(nonce), "ts": int(ts)}
        return own | more

    def believes(self, document: dict[str, Any], answer: httpx.Response) -> bool:
        """Whether the answer to this very request is signed by the hub of the token."""
        nonce = base64.b64decode(document["nonce"])
        return self.exchange.is_signed(answer.content, nonce, answer.headers.get("daalu-answer-mac"))


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


@dataclass
class Bench:
    """The hub, its clock and its first administrator."""

    core: Core
    presence: Presence
    services: Services
    joining: Joining
    clock: Clock
    wire: Cable
    folder: Path
    password: str
    admin: Actor
    cookie: str
    tenant_id: str
    application: Any
    _numbers: Any = field(default_factory=itertools.count)

    def client(self, bearer: str = "", **more: Any) -> httpx.AsyncClient:
        """A program with a token, or the signed-in administrator's browser."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        if more.pop("signed_in", False):
            headers = {"Cookie": f"__Host-daalu={self.cookie}", "X-CSRF-Token": self.admin.csrf}
        transport = httpx.ASGITransport(app=self.application, client=(more.pop("remote", "198.51.100.7"), 40000))
        return httpx.AsyncClient(transport=transport, base_url=URL, headers=headers | more.pop("headers", {}), **more)

    def key(self) -> Key:
        return Key(self.core.hub_key)

    async def authenticated(self) -> Actor:
        """The administrator, with the password typed a moment ago."""
        return await self.services.accounts.reauthenticate(self.admin, self.password)

    async def token(
        self, role: Role = Role.ADMIN, tenant_id: str | None = None, scopes: list[str] | None = None
    ) -> str:
        """An API token with every right of a role."""
        made = await self.services.tokens.create(
            await self.authenticated(),
            tenant_id or self.tenant_id,
            name=role.value,
            role=role,
            scopes=scopes if scopes is not None else [right.value for right in RIGHTS[role]],
        )
        return made.secret

    async def tenant(self, slug: str) -> str:
        """Another tenant, of which the administrator is an admin; its id."""
        made = await self.services.tenants.create(self.admin, slug=slug, name=slug)
        self.admin = await self._again()
        return made.id

    async def _again(self) -> Actor:
        found = await self.services.accounts.actor_of_session(self.cookie, remote="198.51.100.7")
        assert found is not None
        return found

    async def invite(self, name: str = "", tenant_id: str | None = None) -> InviteCreated:
        name = name or f"cluster-{next(self._numbers)}"
        return await self.services.clusters.create(self.admin, tenant_id or self.tenant_id, name=name)

    async def row(self, cluster_id: str) -> ClusterRow:
        return await self.services.clusters.row(self.admin, cluster_id)

    async def post(self, document: dict[str, Any], path: str = "bootstrap", **more: Any) -> httpx.Response:
        async with self.client(**more) as client:
            return await client.post(f"/v1/edge/{path}", json=document)

    async def redeem(self, invite: InviteCreated, key: Key | None = None, **more: Any) -> Key:
        """Join as an edge would."""
        key = key or self.key()
        document = key.asks(invite.token, self.clock(), **more)
        answer = await self.post(document)
        assert answer.status_code == 200, answer.text
        assert key.believes(document, answer)
        return key

    async def joined(self, name: str = "") -> str:
        """A cluster that is connected; its id."""
        invite = await self.invite(name)
        await self.redeem(invite)
        self.presence.handshake_confirmed(invite.cluster_id, REMOTE, self.clock())
        await self.presence.flush()
        return invite.cluster_id

    def beat(self, cluster_id: str) -> None:
        self.presence.beat(cluster_id, self.clock(), 0.04, REMOTE)

    async def passes(self, seconds: float, *, beating: tuple[str, ...] = (), step: float = 5.0) -> None:
        """Let time go by, with what the hub does in it; some clusters send their heartbeats."""
        end = self.clock.at + seconds
        while self.clock.at < end:
            self.clock.at = min(end, self.clock.at + step)
            for cluster_id in beating:
                self.beat(cluster_id)
            self.presence.tick()
        await self.presence.flush()

    async def alerts(self, **more: Any) -> list[Any]:
        return list((await self.services.alerts.list(self.admin, self.tenant_id, **more)).items)

    async def events(self, cluster_id: str) -> list[str]:
        """The kinds of the events of a cluster, oldest first."""
        page = await self.services.clusters.events(self.admin, cluster_id, limit=500)
        return [event.kind for event in reversed(page.items)]

    async def audited(self, action: str) -> list[Any]:
        await self.core.later.flush()
        return list((await self.services.audit.list(self.admin, self.tenant_id, action=action, limit=500)).items)


@contextlib.asynccontextmanager
async def clocked_hub(
    folder: Path, clock: Clock | None = None, password: str = "", **more: Any
) -> AsyncIterator[Bench]:
    """Open a hub; `clock` and `password` are those of an earlier opening of the same folder."""
    clock = clock or Clock()
    values = {"public_url": URL, "bootstrap_rate": 100_000, "bootstrap_id_rate": 100_000}
    settings = Settings(data=folder, **(values | more))
    private_key = wgpy.PrivateKey(ensure_secret(folder / "wireguard.key"))
    database, envelope = open_store(settings)
    with contextlib.closing(database):
        wire = Cable()
        core = Core(
            database=database,
            envelope=envelope,
            settings=settings,
            now=clock,
            monotonic=clock,
            live=Live(clock),
            passwords=Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)),
            hub_key=bytes(private_key.public_key),
            endpoints=("hub.example:51820",),
            wire=wire,
        )
        presence = Presence(core)
        services = build(core, presence)
        given = await services.accounts.ensure_first_administrator()
        password = given or password
        for_wire = await presence.load()
        for realm in for_wire[0]:
            wire.put_realm(realm)
        for peer in for_wire[1]:
            wire.put_peer(peer)
        signed_in = await services.accounts.sign_in(
            settings.admin_email, password, remote="198.51.100.7", user_agent="test"
        )
        if given is not None:  # it is good for nothing else
            password = "correct horse battery staple"
            await services.accounts.change_password(signed_in.actor, given, password)
            signed_in = await services.accounts.sign_in(
                settings.admin_email, password, remote="198.51.100.7", user_agent="test"
            )
        joining = Joining(core, presence, bytes(private_key))
        yield Bench(
            core=core,
            presence=presence,
            services=services,
            joining=joining,
            clock=clock,
            wire=wire,
            folder=folder,
            password=password,
            admin=signed_in.actor,
            cookie=signed_in.cookie,
            tenant_id=next(iter(signed_in.actor.roles)),
            application=site(core, joining, services),
        )
        await presence.flush()
