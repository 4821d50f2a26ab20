"""Nets that stand in for a tunnel: one over the loopback interface, one in memory (for tests with a mock clock)."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import trio
import trio.testing

from wgpy.adapters.net import abort, as_os_error

Handler = Callable[[Any], Awaitable[None]]


def resolve(names: dict[str, str], host: str) -> str:
    """An address, or that of a name that the far end knows; the host's resolver is never asked."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, f"no such name in the tunnel: {host}") from None
        return names[host]
    return host


class LoopbackDatagrams:
    """A UDP socket of `LoopbackNet`."""

    def __init__(self, remote: tuple[str, int] | None) -> None:
        self.socket = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.remote = remote

    async def send(self, data: bytes) -> None:
        assert self.remote
        await self.socket.sendto(data, self.remote)

    async def receive(self) -> bytes:
        return (await self.receive_from())[0]

    async def send_to(self, data: bytes, remote: tuple[str, int]) -> None:
        await self.socket.sendto(data, remote)

    async def receive_from(self) -> tuple[bytes, tuple[str, int]]:
        return await self.socket.recvfrom(65535)

    async def aclose(self) -> None:
        self.socket.close()
        await trio.lowlevel.checkpoint()


class LoopbackNet:
    """Dials real sockets of this machine; knows the names that it is given."""

    def __init__(self, **names: str) -> None:
        self.names = {name.replace("_", "."): address for name, address in names.items()}

    async def open_tcp_stream(self, host: str, port: int) -> trio.SocketStream:
        try:
            return await trio.open_tcp_stream(resolve(self.names, host), port)
        except OSError as problem:
            raise as_os_error(problem) from None

    async def open_tcp_listeners(self, port: int, *, host: str | None = None) -> list[trio.SocketListener]:
        return await trio.open_tcp_listeners(port, host=host or "127.0.0.1")

    async def open_udp(
        self, *, local: tuple[str, int] | None = None, remote: tuple[str, int] | None = None
    ) -> LoopbackDatagrams:
        await trio.lowlevel.checkpoint()
        return LoopbackDatagrams(remote and (resolve(self.names, remote[0]), remote[1]))

    async def ping(self, host: str, *, size: int = 56, timeout: float = 1.0) -> float:  # noqa: ASYNC109 - as in the API
        await trio.lowlevel.checkpoint()
        if resolve(self.names, host) != "127.0.0.1":
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return 0.001

    async def getaddrinfo(self, host: str, port: int) -> list[Any]:
        await trio.lowlevel.checkpoint()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (resolve(self.names, host), port))]


class MemoryNet(LoopbackNet):
    """TCP in memory: each connection is one end of a pair, the other end goes to a handler of its own."""

    def __init__(self, nursery: trio.Nursery, servers: dict[tuple[str, int], Handler]) -> None:
        super().__init__()
        self.nursery, self.servers = nursery, servers

    async def open_tcp_stream(self, host: str, port: int) -> Any:
        await trio.lowlevel.checkpoint()
        handler = self.servers.get((host, port))
        if handler is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(handler, theirs)
        return ours


async def echo_when_done(stream: Any) -> None:
    """Send back everything, but only after the client has said that it is done: needs half-close all the way."""
    with contextlib.suppress(trio.BrokenResourceError):
        async with stream:
            received = b"".join([bytes(data) async for data in stream])
            await stream.send_all(received)


async def silence(stream: Any) -> None:
    """Never say anything."""
    async with stream:
        await trio.sleep_forever()


async def hang_up(stream: Any) -> None:
    """Send a little, then reset."""
    await stream.send_all(b"a little")
    await abort(stream)


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """A server on the loopback interface; its port."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handler, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def read_all(stream: Any) -> bytes:
    return b"".join([bytes(data) async for data in stream])
