"""A stream that was closed in good order still delivers what was sent, whoever closes it once more."""

from __future__ import annotations

import trio
import trio.testing

from tests.runtime.links import joined_nets
from wgpy.runtime.streams import NetStream


async def test_a_handler_that_closes_its_stream_delivers_everything(autojump_clock: trio.testing.MockClock) -> None:
    """`trio.serve_listeners` closes the stream of a handler that has ended once more, forcefully."""

    async def handler(stream: NetStream) -> None:
        await stream.send_all(bytes(1_000_000))
        await stream.aclose()

    async with joined_nets() as (a, b), trio.open_nursery() as nursery:
        await nursery.start(b.net.serve_tcp, handler, 80)
        stream = await a.net.open_tcp_stream("10.0.0.2", 80)
        assert sum([len(data) async for data in stream]) == 1_000_000
        nursery.cancel_scope.cancel()
