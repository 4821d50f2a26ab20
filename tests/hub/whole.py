"""A whole hub in this process, and edges that join it: real TLS, real WireGuard on loopback, a fake API server."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trio

from edge_agent.agent import Agent
from edge_agent.bootstrap import Bootstrap, Waits, run_bootstrap
from edge_agent.hubapi import HubApi
from edge_agent.kube import Kube
from edge_agent.settings import Settings as EdgeSettings
from edge_agent.store import open_store
from hub_server.app import Hub, open_hub
from hub_server.services.views import Actor, ClusterRow, InviteCreated, SignedIn
from hub_server.settings import Settings
from tests.edge.fakekube import FakeKube

PATIENCE = 60.0


@dataclass
class Whole:
    """A hub, and its first administrator signed in."""

    hub: Hub
    settings: Settings
    password: str
    admin: Actor
    cookie: str
    tenant_id: str

    @property
    def services(self) -> Any:
        return self.hub.services

    @property
    def ca(self) -> Path:
        return self.settings.data / "tls" / "ca.crt"

    def client(self, **more: Any) -> httpx.AsyncClient:
        """A browser or program that trusts the hub; with `signed_in=True` it has the session."""
        headers = dict(more.pop("headers", {}))
        if more.pop("signed_in", False):
            headers |= {"Cookie": f"__Host-daalu={self.cookie}", "X-CSRF-Token": self.admin.csrf}
        context = ssl.create_default_context(cafile=str(self.ca))
        return httpx.AsyncClient(base_url=self.hub.url, verify=context, headers=headers, timeout=30, **more)

    async def own_password(self, email: str, given: str) -> SignedIn:
        """Somebody new signs in with the password that they were given, and chooses their own."""
        first = await self.services.accounts.sign_in(email, given, remote="127.0.0.1", user_agent="test")
        own = "a password of my own"
        await self.services.accounts.change_password(first.actor, given, own)
        signed_in: SignedIn = await self.services.accounts.sign_in(email, own, remote="127.0.0.1", user_agent="test")
        return signed_in

    async def reauthenticated(self) -> Actor:
        """The administrator, with the password typed a moment ago."""
        return await self.services.accounts.reauthenticate(self.admin, self.password)

    async def invite(self, name: str = "acme") -> InviteCreated:
        return await self.services.clusters.create(self.admin, self.tenant_id, name=name)

    async def row(self, cluster_id: str) -> ClusterRow:
        return await self.services.clusters.row(self.admin, cluster_id)

    async def until(self, true: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
        """Wait until something is true."""
        with trio.fail_after(PATIENCE):
            while True:
                found = true()
                if not isinstance(found, bool):
                    found = await found
                if found:
                    return
                await trio.sleep(0.02)

    async def until_phase(self, cluster_id: str, phase: str) -> ClusterRow:
        async def is_there() -> bool:
            return (await self.row(cluster_id)).phase == phase

        await self.until(is_there)
        return await self.row(cluster_id)


def settings_for(folder: Path, **more: Any) -> Settings:
    values: dict[str, Any] = {"listen": "127.0.0.1:0", "wireguard_port": 0, "heartbeat": 1, "drain": 1}
    return Settings(data=folder / "hub", **(values | more))


@contextlib.asynccontextmanager
async def whole_hub(folder: Path, *, password: str = "", **more: Any) -> AsyncIterator[Whole]:
    """Start a hub; `password` is that of an earlier start in the same folder."""
    settings = settings_for(folder, **more)
    async with open_hub(settings) as hub:
        accounts = hub.services.accounts
        if hub.first_password is not None:  # it is good for choosing another one only
            signed_in = await accounts.sign_in(
                settings.admin_email, hub.first_password, remote="127.0.0.1", user_agent="test"
            )
            password = "correct horse battery staple"
            await accounts.change_password(signed_in.actor, hub.first_password, password)
            await accounts.sign_out(signed_in.actor)
        signed_in = await accounts.sign_in(settings.admin_email, password, remote="127.0.0.1", user_agent="test")
        [tenant_id] = signed_in.actor.roles
        yield Whole(hub, settings, password, signed_in.actor, signed_in.cookie, tenant_id)


def edge_settings(whole: Whole, kube: FakeKube, folder: Path, token: str, **more: Any) -> EdgeSettings:
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(token)
    (folder / "account").write_text(kube.token)
    values: dict[str, Any] = {
        "hub_url": whole.hub.url,
        "hub_ca": str(whole.ca),
        "token_file": str(folder / "token"),
        "api_server": kube.url,
        "api_token": str(folder / "account"),
        "api_ca": "",
        "deployment": "daalu-edge",
        "health_host": "127.0.0.1",
        "health_port": 0,
        "heartbeat": 1,
        "chart_version": "1.0.0",
    }
    return EdgeSettings(**(values | more))


async def redeem(settings: EdgeSettings) -> tuple[int, str]:
    """What the bootstrap Job does."""
    kube = Kube(settings)
    job = Bootstrap(settings, open_store(settings, kube), kube, HubApi(settings), waits=Waits(lambda: 0.0))
    try:
        return await run_bootstrap(job, 30)
    finally:
        await kube.aclose()


@contextlib.asynccontextmanager
async def running_edge(settings: EdgeSettings) -> AsyncIterator[Agent]:
    """What the edge pod does, until killed: no goodbye is said."""
    agent = Agent(settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(agent.run)
        yield agent
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def joined_edge(whole: Whole, kube: FakeKube, folder: Path, name: str = "acme") -> AsyncIterator[str]:
    """A cluster that is connected; its id."""
    invite = await whole.invite(name)
    settings = edge_settings(whole, kube, folder, invite.token)
    code, line = await redeem(settings)
    assert code == 0, line
    async with running_edge(settings):
        await whole.until_phase(invite.cluster_id, "connected")
        yield invite.cluster_id
