"""A tunnel for asyncio, inside `asyncio.run`: trio runs in a thread of its own, connections cross as sockets.

    async with wgpy.adapters.asyncio.open_tunnel(config) as tunnel:
        reader, writer = await tunnel.open_connection("intranet.example", 80)

A connection costs one more copy and one more hop over the loopback interface than in trio itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
import struct
from typing import TYPE_CHECKING, Any, Final, TypeVar

from wgpy.adapters.thread import TunnelThread
from wgpy.runtime import victims
from wgpy.runtime.tunnel import open_tunnel as open_trio_tunnel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from wgpy.adapters.net import Address
    from wgpy.config import InterfaceConfig

__all__ = ["Tunnel", "open_tunnel"]

# Accepting goes on when this is over (trio's `serve_listeners` does the same).
_LACK_OF_ROOM: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_PAUSE: Final = 0.1

T = TypeVar("T")
P = TypeVar("P", bound=asyncio.BaseProtocol)


@contextlib.asynccontextmanager
async def open_tunnel(config: InterfaceConfig, *, keylog: Callable[[str], None] | None = None) -> AsyncIterator[Tunnel]:
    """Hold a tunnel while the context lasts; no privilege.

    Args:
        config: needs addresses; `DNS =` are the name servers asked through the tunnel.
        keylog: called with one line per handshake secret, in the thread of the tunnel.

    Raises:
        ConfigError: there is no address.
        EndpointUnresolved: an endpoint's name has no address, or no name server answered.
        DeviceError: the port is taken or the mark not allowed.
    """
    thread = TunnelThread(functools.partial(open_trio_tunnel, config, keylog=keylog))
    starting = asyncio.ensure_future(asyncio.to_thread(thread.start))
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(lambda started: None if started.exception() else thread.close_soon())
        raise
    try:
        yield Tunnel(thread)
    finally:
        await asyncio.shield(asyncio.to_thread(thread.close))


class Tunnel:
    """A tunnel for the tasks of one event loop. Names are resolved in the tunnel, never by the host."""

    def __init__(self, thread: TunnelThread) -> None:
        """Use `open_tunnel`."""
        self._thread = thread

    async def open_socket(self, host: str, port: int) -> socket.socket:
        """A connected, non-blocking socket, for the `sock=` of asyncio's own functions.

        Raises:
            OSError: as a kernel socket would: ECONNREFUSED, ETIMEDOUT, ENETUNREACH and so on.
            gaierror: the name has no address in the tunnel.
        """
        connection = await self._run(self._thread.connect, host, port, dispose=lambda unwanted: unwanted.close())
        connection.setblocking(False)
        return connection

    async def open_connection(
        self, host: str, port: int, **settings: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Like `asyncio.open_connection`; `ssl=True` means TLS with this host. Raises like `open_socket`."""
        if settings.get("ssl"):
            settings.setdefault("server_hostname", host)
        return await asyncio.open_connection(sock=await self.open_socket(host, port), **settings)

    async def create_connection(
        self, protocol_factory: Callable[[], P], host: str, port: int, **settings: Any
    ) -> tuple[asyncio.Transport, P]:
        """Like `loop.create_connection`. Raises like `open_socket`."""
        if settings.get("ssl"):
            settings.setdefault("server_hostname", host)
        connection = await self.open_socket(host, port)
        return await asyncio.get_running_loop().create_connection(protocol_factory, sock=connection, **settings)

    async def create_datagram_endpoint(
        self, protocol_factory: Callable[[], Any], remote: Address
    ) -> tuple[asyncio.DatagramTransport, Any]:
        """Like `loop.create_datagram_endpoint`, connected to one host. Raises like `open_socket`."""
        connection = await self._run(self._thread.open_datagrams, remote, dispose=lambda unwanted: unwanted.close())
        connection.setblocking(False)
        return await asyncio.get_running_loop().create_datagram_endpoint(protocol_factory, sock=connection)

    async def serve(
        self,
        handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        port: int,
        host: str | None = None,
    ) -> None:
        """Listen in the tunnel and run the handler for every connection, until cancelled.

        A connection whose handler raises is reset, and the exception logged; it ends nothing else. The writer's
        `get_extra_info("peername")` is the client's address in the tunnel.

        Raises:
            OSError: EADDRINUSE, EADDRNOTAVAIL.
        """
        listener = await self._run(self._thread.listen, port, host)
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    try:
                        connection, peer = await self._run(
                            listener.accept, dispose=lambda accepted: accepted[0].close()
                        )
                    except OSError as problem:
                        if problem.errno not in _LACK_OF_ROOM:
                            raise
                        victims.tell(problem, "the tunnel")
                        await asyncio.sleep(_PAUSE)
                        continue
                    connection.setblocking(False)
                    tasks.create_task(self._handle(handler, connection, peer))
        finally:
            self._thread.submit(listener.close)

    async def _handle(self, handler: Callable[..., Awaitable[None]], connection: socket.socket, peer: Address) -> None:
        writer = None
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
            await handler(reader, writer)
        except Exception as problem:
            # The other end must not take what was cut short for the whole.
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if writer is not None:
                writer.transport.abort()
            victims.tell(problem, peer)
        finally:
            if writer is None:
                connection.close()
            else:
                writer.close()

    async def ping(self, host: str, *, size: int = 56, timeout: float = 1.0) -> float:  # noqa: ASYNC109 - as in the API
        """Seconds until a host answered an echo request of so many octets.

        Raises:
            TimeoutError: it did not in time.
            OSError: it cannot be reached.
        """
        return await self._run(functools.partial(self._thread.net.ping, host, size=size, timeout=timeout))

    async def getaddrinfo(self, host: str, port: int) -> Sequence[Any]:
        """Look a name up in the tunnel.

        Raises:
            gaierror: it has no address there.
        """
        return await self._run(self._thread.net.getaddrinfo, host, port)

    async def _run(
        self,
        function: Callable[..., Awaitable[T]],
        *arguments: Any,
        dispose: Callable[[T], object] | None = None,
    ) -> T:
        return await asyncio.wrap_future(self._thread.submit(function, *arguments, dispose=dispose))
