"""httpx and httpcore over a tunnel, client by client, nothing global.

    transport = httpx.AsyncHTTPTransport()
    transport._pool = httpcore.AsyncConnectionPool(network_backend=NetBackend(tunnel.net), ssl_context=...)

Names are resolved inside the tunnel, TLS is `trio.SSLStream`.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import httpcore
import trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator

    from wgpy.runtime.net import Net

__all__ = ["NetBackend"]


class NetBackend(httpcore.AsyncNetworkBackend):
    """Connections for `httpcore.AsyncConnectionPool(network_backend=...)`."""

    def __init__(self, net: Net) -> None:
        """Dial through this tunnel."""
        self._net = net

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 # the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,  # there is no socket of the system
    ) -> httpcore.AsyncNetworkStream:
        """Connect; see httpcore."""
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError), _limit(timeout):
            return _Stream(await self._net.open_tcp_stream(host, port, local=local_address))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 # likewise
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no such socket lies inside a tunnel."""
        raise httpcore.ConnectError(f"{path}: a tunnel leads to no Unix socket")

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await trio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A stream with the words of httpcore."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        with _translated(httpcore.ReadTimeout, httpcore.ReadError), _limit(timeout):
            return bytes(await self._stream.receive_some(max_bytes))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        if buffer:
            with _translated(httpcore.WriteTimeout, httpcore.WriteError), _limit(timeout):
                await self._stream.send_all(buffer)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        secured = trio.SSLStream(self._stream, ssl_context, server_hostname=server_hostname, https_compatible=True)
        try:
            with _translated(httpcore.ConnectTimeout, httpcore.ConnectError), _limit(timeout):
                await secured.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(self._stream)
            raise
        return _Stream(secured)

    def get_extra_info(self, info: str) -> Any:
        stream = self._stream
        if info == "ssl_object" and isinstance(stream, trio.SSLStream):
            return stream._ssl_object
        plain = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        names = {"client_addr": "local_address", "server_addr": "remote_address"}
        return getattr(plain, names[info]) if info in names else None


def _limit(seconds: float | None) -> Any:
    return trio.fail_after(math.inf if seconds is None else seconds)


@contextlib.contextmanager
def _translated(timeout: type[Exception], other: type[Exception]) -> Iterator[None]:
    """The errors of trio and of dialling as those of httpcore."""
    try:
        yield
    except (trio.TooSlowError, TimeoutError) as problem:
        raise timeout(str(problem)) from problem
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as problem:
        raise other(str(problem)) from problem
