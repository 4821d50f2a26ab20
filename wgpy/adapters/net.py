"""What every face asks of a tunnel: to dial, to listen, to send datagrams, to resolve names, to ping.

`wgpy.open_tunnel(config)` gives a tunnel whose `net` is all of this. The faces know it by these protocols only, so that
a test can put plain sockets in its place. Names are resolved by whoever implements `Net`, in the tunnel: no face ever
asks the host's resolver.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

import trio

from wgpy.errors import WgpyError

__all__ = [
    "DIAL_ERRORS",
    "Address",
    "Datagrams",
    "Listener",
    "Net",
    "Stream",
    "Tunnel",
    "abort",
    "as_os_error",
    "ends_of",
    "reset_at_close",
]

# A host (address or name) and a port.
Address: TypeAlias = tuple[str, int]

# What dialling raises when it does not succeed; `as_os_error` makes one kind of them.
DIAL_ERRORS: Final = (OSError, WgpyError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


class Stream(Protocol):
    """A TCP connection: `trio.abc.HalfCloseableStream`."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it."""
        ...

    async def wait_send_all_might_not_block(self) -> None:
        """Return when there is room."""
        ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What has come, `b""` at the end."""
        ...

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        ...

    async def aclose(self) -> None:
        """Close it."""
        ...


class Listener(Protocol):
    """A TCP listener: `trio.abc.Listener`."""

    async def accept(self) -> Any:
        """The next connection, a `Stream`."""
        ...

    async def aclose(self) -> None:
        """Close it."""
        ...


class Datagrams(Protocol):
    """A UDP socket."""

    async def send(self, data: bytes) -> None:
        """Send to the address that it is connected to."""
        ...

    async def receive(self) -> bytes:
        """The next datagram of the address that it is connected to."""
        ...

    async def send_to(self, data: bytes, remote: Address) -> None:
        """Send to this address."""
        ...

    async def receive_from(self) -> tuple[bytes, Address]:
        """The next datagram and where it came from."""
        ...

    async def aclose(self) -> None:
        """Close it."""
        ...


class Net(Protocol):
    """The network at the far end of a tunnel."""

    async def open_tcp_stream(self, host: str, port: int) -> Any:
        """Connect to a host, by address or name; gives a `Stream`."""
        ...

    async def open_tcp_listeners(self, port: int, *, host: str | None = None) -> Sequence[Any]:
        """Listen on our addresses in the tunnel; gives `Listener`s."""
        ...

    async def open_udp(self, *, local: Address | None = None, remote: Address | None = None) -> Any:
        """Open a UDP socket, connected if there is a remote address; gives `Datagrams`."""
        ...

    async def ping(self, host: str, *, size: int = 56, timeout: float = 1.0) -> float:  # noqa: ASYNC109 - as in the API
        """Seconds until an echo reply came."""
        ...

    async def getaddrinfo(self, host: str, port: int) -> Sequence[Any]:
        """Look a name up in the tunnel: what `socket.getaddrinfo` gives."""
        ...


class Tunnel(Protocol):
    """What `wgpy.open_tunnel` gives."""

    @property
    def net(self) -> Net:
        """The network at its far end."""
        ...


def ends_of(stream: Any) -> tuple[Address, Address]:
    """Our address and the peer's, of a stream of the tunnel or of the system."""
    if isinstance(stream, trio.SocketStream):
        return stream.socket.getsockname()[:2], stream.socket.getpeername()[:2]
    return stream.local_address[:2], stream.remote_address[:2]


def reset_at_close(stream: Any) -> None:
    """Let the end of a connection be a reset and not an orderly one."""
    if isinstance(stream, trio.SocketStream):
        # RFC 9293 3.10.5 by way of socket(7): to linger for no time is to send RST.
        with contextlib.suppress(OSError):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif hasattr(stream, "abort"):
        stream.abort()


async def abort(stream: Any) -> None:
    """Break a connection off, so that the other side sees a reset."""
    reset_at_close(stream)
    await trio.aclose_forcefully(stream)


def as_os_error(problem: BaseException) -> OSError:
    """The error that a kernel socket would have given.

    An attempt over several addresses fails with one error that has no number and the errors of all of them behind it:
    the first of these is what `socket.create_connection` would raise.
    """
    if isinstance(problem, OSError) and (problem.errno is not None or isinstance(problem, TimeoutError)):
        if isinstance(problem, TimeoutError) and problem.errno is None:
            return TimeoutError(errno.ETIMEDOUT, str(problem) or os.strerror(errno.ETIMEDOUT))
        return problem
    if isinstance(problem, BaseExceptionGroup):
        return as_os_error(problem.exceptions[0])
    if problem.__cause__ is not None:
        return as_os_error(problem.__cause__)
    if isinstance(problem, trio.TooSlowError):
        return TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    if isinstance(problem, trio.ClosedResourceError):
        return OSError(errno.EBADF, str(problem) or os.strerror(errno.EBADF))
    if isinstance(problem, trio.BrokenResourceError):
        return ConnectionResetError(errno.ECONNRESET, str(problem) or os.strerror(errno.ECONNRESET))
    if isinstance(problem, WgpyError):
        return OSError(errno.ENETDOWN, str(problem) or os.strerror(errno.ENETDOWN))
    return problem if isinstance(problem, OSError) else OSError(errno.EIO, str(problem))
