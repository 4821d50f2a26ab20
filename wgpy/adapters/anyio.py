"""anyio's streams, listeners and datagram sockets over a tunnel, with anyio's trio backend.

    stream = await connect_tcp(tunnel.net, "intranet.example", 80)          anyio.abc.ByteStream
    listener = await create_tcp_listener(tunnel.net, 8080)                  anyio.abc.Listener[ByteStream]
    socket = await create_connected_udp_socket(tunnel.net, "10.0.0.53", 53)

Under asyncio use `wgpy.adapters.asyncio`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import trio
from anyio.abc import SocketAttribute

from wgpy.adapters.net import abort
from wgpy.runtime import victims

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wgpy.adapters.net import Address, Datagrams, Net

__all__ = [
    "ByteStream",
    "ConnectedUDPSocket",
    "Listener",
    "TunnelConnectable",
    "UDPSocket",
    "connect_tcp",
    "create_connected_udp_socket",
    "create_tcp_listener",
    "create_udp_socket",
]


# What reading and writing raise here when the other end has gone.
_HANG_UPS = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError)


async def connect_tcp(net: Net, host: str, port: int) -> ByteStream:
    """Connect through the tunnel.

    Raises:
        OSError: as a kernel socket would.
    """
    return ByteStream(await net.open_tcp_stream(host, port))


async def create_tcp_listener(net: Net, port: int, host: str | None = None) -> Listener:
    """Listen in the tunnel.

    Raises:
        OSError: EADDRINUSE, EADDRNOTAVAIL.
    """
    return Listener(await net.open_tcp_listeners(port, host=host))


async def create_udp_socket(net: Net, local: Address | None = None) -> UDPSocket:
    """A socket for datagrams to and from everybody: items are (payload, address)."""
    return UDPSocket(await net.open_udp(local=local))


async def create_connected_udp_socket(net: Net, host: str, port: int) -> ConnectedUDPSocket:
    """A socket for datagrams to and from one host: items are payloads."""
    return ConnectedUDPSocket(await net.open_udp(remote=(host, port)))


class TunnelConnectable(anyio.abc.ByteStreamConnectable):
    """Something that anyio's connecting functions can call: a host and a port behind a tunnel."""

    def __init__(self, net: Net, host: str, port: int) -> None:
        """Remember where to."""
        self._net, self._host, self._port = net, host, port

    async def connect(self) -> ByteStream:
        """Connect. Raises like `connect_tcp`."""
        return await connect_tcp(self._net, self._host, self._port)


class ByteStream(anyio.abc.ByteStream):
    """A TCP connection."""

    def __init__(self, stream: Any) -> None:
        """Use `connect_tcp`."""
        self._stream = stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """What has come.

        Raises:
            anyio.EndOfStream: the other side is done.
            anyio.BrokenResourceError: the connection broke.
            anyio.ClosedResourceError: it was closed here.
        """
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError as problem:
            raise anyio.BrokenResourceError from problem.__cause__ or problem
        except trio.ClosedResourceError as problem:
            raise anyio.ClosedResourceError from problem
        except trio.BusyResourceError as problem:
            raise anyio.BusyResourceError("receiving from") from problem
        if not data:
            raise anyio.EndOfStream
        return bytes(data)

    async def send(self, item: bytes) -> None:
        """Send all of it. Raises like `receive`."""
        try:
            await self._stream.send_all(item)
        except trio.BrokenResourceError as problem:
            raise anyio.BrokenResourceError from problem.__cause__ or problem
        except trio.ClosedResourceError as problem:
            raise anyio.ClosedResourceError from problem
        except trio.BusyResourceError as problem:
            raise anyio.BusyResourceError("sending to") from problem

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    async def abort(self) -> None:
        """Break it off: the other side sees a reset."""
        await abort(self._stream)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Addresses and ports of both ends."""
        return _attributes(self._stream)


class Listener(anyio.abc.Listener[anyio.abc.ByteStream]):
    """Accepts connections in the tunnel."""

    def __init__(self, listeners: Sequence[Any]) -> None:
        """Use `create_tcp_listener`."""
        self._listeners = list(listeners)

    async def serve(
        self,
        handler: Callable[[anyio.abc.ByteStream], Any],
        task_group: anyio.abc.TaskGroup | None = None,
    ) -> None:
        """Run the handler for every connection, until cancelled.

        A connection whose handler raises is reset, and the exception logged; it ends nothing else.
        """

        async def handle(stream: ByteStream) -> None:
            try:
                await handler(stream)
            except Exception as problem:
                await stream.abort()
                if not isinstance(problem, _HANG_UPS):
                    victims.tell(problem, stream.extra(SocketAttribute.remote_address, "the tunnel"))

        async def accept(listener: Any, handlers: anyio.abc.TaskGroup) -> None:
            while True:
                handlers.start_soon(handle, ByteStream(await listener.accept()))

        async with anyio.create_task_group() as acceptors:
            for listener in self._listeners:
                acceptors.start_soon(functools.partial(accept, listener, task_group or acceptors))

    async def aclose(self) -> None:
        """Close it; connections go on."""
        for listener in self._listeners:
            await listener.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Where it listens."""
        return _attributes(self._listeners[0])


class UDPSocket(anyio.abc.UnreliableObjectStream[tuple[bytes, tuple[str, int]]]):
    """Datagrams to and from everybody."""

    def __init__(self, datagrams: Datagrams) -> None:
        """Use `create_udp_socket`."""
        self._datagrams = datagrams

    async def receive(self) -> tuple[bytes, tuple[str, int]]:
        """The next datagram and where it came from."""
        try:
            payload, (host, port, *_) = await self._datagrams.receive_from()
        except trio.ClosedResourceError as problem:
            raise anyio.ClosedResourceError from problem
        return payload, (host, port)

    async def send(self, item: tuple[bytes, tuple[str, int]]) -> None:
        """Send a datagram to an address."""
        try:
            await self._datagrams.send_to(*item)
        except trio.ClosedResourceError as problem:
            raise anyio.ClosedResourceError from problem

    async def sendto(self, data: bytes, host: str, port: int) -> None:
        """Send a datagram to an address."""
        await self.send((data, (host, port)))

    async def aclose(self) -> None:
        """Close it."""
        await self._datagrams.aclose()


class ConnectedUDPSocket(anyio.abc.UnreliableObjectStream[bytes]):
    """Datagrams to and from one host."""

    def __init__(self, datagrams: Datagrams) -> None:
        """Use `create_connected_udp_socket`."""
        self._datagrams = datagrams

    async def receive(self) -> bytes:
        """The next datagram."""
        try:
            return await self._datagrams.receive()
        except trio.ClosedResourceError as problem:
            raise anyio.ClosedResourceError from problem

    async def send(self, item: bytes) -> None:
        """Send a datagram."""
        try:
            await self._datagrams.send(item)
        except trio.ClosedResourceError as problem:
            raise anyio.ClosedResourceError from problem

    async def aclose(self) -> None:
        """Close it."""
        await self._datagrams.aclose()


def _attributes(end: Any) -> Mapping[Any, Callable[[], Any]]:
    """What is known of the ends: streams of the tunnel say it by attributes."""
    found: dict[Any, Callable[[], Any]] = {}
    local, remote = getattr(end, "local_address", None) or getattr(end, "address", None), None
    remote = getattr(end, "remote_address", None)
    if local is not None:
        found[SocketAttribute.local_address] = lambda: local
        found[SocketAttribute.local_port] = lambda: local[1]
    if remote is not None:
        found[SocketAttribute.remote_address] = lambda: remote
        found[SocketAttribute.remote_port] = lambda: remote[1]
    return found
