"""One socket as a stream: patient with a slow reader, not with one that takes nothing; and how TLS begins on it.

The first octet tells who comes: a TLS record shakes hands; plain HTTP is told to use https; anything else gets nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import ssl
import struct
import termios
from typing import Final

import trio

from hub_server.http.limits import READ, Limits

__all__ = ["NotTls", "Transport", "close", "open_tls", "why_tls_failed"]

_TLS_HANDSHAKE: Final = 0x16  # the type of a record, RFC 8446 section 5.1
_HTTPS: Final = b"This port speaks HTTPS: use https:// instead of http:// in the address.\n"
_PLAIN: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
    b"connection: close\r\n\r\n%s" % (len(_HTTPS), _HTTPS)
)
_CLOSING: Final = 5.0  # seconds at most for the end of a connection
_TCP_CLOSE: Final = 7  # the state of a connection that was reset, in Linux's tcp_states.h
_LINGERING: Final = 2**20  # octets of what a client still sends that are read away


class NotTls(Exception):
    """The peer does not speak TLS; the text says what it was."""


class Transport(trio.abc.Stream):
    """A TCP connection that was accepted."""

    def __init__(self, accepted: trio.socket.SocketType, limits: Limits) -> None:
        """Take the socket; it is closed with the stream."""
        self._socket = accepted
        self._limits = limits
        #: Whether the peer may still be sending when the stream is closed: what it sends is read away for a moment,
        #: because closing with unread data resets the connection, and the answer is lost with it.
        self.lingers = False

    def prepare(self) -> None:
        """Set what the socket needs.

        Raises:
            OSError: the connection is gone already.
        """
        for level, option, value in (
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            # A client whose machine is lost without a word is found out in a minute.
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        ):
            self._socket.setsockopt(level, option, value)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, however slowly the peer takes it.

        Raises:
            trio.BrokenResourceError: the peer is gone, or took nothing for `stall` seconds.
        """
        rest = memoryview(data)
        if not rest:
            await trio.lowlevel.checkpoint()
        try:
            while rest:
                rest = rest[await self._send_some(rest) :]
        except OSError as problem:
            raise trio.BrokenResourceError(problem.strerror) from problem

    async def _send_some(self, data: memoryview) -> int:
        while True:
            before = self._untaken()
            with trio.move_on_after(self._limits.stall):
                return await self._socket.send(data)
            # The kernel wakes a sender only when a third of its buffer is free; a slow peer may have taken less.
            if self._untaken() >= before:
                raise trio.BrokenResourceError(f"nothing was taken for {self._limits.stall:g} s")

    def _untaken(self) -> int:
        """Octets that were sent and that the peer has not acknowledged (SIOCOUTQ)."""
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError
        untaken: int = struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
        return untaken

    def has_hung_up(self) -> bool:
        """Whether the peer broke the connection off, as far as the kernel knows without reading."""
        try:
            return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
        except OSError:
            return True

    async def wait_send_all_might_not_block(self) -> None:
        """Part of the interface."""
        await trio.lowlevel.wait_writable(self._socket)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What came; empty at its end.

        Raises:
            trio.BrokenResourceError: the connection was reset.
        """
        try:
            return await self._socket.recv(max_bytes or READ)
        except OSError as problem:
            if problem.errno in (errno.EBADF, errno.ENOTSOCK):
                raise trio.ClosedResourceError from None
            raise trio.BrokenResourceError(problem.strerror) from problem

    async def first_octets(self) -> bytes:
        """What the peer says first, without taking it; empty when it says nothing."""
        try:
            return await self._socket.recv(8, socket.MSG_PEEK)
        except OSError as problem:
            raise trio.BrokenResourceError(problem.strerror) from problem

    async def aclose(self) -> None:
        """Close; with `lingers`, after what the peer still sends."""
        try:
            if self.lingers:
                with contextlib.suppress(OSError), trio.move_on_after(self._limits.linger):
                    self._socket.shutdown(socket.SHUT_WR)
                    await self._read_away()
            await trio.lowlevel.checkpoint()
        finally:
            self._socket.close()

    async def _read_away(self) -> None:
        total = 0
        while total < _LINGERING and (data := await self._socket.recv(READ)):
            total += len(data)

    def break_off(self, *, is_reset: bool) -> None:
        """Close at once; with `is_reset` so that a peer without TLS, too, sees that it was no proper end."""
        with contextlib.suppress(OSError):
            if is_reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


async def open_tls(transport: Transport, context: ssl.SSLContext, limits: Limits) -> trio.SSLStream[Transport] | None:
    """Shake hands; None when the peer left without a word.

    Raises:
        NotTls: it speaks something else; HTTP was told so.
        trio.BrokenResourceError: the handshake failed; `why_tls_failed` tells why.
        trio.TooSlowError: it took too long.
    """
    with trio.fail_after(limits.handshake):
        first = await transport.first_octets()
        if not first:
            return None
        if first[0] != _TLS_HANDSHAKE:
            is_http = first[:1].isalpha() and first.isascii()
            if is_http:
                transport.lingers = True
                await transport.send_all(_PLAIN)
            raise NotTls("plain HTTP" if is_http else "no HTTP either")
        stream = trio.SSLStream(transport, context, server_side=True)
        await stream.do_handshake()
        return stream


def why_tls_failed(problem: BaseException) -> tuple[str, str]:
    """What went wrong with TLS, for a log line: its kind, and the word of the TLS library."""
    cause = problem.__cause__
    reason = (cause.reason or "") if isinstance(cause, ssl.SSLError) else ""
    words = reason.replace("_", " ").lower()
    if any(word in words for word in ("unknown ca", "certificate unknown", "bad certificate", "certificate expired")):
        return "a client does not trust the certificate", words
    if not words or "eof" in words:
        return "a client hung up in the TLS handshake", ""
    return "a TLS handshake failed", words


async def close(stream: trio.abc.Stream) -> None:
    """Close a stream, with a short time for what is said and heard at the end."""
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(_CLOSING):
        await stream.aclose()
