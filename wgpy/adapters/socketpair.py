"""A connection of the tunnel as a genuine socket: one end of a pair, the other end is pumped.

    library -> socket.socket ═══ loopback ═══ our end -> relay -> stream of the tunnel

The pair is TCP over the loopback interface and not a Unix socket pair: only so can a reset in the tunnel become a reset
of the socket (on a Unix socket it would look like an orderly end, and a truncated answer like a whole one), and only so
do `TCP_NODELAY`, `getpeername` and the like work. Nobody else can get hold of it: our end accepts the one connection
that it knows the port of.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

import trio

from wgpy.adapters.relay import relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from wgpy.adapters.net import Address, Datagrams, Net

__all__ = [
    "DatagramSocket",
    "TunnelSocket",
    "datagram_pair",
    "open_socket",
    "pump_datagrams",
    "socket_of",
    "stream_pair",
]

# A closed socket and a half-closed one look alike to our end, until the kernel forgets the closed one after a minute
# (tcp_fin_timeout); then a keep-alive probe is answered by a reset. Seconds.
_KEEPALIVE_IDLE: Final = 60
_KEEPALIVE_INTERVAL: Final = 15
_LOOK_FOR_ORPHANS: Final = 15.0
_TCP_CLOSE: Final = 7
_LARGEST_DATAGRAM: Final = 65535


class TunnelSocket(socket.socket):
    """One end of a pair that names the ends of the connection in the tunnel, not those of the pair.

    TLS by `ssl.SSLContext.wrap_socket` makes a socket of its own, which names those of the pair.
    """

    names: tuple[Address, Address] | None = None

    def getsockname(self) -> Any:
        """Our address in the tunnel."""
        return _as_name(self.names[0]) if self.names else super().getsockname()

    def getpeername(self) -> Any:
        """The peer's address in the tunnel."""
        return _as_name(self.names[1]) if self.names else super().getpeername()


def _as_name(address: Address) -> Any:
    host, port = address
    return (host, port, 0, 0) if ":" in host else (host, port)


def stream_pair() -> tuple[TunnelSocket, socket.socket]:
    """Two connected sockets: the one to give away, and our end."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener:
        theirs = TunnelSocket(socket.AF_INET, socket.SOCK_STREAM)
        theirs.connect(listener.getsockname())
        try:
            while True:
                ours, peer = listener.accept()
                if peer == theirs.getsockname():
                    break
                ours.close()  # a stranger
        except BaseException:
            theirs.close()
            raise
    for one in (theirs, ours):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL)
    return theirs, ours


@contextlib.asynccontextmanager
async def open_socket(net: Net, host: str, port: int) -> AsyncIterator[socket.socket]:
    """Connect through the tunnel, for synchronous code in a thread of trio (`trio.to_thread.run_sync`).

    Args:
        net: of the tunnel.
        host: name or address.
        port: of the host.

    Yields:
        A blocking socket, closed at the end.

    Raises:
        OSError: as a kernel socket would.
    """
    stream = await net.open_tcp_stream(host, port)
    async with trio.open_nursery() as nursery:
        with socket_of(stream, nursery) as theirs:
            yield theirs


def socket_of(stream: Any, nursery: trio.Nursery) -> socket.socket:
    """A blocking socket that is joined with a stream of the tunnel for as long as the nursery lives."""
    theirs, ours = stream_pair()
    if hasattr(stream, "remote_address"):  # streams of the tunnel have names; others may
        theirs.names = stream.local_address, stream.remote_address
    nursery.start_soon(_pump, stream, ours)
    return theirs


async def _pump(stream: Any, ours: socket.socket) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_look_for_orphan, ours, nursery.cancel_scope)
        await relay(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), stream)
        nursery.cancel_scope.cancel()


async def _look_for_orphan(ours: socket.socket, scope: trio.CancelScope) -> None:
    """Cancel when the other end was closed for good."""
    with contextlib.suppress(OSError):  # our end was closed meanwhile
        while True:
            await trio.sleep(_LOOK_FOR_ORPHANS)
            if ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
                scope.cancel()


# --- datagrams -------------------------------------------------------------------------------------------------------


class DatagramSocket(socket.socket):
    """One end of a pair for datagrams; says when it is closed, because the other end cannot see it."""

    on_close: Callable[[], None] | None = None

    def close(self) -> None:
        """Close it, and with it the socket in the tunnel."""
        super().close()
        if self.on_close is not None:
            self.on_close()
            self.on_close = None


def datagram_pair() -> tuple[DatagramSocket, socket.socket]:
    """Two UDP sockets that talk to each other only: the one to give away, and our end."""
    theirs, ours = DatagramSocket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for one in (theirs, ours):
        one.bind(("127.0.0.1", 0))
    theirs.connect(ours.getsockname())
    ours.connect(theirs.getsockname())
    return theirs, ours


async def pump_datagrams(inside: Datagrams, ours: socket.socket) -> None:
    """Carry datagrams both ways until cancelled; closes both."""
    outside = trio.socket.from_stdlib_socket(ours)

    async def carry_in() -> None:
        while True:
            with contextlib.suppress(OSError):  # a datagram may be lost, and the other end may be closed
                await inside.send(await outside.recv(_LARGEST_DATAGRAM))

    async def carry_out() -> None:
        while True:
            with contextlib.suppress(OSError):
                await outside.send(await inside.receive())

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry_in)
            nursery.start_soon(carry_out)
    finally:
        outside.close()
        with trio.CancelScope(shield=True):
            await inside.aclose()
