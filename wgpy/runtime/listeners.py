"""Accepting TCP connections from the tunnel, as a trio listener."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NoReturn

import trio

from wgpy.runtime import victims, world
from wgpy.runtime.streams import NetStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wgpy.netstack.tcp.connection import TcpConnection
    from wgpy.netstack.tcp.keepalive import Keepalive
    from wgpy.netstack.tcp.listener import TcpListener
    from wgpy.runtime.netdevice import NetDevice

__all__ = ["NetListener"]


class NetListener(trio.abc.Listener[NetStream]):
    """A TCP port of the tunnel's addresses; works with `trio.serve_listeners`.

    Attributes:
        address: host, None for all of our addresses, and port.
    """

    def __init__(
        self,
        device: NetDevice,
        listener: TcpListener,
        *,
        keepalive: Keepalive | None = None,
        user_timeout: float | None = None,
    ) -> None:
        """Use `Net.open_tcp_listeners`."""
        self._device = device
        self._listener = listener
        self._keepalive = keepalive
        self._user_timeout = user_timeout
        self._is_closed = False
        self.address = listener.host, listener.port

    async def accept(self) -> NetStream:
        """The next connection.

        Raises:
            ClosedResourceError: `aclose`, or the end of the tunnel.
            BusyResourceError: another task accepts.
        """
        self._check_open()
        await trio.lowlevel.checkpoint()
        while True:
            self._check_open()
            connection = self._listener.accept()
            if connection is not None:
                return self._stream(connection)
            await self._device.until_readable(self._listener)

    def accept_nowait(self) -> NetStream:
        """The next connection, if one waits.

        Raises:
            WouldBlock: none does.
            ClosedResourceError: `aclose`, or the end of the tunnel.
        """
        self._check_open()
        connection = self._listener.accept()
        if connection is None:
            raise trio.WouldBlock
        return self._stream(connection)

    def _stream(self, connection: TcpConnection) -> NetStream:
        stream = NetStream(self._device, connection)
        if self._keepalive is not None:
            stream.set_keepalive(self._keepalive)
        if self._user_timeout is not None:
            stream.set_user_timeout(self._user_timeout)
        return stream

    async def serve(self, handler: Callable[[NetStream], Awaitable[object]], nursery: trio.Nursery) -> NoReturn:
        """Start a handler for every connection, for ever; all that wait are accepted in one turn of the loop.

        What a handler raises ends its connection, by a reset, and is logged; the others go on.

        Args:
            handler: as of `Net.serve_tcp`.
            nursery: where handlers run.
        """

        async def handle(stream: NetStream) -> None:
            try:
                await handler(stream)
            except Exception as problem:
                stream.abort()
                victims.tell(problem, stream.remote_address)
            except BaseException:
                stream.abort()
                raise
            else:
                stream.close()

        async with self:
            while True:
                nursery.start_soon(handle, await self.accept())
                with contextlib.suppress(trio.WouldBlock):
                    while True:
                        nursery.start_soon(handle, self.accept_nowait())

    async def aclose(self) -> None:
        """Listen no more; connections that nobody accepted are reset."""
        if not self._is_closed:
            self._is_closed = True
            self._listener.close(world.now())
            self._device.wake(self._listener)
            self._device.changed()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this listener was closed")
        self._device.check_open()
