"""TCP through the tunnel as trio streams: TLS, h11, websockets and all that is written for `trio.abc.Stream` just work.

Nothing is buffered here. `send_all` fills the bounded buffer of the connection and waits for room; `receive_some` takes
what arrived in order. Errors are trio's own, with the OSError of the connection as their cause.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Final

import trio

from wgpy.netstack.tcp.keepalive import checked_user_timeout
from wgpy.runtime import world

if TYPE_CHECKING:
    from wgpy.netstack.tcp.connection import TcpConnection, TcpInfo
    from wgpy.netstack.tcp.keepalive import Keepalive
    from wgpy.runtime.netdevice import NetDevice

__all__ = ["NetStream"]

_RECEIVE_AT_ONCE: Final = 256 * 1024


class NetStream(trio.abc.HalfCloseableStream):
    """A TCP connection through the tunnel.

    Attributes:
        local_address: ours, address and port.
        remote_address: theirs.
    """

    def __init__(self, device: NetDevice, connection: TcpConnection) -> None:
        """Use `Net.open_tcp_stream`, or accept one from a `NetListener`."""
        self._device = device
        self._connection = connection
        self._is_closed = False
        self._is_sending = False
        self._is_ended = False
        self.local_address = connection.local
        self.remote_address = connection.remote

    # --- sending -----------------------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Return when every octet is in the send buffer of the connection.

        Raises:
            BrokenResourceError: the connection failed; the cause is an OSError.
            ClosedResourceError: `send_eof`, `aclose`, or the end of the tunnel.
            BusyResourceError: another task sends.
        """
        self._begin_sending()
        try:
            left: bytes | bytearray | memoryview = data
            device, connection = self._device, self._connection
            has_waited = False
            while True:
                self._check_sending()
                try:
                    taken = connection.write(left, world.now())
                except OSError as problem:
                    await self._checkpoint_unless(has_waited)
                    raise trio.BrokenResourceError(str(problem)) from problem
                device.changed()
                if taken == len(left):
                    break
                left = memoryview(left)[taken:]
                has_waited = True
                await device.until_writable(connection)
            await self._checkpoint_unless(has_waited)
        finally:
            self._is_sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Return when there is room in the send buffer; raises like `send_all`."""
        self._begin_sending()
        try:
            has_waited = False
            while not self._connection.is_writable:
                self._check_sending()
                has_waited = True
                await self._device.until_writable(self._connection)
            self._check_sending()
            await self._checkpoint_unless(has_waited)
        finally:
            self._is_sending = False

    async def send_eof(self) -> None:
        """Send a FIN after everything sent; receiving goes on. Twice is no error."""
        self._begin_sending(even_if_ended=True)
        try:
            await trio.lowlevel.checkpoint()
            if not self._is_ended:
                self._check_sending()
                self._is_ended = True
                self._connection.shutdown_write(world.now())
                self._device.changed()
        finally:
            self._is_sending = False

    def _begin_sending(self, *, even_if_ended: bool = False) -> None:
        self._check_open()
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._is_ended and not even_if_ended:
            raise trio.ClosedResourceError("send_eof was called")
        self._is_sending = True

    def _check_sending(self) -> None:
        self._check_open()
        if self._is_ended:
            raise trio.ClosedResourceError("send_eof was called")

    @staticmethod
    async def _checkpoint_unless(has_waited: bool) -> None:
        if not has_waited:
            await trio.lowlevel.checkpoint()

    # --- receiving ---------------------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What arrived in order, at least one octet; b"" after the peer's FIN.

        Args:
            max_bytes: at most so many; None for what is there, up to 256 KiB.

        Raises:
            BrokenResourceError: the connection failed, and everything before was received; the cause is an OSError.
            ClosedResourceError: `aclose`, or the end of the tunnel.
            BusyResourceError: another task receives.
        """
        most = _RECEIVE_AT_ONCE if max_bytes is None else operator.index(max_bytes)
        if most < 1:
            raise ValueError(f"max_bytes must be at least 1, got {most}")
        self._check_open()
        device, connection = self._device, self._connection
        if connection.is_readable:
            await trio.lowlevel.checkpoint()
            self._check_open()
        while not connection.is_readable:
            await device.until_readable(connection)
            self._check_open()
        try:
            data = connection.read(most, world.now())
        except OSError as problem:
            raise trio.BrokenResourceError(str(problem)) from problem
        # Reading opens the window, and that may have to be told.
        device.changed()
        return data

    @property
    def is_readable(self) -> bool:
        """Whether `receive_some` would return at once: with octets, the end, or an error."""
        return self._is_closed or self._connection.is_readable or not self._device.is_open

    # --- ends --------------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close; what was sent is still delivered, and then a FIN, or after five seconds a reset.

        When there is unread data, the reset comes at once (RFC 1122 4.2.2.13). Being cancelled changes nothing, as with
        a socket of the system: `trio.serve_listeners` closes forcefully what its handler leaves open. Who wants the
        other end to know that something went wrong calls `abort`.
        """
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """As `aclose`, which waits for nothing but its turn."""
        if not self._is_closed:
            self._is_closed = True
            self._device.wake(self._connection)
            self._connection.close(world.now())
            self._device.changed()

    def abort(self) -> None:
        """Reset the connection."""
        self._is_closed = True
        self._device.wake(self._connection)
        self._connection.abort(world.now())
        self._device.changed()

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this stream was closed")
        self._device.check_open()

    # --- knobs -------------------------------------------------------------------------------------------------------

    def set_no_delay(self, is_on: bool) -> None:
        """Send small pieces at once (True, as at the beginning), or join them while something is on its way (Nagle)."""
        self._connection.set_no_delay(is_on, world.now())
        self._device.changed()

    def set_keepalive(self, keepalive: Keepalive | None) -> None:
        """Ask a silent peer whether it is still there; None to stop."""
        self._connection.set_keepalive(keepalive, world.now())
        self._device.changed()

    def set_user_timeout(self, seconds: float | None) -> None:
        """Break the connection when what was sent is not acknowledged for so long; None for the usual 15 retries.

        Raises:
            ValueError: it is no positive time.
        """
        seconds = checked_user_timeout(seconds)
        self._connection.set_user_timeout(seconds, world.now())
        self._device.changed()

    def tcp_info(self) -> TcpInfo:
        """State, round-trip time, windows, losses: a frozen value."""
        return self._connection.info()

    def __repr__(self) -> str:
        """Both ends."""
        return f"<NetStream {self.local_address} - {self.remote_address}>"
