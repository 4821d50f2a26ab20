"""What the tests of the server stand on: a connection in memory, a server on loopback, applications that are small."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import trio
import trio.testing

from hub_server import supervise, tls
from hub_server.http import Limits, Room, Server, Service
from hub_server.http.connection import Connection

Application = Callable[[Any, Any, Any], Awaitable[None]]
NAMES = ("localhost", "127.0.0.1", "::1")


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Read nothing, and say hello with the path."""
    await answer(send, scope["path"].encode())


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Give the body back."""
    await answer(send, await body_of(receive))


async def answer(send: Any, body: bytes, status: int = 200, *fields: tuple[bytes, bytes]) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *fields]})
    await send({"type": "http.response.body", "body": body})


async def body_of(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        body += message["body"]
        if not message["more_body"]:
            return body


@dataclass
class Reply:
    """An answer, as another parser than ours reads it."""

    status: int
    reason: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    is_whole: bool = False

    def all(self, name: bytes) -> list[bytes]:
        return [value for one, value in self.fields if one.lower() == name]

    def one(self, name: bytes) -> bytes:
        [value] = self.all(name)
        return value


def replies_of(octets: bytes, *methods: str) -> list[Reply]:
    """The answers in what a server said, to requests of these methods."""
    found: list[Reply] = []
    for method in methods:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        client.receive_data(octets)
        client.receive_data(b"") if octets else None
        while True:
            try:
                event = client.next_event()
            except h11.RemoteProtocolError:
                return found
            if isinstance(event, h11.Response):
                found.append(Reply(event.status_code, event.reason, list(event.headers.raw_items())))
            elif isinstance(event, h11.Data):
                found[-1].body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found[-1].is_whole = True
            elif not isinstance(event, h11.InformationalResponse):
                break
        octets = client.trailing_data[0]
    return found


@dataclass
class Talk:
    """The client's end of a connection in memory."""

    stream: trio.StapledStream[Any, Any]
    connection: Connection
    service: Service
    room: Room
    done: trio.Event = field(default_factory=trio.Event)

    async def say(self, octets: bytes) -> None:
        await self.stream.send_all(octets)

    async def hear(self, until: bytes) -> bytes:
        """What is said, up to a text."""
        heard = b""
        while not heard.endswith(until):
            piece = await self.stream.receive_some(1)
            assert piece, f"the connection ended after {heard!r}"
            heard += piece
        return heard

    async def rest(self) -> bytes:
        """Everything to the end."""
        heard = b""
        with contextlib.suppress(trio.BrokenResourceError):
            async for piece in self.stream:
                heard += piece
        return heard


@contextlib.asynccontextmanager
async def talking(application: Application, **limits: float) -> AsyncIterator[Talk]:
    """A connection in memory whose other end serves an application."""
    client, server = trio.testing.memory_stream_pair()
    service = Service(application, Limits(**limits), wall_clock=lambda: 1_000_000_000.0)
    room = Room(1, 1)
    place = room.admit("192.0.2.1", lambda: None)
    assert place is not None
    connection = Connection(server, service, place, client=("192.0.2.1", 1234), server=("192.0.2.2", 443))
    talk = Talk(client, connection, service, room)

    async def serve() -> None:
        await supervise.run_once("connection", connection.run)
        talk.done.set()
        await server.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield talk
        nursery.cancel_scope.cancel()


async def said(application: Application, octets: bytes, **limits: float) -> bytes:
    """All that is answered to these octets and an end."""
    async with talking(application, **limits) as talk:
        await talk.say(octets)
        await talk.stream.send_eof()
        with trio.fail_after(60):
            return await talk.rest()


@dataclass
class Served:
    """A server on loopback."""

    port: int
    server: Server
    service: Service
    stopping: trio.Event
    ca: Path | None

    @property
    def url(self) -> str:
        return f"http{'s' if self.ca else ''}://127.0.0.1:{self.port}"

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))

    async def open(self, **more: Any) -> trio.abc.Stream:
        """A connection to it."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port, **more)
        if self.ca is None:
            return stream
        return trio.SSLStream(stream, self.trusting(), server_hostname="127.0.0.1")


def listening() -> socket.socket:
    """A socket that listens on loopback."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.setblocking(False)
    return listener


@contextlib.asynccontextmanager
async def serving(
    application: Application,
    folder: Path | None = None,
    *,
    places: int = 100,
    each: int = 100,
    drain: float = 5,
    **limits: float,
) -> AsyncIterator[Served]:
    """A server on loopback; with TLS when it has a folder for its certificate."""
    context, ca = None, None
    if folder is not None:
        context, ca = tls.server_context(tls.ensure_own(folder, NAMES)), folder / "ca.crt"
    service = Service(application, Limits(**limits))
    server = Server(service, Room(places, each), context=context, drain=drain)
    listener = listening()
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [listener], stopping)
        yield Served(listener.getsockname()[1], server, service, stopping, ca)
        nursery.cancel_scope.cancel()
