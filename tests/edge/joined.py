"""A fake hub, a fake API server, and the agent joined to both: what tests of a running edge begin with."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import h11
import trio

from edge_agent.agent import Agent
from tests.edge.fakehub import EDGE_ADDRESS, FakeHub, open_hub
from tests.edge.fakekube import FakeKube, open_kube
from tests.edge.test_agent import join, running, settings_for

__all__ = ["Joined", "Reply", "open_joined"]

PROXY_PORT = 7443


@dataclass
class Reply:
    """A whole answer of the edge."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Joined:
    """The three parts, and the port of the agent's probes."""

    hub: FakeHub
    kube: FakeKube
    agent: Agent
    port: int

    async def connect(self) -> Any:
        """A stream to the edge's proxy, as the hub opens it."""
        assert self.hub.tunnel is not None
        return await self.hub.tunnel.net.open_tcp_stream(EDGE_ADDRESS, PROXY_PORT)

    async def begin(self, target: str) -> Any:
        """A stream with a request on it, whose answer nobody has read yet."""
        stream = await self.connect()
        await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return stream

    async def ask(self, target: str, *, method: str = "GET", body: bytes = b"", **headers: str) -> Reply:
        """One request with its whole answer, by strict HTTP."""
        fields = [("host", "x"), *((name.replace("_", "-"), value) for name, value in headers.items())]
        if body:
            fields.append(("content-length", str(len(body))))
        http = h11.Connection(h11.CLIENT)
        async with await self.connect() as stream:
            await stream.send_all(http.send(h11.Request(method=method, target=target, headers=fields)) or b"")
            if body:
                await stream.send_all(http.send(h11.Data(data=body)) or b"")
            http.send(h11.EndOfMessage())
            head, pieces = None, []
            while not isinstance(event := http.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    http.receive_data(bytes(await stream.receive_some()))
                elif isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    pieces.append(bytes(event.data))
        assert head is not None
        named = {name.decode(): value.decode() for name, value in head.headers}
        return Reply(head.status_code, named, b"".join(pieces))


@contextlib.asynccontextmanager
async def open_joined(folder: pathlib.Path, **more: Any) -> AsyncIterator[Joined]:
    """Join, and wait until hub and edge know each other."""
    async with open_kube() as kube, open_hub() as hub:
        settings = settings_for(kube, hub, folder, **more)
        code, line = await join(settings)
        assert code == 0, line
        async with running(settings) as (agent, port):
            with trio.fail_after(60):
                await hub.until(lambda: hub.of_type("nodes") and hub.of_type("api") and hub.beats)
            yield Joined(hub, kube, agent, port)
