"""A tunnel for plain threads: `wgpy.sync.open_tunnel`. Its sockets are genuine `socket.socket` objects.

    with wgpy.sync.open_tunnel(config) as tunnel:
        connection = tunnel.create_connection(("intranet.example", 80), timeout=10)

What takes a socket takes these (paramiko, `http.client`, `ssl`); for `requests`, `urllib3` and `httpx` there are
modules of these names in `wgpy.adapters`; what insists on dialling by itself (psycopg and its libpq) dials a port that
`Tunnel.forward` opens here. Every method may be called from any thread, and blocks that thread only.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import functools
import os
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from wgpy.adapters.proxies.forwards import Forward
from wgpy.adapters.proxies.gate import Gate
from wgpy.adapters.proxies.service import Doors, run_service
from wgpy.adapters.thread import TunnelThread
from wgpy.runtime.tunnel import open_tunnel as open_trio_tunnel

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from types import TracebackType

    from wgpy.adapters.net import Address
    from wgpy.adapters.thread import RemoteListener
    from wgpy.config import InterfaceConfig

__all__ = ["Listener", "Tunnel", "open_tunnel"]

T = TypeVar("T")


@contextlib.contextmanager
def open_tunnel(config: InterfaceConfig, *, keylog: Callable[[str], None] | None = None) -> Iterator[Tunnel]:
    """Hold a tunnel in a thread of its own; no privilege, no event loop of the caller.

    Args:
        config: needs addresses; `DNS =` are the name servers asked through the tunnel.
        keylog: called with one line per handshake secret, in the thread of the tunnel.

    Raises:
        ConfigError: there is no address.
        EndpointUnresolved: an endpoint's name has no address, or no name server answered.
        DeviceError: the port is taken or the mark not allowed.
    """
    thread = TunnelThread(functools.partial(open_trio_tunnel, config, keylog=keylog))
    thread.start()
    try:
        yield Tunnel(thread)
    finally:
        thread.close()


class Tunnel:
    """A tunnel that every thread may use."""

    def __init__(self, thread: TunnelThread) -> None:
        """Use `open_tunnel`."""
        self._thread = thread

    def create_connection(self, address: Address, timeout: float | None = None) -> socket.socket:
        """Connect through the tunnel, like `socket.create_connection`.

        Args:
            address: host, by name or address, and port. Names are resolved in the tunnel.
            timeout: seconds to wait, and then the timeout of the socket; None for no limit.

        Raises:
            OSError: as a kernel socket would: ECONNREFUSED, ETIMEDOUT, ENETUNREACH and so on.
            gaierror: the name has no address in the tunnel.
        """
        connection = self._wait(timeout, self._thread.connect, *address, dispose=_close)
        connection.settimeout(timeout)
        return connection

    def create_server(self, port: int, host: str | None = None) -> Listener:
        """Listen in the tunnel.

        Args:
            port: of our addresses there.
            host: one of these addresses; None for all.

        Raises:
            OSError: EADDRINUSE, EADDRNOTAVAIL.
        """
        return Listener(self, self._wait(None, self._thread.listen, port, host))

    def create_datagram_socket(self, remote: Address) -> socket.socket:
        """A connected socket for datagrams to one host: `send` and `recv`.

        Raises:
            OSError: ENETUNREACH, EHOSTUNREACH.
            gaierror: the name has no address in the tunnel.
        """
        return self._wait(None, self._thread.open_datagrams, remote, dispose=_close)

    def ping(self, host: str, *, size: int = 56, timeout: float = 1.0) -> float:
        """Seconds until a host answered an echo request of so many octets.

        Raises:
            TimeoutError: it did not in time.
            OSError: it cannot be reached.
        """
        return self._wait(None, functools.partial(self._thread.net.ping, host, size=size, timeout=timeout))

    def getaddrinfo(self, host: str, port: int) -> Sequence[Any]:
        """Look a name up in the tunnel; never asks the host's resolver.

        Raises:
            gaierror: it has no address there.
        """
        return self._wait(None, self._thread.net.getaddrinfo, host, port)

    @contextlib.contextmanager
    def forward(self, host: str, port: int) -> Iterator[Address]:
        """Lead a port of the loopback interface to a host in the tunnel, for libraries that dial by themselves.

        Yields:
            Address and port to dial, for instance for `psycopg.connect(host=..., port=...)`. Other programs of this
            machine can dial it too.
        """
        opened: concurrent.futures.Future[Address] = concurrent.futures.Future()
        doors = Doors(local=(Forward(None, 0, (host, port)),))

        def on_open(lines: list[str]) -> None:
            here = lines[0].split()[1].rpartition(":")
            opened.set_result((here[0], int(here[2])))

        async def serve() -> None:
            await run_service(doors, self._thread.net, Gate(), stop=trio.Event(), on_open=on_open)

        running = self._thread.submit(serve)
        running.add_done_callback(lambda done: _fail(opened, done))
        try:
            yield opened.result()
        finally:
            running.cancel()

    def _wait(
        self,
        timeout: float | None,
        function: Callable[..., Awaitable[T]],
        *arguments: Any,
        dispose: Callable[[T], object] | None = None,
    ) -> T:
        future = self._thread.submit(function, *arguments, dispose=dispose)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            if not future.cancel():
                return future.result()  # it ended at this very moment, or its own error is a timeout
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        except BaseException:  # Ctrl-C
            future.cancel()
            raise


class Listener:
    """Accepts connections in the tunnel; a context that closes it."""

    def __init__(self, tunnel: Tunnel, remote: RemoteListener) -> None:
        """Use `Tunnel.create_server`."""
        self._tunnel, self._remote = tunnel, remote

    def accept(self, timeout: float | None = None) -> tuple[socket.socket, Address]:
        """The next connection, and who it is in the tunnel.

        Raises:
            TimeoutError: nobody came in time.
            OSError: EBADF when the listener was closed.
        """
        return self._tunnel._wait(timeout, self._remote.accept, dispose=lambda accepted: accepted[0].close())

    def close(self) -> None:
        """Close it; connections that were accepted go on."""
        with contextlib.suppress(OSError):
            self._tunnel._wait(None, self._remote.close)

    def __enter__(self) -> Listener:
        """Use it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def _close(connection: socket.socket) -> None:
    connection.close()


def _fail(opened: concurrent.futures.Future[Any], done: concurrent.futures.Future[Any]) -> None:
    """Whoever waits for something that ended before it was ready learns why."""
    if not opened.done() and not done.cancelled():
        opened.set_exception(done.exception() or OSError(errno.ENETDOWN, "the tunnel is closed"))
