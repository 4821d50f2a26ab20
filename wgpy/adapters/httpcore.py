"""httpcore over a tunnel, client by client, nothing global: under trio, under asyncio, and in plain threads.

    httpcore.AsyncConnectionPool(network_backend=backend(tunnel))     under trio and asyncio
    httpcore.ConnectionPool(network_backend=backend(tunnel))          with `wgpy.sync.open_tunnel`

Names are resolved in the tunnel. For httpx see `wgpy.adapters.httpx`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import select
import ssl
from typing import TYPE_CHECKING, Any, Final, overload

import httpcore
import trio

from wgpy.adapters import asyncio as asyncio_face
from wgpy.adapters import sync as sync_face
from wgpy.adapters.net import DIAL_ERRORS

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator

    from wgpy.adapters.net import Net, Tunnel

__all__ = ["AsyncioBackend", "NetBackend", "SyncBackend", "backend"]

_NO_UNIX_SOCKETS: Final = "a tunnel leads to no Unix socket"


@overload
def backend(tunnel: sync_face.Tunnel) -> SyncBackend: ...
@overload
def backend(tunnel: asyncio_face.Tunnel) -> AsyncioBackend: ...
@overload
def backend(tunnel: Tunnel) -> NetBackend: ...
def backend(tunnel: Any) -> SyncBackend | AsyncioBackend | NetBackend:
    """The network backend for a tunnel, whichever face of it this is."""
    if isinstance(tunnel, sync_face.Tunnel):
        return SyncBackend(tunnel)
    if isinstance(tunnel, asyncio_face.Tunnel):
        return AsyncioBackend(tunnel)
    return NetBackend(tunnel.net)


@contextlib.contextmanager
def _translated(timeout: type[Exception], other: type[Exception]) -> Iterator[None]:
    """The errors of dialling, of trio and of sockets, as those of httpcore."""
    try:
        yield
    except (trio.TooSlowError, TimeoutError) as problem:
        raise timeout(str(problem)) from problem
    except DIAL_ERRORS as problem:
        raise other(str(problem)) from problem


def _is_readable(connection: Any) -> bool:
    """Whether an idle connection has something to read: its server has said goodbye, and it is not to be used again."""
    if connection.fileno() < 0:
        return True
    look = select.poll()  # unlike `select`, for any number of descriptors
    look.register(connection.fileno(), select.POLLIN)
    return bool(look.poll(0))


# --- trio ------------------------------------------------------------------------------------------------------------


class NetBackend(httpcore.AsyncNetworkBackend):
    """Connections for `httpcore.AsyncConnectionPool(network_backend=...)` under trio."""

    def __init__(self, net: Net) -> None:
        """Dial through this tunnel."""
        self._net = net

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,  # the tunnel chooses
        socket_options: Iterable[Any] | None = None,  # there is no socket of the system
    ) -> httpcore.AsyncNetworkStream:
        """Connect; see httpcore."""
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError), _limit(timeout):
            return _TrioStream(await self._net.open_tcp_stream(host, port))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - likewise
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no such socket lies inside a tunnel."""
        raise httpcore.ConnectError(f"{path}: {_NO_UNIX_SOCKETS}")

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await trio.sleep(seconds)


