"""A genuine connected socket for libraries that need a file descriptor: its other end is pumped into the tunnel."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import trio

from wgpy.adapters.relay import relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wgpy.runtime.net import Net

__all__ = ["open_socket"]


@contextlib.asynccontextmanager
async def open_socket(net: Net, host: str, port: int) -> AsyncIterator[socket.socket]:
    """Connect through a tunnel, and give a blocking socket of the system that leads there.

    The socket is for synchronous code in a thread (`trio.to_thread.run_sync`); it is closed at the end. Half-close
    works both ways.

    Args:
        net: of the tunnel.
        host: name or address.
        port: of the host.

    Raises:
        OSError: as `Net.open_tcp_stream`.
    """
    stream = await net.open_tcp_stream(host, port)
    ours, theirs = socket.socketpair()
    with theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay, trio.SocketStream(trio.socket.from_stdlib_socket(ours)), stream)
            try:
                yield theirs
            finally:
                theirs.close()
