"""UDP through the tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from wgpy.runtime import world

if TYPE_CHECKING:
    from types import TracebackType

    from wgpy.netstack.udp import Address, UdpSocket
    from wgpy.runtime.netdevice import NetDevice

__all__ = ["NetUdp"]


class NetUdp:
    """A UDP socket of the tunnel; an asynchronous context, and an iterator over (payload, address).

    An empty datagram is a datagram, not an end.

    Attributes:
        local_address: ours; the address is None for any.
        remote_address: the only one to talk to, None for everybody.
    """

    def __init__(self, device: NetDevice, socket: UdpSocket) -> None:
        """Use `Net.open_udp`."""
        self._device = device
        self._socket = socket
        self._is_closed = False
        self.local_address = socket.local
        self.remote_address = socket.remote

    # --- sending -----------------------------------------------------------------------------------------------------

    async def send(self, payload: bytes | bytearray | memoryview) -> None:
        """Send to the address that the socket is connected to; waits for room.

        Raises:
            OSError: EMSGSIZE, EDESTADDRREQ; ECONNREFUSED when nobody listens there, as ICMP said of an earlier one.
            ClosedResourceError: `aclose`, or the end of the tunnel.
        """
        await self._send(payload, None)

    async def send_to(self, payload: bytes | bytearray | memoryview, address: Address) -> None:
        """Send to a host, an address and no name, and port; waits for room. Raises like `send`."""
        await self._send(payload, address)

    async def _send(self, payload: bytes | bytearray | memoryview, address: Address | None) -> None:
        await trio.lowlevel.checkpoint()
        while not self._try_send(payload, address):
            await self._device.until_writable(self._socket)

    def send_nowait(self, payload: bytes | bytearray | memoryview, address: Address | None = None) -> None:
        """Send at once or not at all.

        Raises:
            WouldBlock: there is no room.
        """
        if not self._try_send(payload, address):
            raise trio.WouldBlock

    def _try_send(self, payload: bytes | bytearray | memoryview, address: Address | None) -> bool:
        self._check_open()
        was_taken = self._socket.send(payload, world.now(), remote=address)
        self._device.changed()
        return was_taken

    # --- receiving ---------------------------------------------------------------------------------------------------

    async def receive(self) -> bytes:
        """The payload of the next datagram. Raises like `receive_from`."""
        return (await self.receive_from())[0]

    async def receive_from(self) -> tuple[bytes, Address]:
        """The next datagram, and where it came from.

        Raises:
            OSError: ECONNREFUSED when nobody listens there, as ICMP said.
            ClosedResourceError: `aclose`, or the end of the tunnel.
            BusyResourceError: another task receives.
        """
        await trio.lowlevel.checkpoint()
        while True:
            self._check_open()
            datagram = self._socket.receive()
            if datagram is not None:
                return datagram
            await self._device.until_readable(self._socket)

    async def receive_many(self, most: int) -> list[tuple[bytes, Address]]:
        """What is there, at least one and at most so many. Raises like `receive_from`."""
        datagrams = [await self.receive_from()]
        while len(datagrams) < most:
            # An error waits for the next call: what was received must not be lost over it.
            datagram = self._socket.receive() if self._socket.has_datagram else None
            if datagram is None:
                break
            datagrams.append(datagram)
        return datagrams

    def __aiter__(self) -> NetUdp:
        """Datagrams, until the socket is closed."""
        return self

    async def __anext__(self) -> tuple[bytes, Address]:
        """The next one."""
        try:
            return await self.receive_from()
        except trio.ClosedResourceError:
            raise StopAsyncIteration from None

    # --- ends --------------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Give the port back."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Give the port back, without a checkpoint."""
        self._is_closed = True
        self._socket.close()
        self._device.wake(self._socket)

    async def __aenter__(self) -> NetUdp:
        """The socket."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this socket was closed")
        self._device.check_open()