class _TrioStream(httpcore.AsyncNetworkStream):
    """A stream with the words of httpcore."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - likewise
        with _translated(httpcore.ReadTimeout, httpcore.ReadError), _limit(timeout):
            return bytes(await self._stream.receive_some(max_bytes))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - likewise
        if buffer:
            with _translated(httpcore.WriteTimeout, httpcore.WriteError), _limit(timeout):
                await self._stream.send_all(buffer)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - likewise
    ) -> httpcore.AsyncNetworkStream:
        secured = trio.SSLStream(self._stream, ssl_context, server_hostname=server_hostname, https_compatible=True)
        try:
            with _translated(httpcore.ConnectTimeout, httpcore.ConnectError), _limit(timeout):
                await secured.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(self._stream)
            raise
        return _TrioStream(secured)

    def get_extra_info(self, info: str) -> Any:
        stream = self._stream
        if info == "ssl_object" and isinstance(stream, trio.SSLStream):
            return stream._ssl_object
        plain = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        if info == "is_readable":
            return plain.is_readable if hasattr(plain, "is_readable") else _is_readable(plain.socket)
        names = {"client_addr": "local_address", "server_addr": "remote_address"}
        return getattr(plain, names[info], None) if info in names else None


def _limit(seconds: float | None) -> contextlib.AbstractContextManager[object]:
    return trio.fail_after(math.inf if seconds is None else seconds)


# --- asyncio ---------------------------------------------------------------------------------------------------------


class AsyncioBackend(httpcore.AsyncNetworkBackend):
    """Connections for `httpcore.AsyncConnectionPool(network_backend=...)` under asyncio."""

    def __init__(self, tunnel: asyncio_face.Tunnel) -> None:
        """Dial through this tunnel."""
        self._tunnel = tunnel

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,  # the tunnel chooses
        socket_options: Iterable[Any] | None = None,  # they would be those of the loopback interface
    ) -> httpcore.AsyncNetworkStream:
        """Connect; see httpcore."""
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
            async with asyncio.timeout(timeout):
                return _AsyncioStream(*await self._tunnel.open_connection(host, port))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - likewise
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no such socket lies inside a tunnel."""
        raise httpcore.ConnectError(f"{path}: {_NO_UNIX_SOCKETS}")

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)


class _AsyncioStream(httpcore.AsyncNetworkStream):
    """Reader and writer with the words of httpcore."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - likewise
        with _translated(httpcore.ReadTimeout, httpcore.ReadError):
            async with asyncio.timeout(timeout):
                return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - likewise
        with _translated(httpcore.WriteTimeout, httpcore.WriteError):
            self._writer.write(buffer)
            async with asyncio.timeout(timeout):
                await self._writer.drain()

    async def aclose(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - likewise
    ) -> httpcore.AsyncNetworkStream:
        try:
            with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
                async with asyncio.timeout(timeout):
                    await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except BaseException:
            self._writer.close()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            # What was read ahead counts as well: nobody asked for it. There is no public word for it.
            reader = self._reader
            is_broken = reader.exception() is not None or self._writer.is_closing()
            return bool(is_broken or reader.at_eof() or reader._buffer)  # type: ignore[attr-defined]
        return self._writer.get_extra_info(info)


# --- threads ---------------------------------------------------------------------------------------------------------


class SyncBackend(httpcore.NetworkBackend):
    """Connections for `httpcore.ConnectionPool(network_backend=...)`."""

    def __init__(self, tunnel: sync_face.Tunnel) -> None:
        """Dial through this tunnel."""
        self._tunnel = tunnel

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # the tunnel chooses
        socket_options: Iterable[Any] | None = None,  # they would be those of the loopback interface
    ) -> httpcore.NetworkStream:
        """Connect; see httpcore."""
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
            return _SyncStream(self._tunnel.create_connection((host, port), timeout))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Refuse: no such socket lies inside a tunnel."""
        raise httpcore.ConnectError(f"{path}: {_NO_UNIX_SOCKETS}")


class _SyncStream(httpcore.NetworkStream):
    """A socket with the words of httpcore."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _translated(httpcore.ReadTimeout, httpcore.ReadError):
            self._socket.settimeout(timeout)
            return self._socket.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _translated(httpcore.WriteTimeout, httpcore.WriteError):
            self._socket.settimeout(timeout)
            self._socket.sendall(buffer)

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
                self._socket.settimeout(timeout)
                return _SyncStream(ssl_context.wrap_socket(self._socket, server_hostname=server_hostname))
        except BaseException:
            self.close()
            raise

    def get_extra_info(self, info: str) -> Any:
        match info:
            case "ssl_object":
                return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
            case "socket":
                return self._socket
            case "is_readable":
                return _is_readable(self._socket)
        return None
