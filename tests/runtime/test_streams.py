"""NetStream and NetListener: trio's own checks, the ends of connections, and what the caller sees of them."""

from __future__ import annotations

import trio
import trio.testing

from tests.runtime.links import Host, joined_nets
from wgpy.runtime.streams import NetStream


async def connected(a: Host, b: Host, host: str = "10.0.0.2", port: int = 80) -> tuple[NetStream, NetStream]:
    """A stream from a to b, and the other end of it."""
    [listener] = await b.net.open_tcp_listeners(port)
    async with listener:
        stream = await a.net.open_tcp_stream(host, port)
        return stream, await listener.accept()


# --- trio's own checks -----------------------------------------------------------------------------------------------


async def test_trio_s_check_of_half_closeable_streams(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b):

        async def make() -> tuple[NetStream, NetStream]:
            return await connected(a, b)

        async def make_clogged() -> tuple[NetStream, NetStream]:
            one, other = await connected(a, b)
            # Nobody reads at either end: fill all buffers.
            for stream in (one, other):
                with trio.move_on_after(1):
                    while True:
                        await stream.send_all(bytes(2**16))
            return one, other

        await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_trio_s_check_of_two_way_streams(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b):

        async def make() -> tuple[NetStream, NetStream]:
            return await connected(a, b, "fd00::2")

        await trio.testing.check_two_way_stream(make, None)
