"""anyio's words over two nets in memory."""

from __future__ import annotations

import socket

import anyio
import anyio.abc
import anyio.streams.buffered
import pytest
import trio
import trio.testing
from anyio.abc import SocketAttribute

from tests.runtime.links import joined_nets
from wgpy.adapters.anyio import (
    ByteStream,
    TunnelConnectable,
    connect_tcp,
    create_connected_udp_socket,
    create_tcp_listener,
    create_udp_socket,
)


async def shout(stream: anyio.abc.ByteStream) -> None:
    async with stream:
        words = b"".join([data async for data in stream])
        await stream.send(words.upper())


async def test_streams_half_close_and_know_their_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b), anyio.create_task_group() as tasks:
        listener = await create_tcp_listener(b.net, 80)
        assert listener.extra(SocketAttribute.local_port) == 80
        tasks.start_soon(listener.serve, shout)
        async with await TunnelConnectable(a.net, "10.0.0.2", 80).connect() as stream:
            assert stream.extra(SocketAttribute.remote_address) == ("10.0.0.2", 80)
            assert stream.extra(SocketAttribute.remote_port) == 80
            assert stream.extra(SocketAttribute.local_address)[0] == "10.0.0.1"
            await stream.send(b"quiet")
            await stream.send_eof()
            assert await stream.receive() == b"QUIET"
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
        tasks.cancel_scope.cancel()
        await listener.aclose()


async def test_errors_are_anyio_s(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b):
        with pytest.raises(ConnectionRefusedError):
            await connect_tcp(a.net, "10.0.0.2", 81)
        [listener] = await b.net.open_tcp_listeners(80)
        stream = await connect_tcp(a.net, "10.0.0.2", 80)
        other = ByteStream(await listener.accept())
        await other.abort()
        with pytest.raises(anyio.BrokenResourceError) as broken:
            await stream.receive()
        assert isinstance(broken.value.__cause__, OSError)
        with pytest.raises(anyio.BrokenResourceError):
            await stream.send(b"x")
        await stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"x")
        await listener.aclose()


async def test_datagrams(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b):
        async with (
            await create_udp_socket(b.net, ("10.0.0.2", 53)) as server,
            await create_connected_udp_socket(a.net, "10.0.0.2", 53) as client,
        ):
            await client.send(b"question")
            question, source = await server.receive()
            assert (question, source[0]) == (b"question", "10.0.0.1")
            await server.sendto(b"answer", *source)
            assert await client.receive() == b"answer"
        with pytest.raises(anyio.ClosedResourceError):
            await client.send(b"x")
        with pytest.raises(anyio.ClosedResourceError):
            await server.receive()


async def test_a_name_that_nobody_knows(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (_, b):
        with pytest.raises(socket.gaierror):
            await connect_tcp(b.net, "localhost", 80)


async def test_one_client_ends_nothing_but_its_own_connection(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async def serve(stream: anyio.abc.ByteStream) -> None:
        word = await anyio.streams.buffered.BufferedByteReceiveStream(stream).receive_exactly(4)
        if word == b"oops":
            raise RuntimeError("a defect")
        await stream.send(word.upper())
        await stream.aclose()

    async with joined_nets() as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon((await create_tcp_listener(b.net, 80)).serve, serve)
        for octets in (b"ab", b"oops"):
            bad = await connect_tcp(a.net, "10.0.0.2", 80)
            await bad.send(octets)
            await bad.send_eof()
            with pytest.raises(anyio.BrokenResourceError):
                await bad.receive()
            good = await connect_tcp(a.net, "10.0.0.2", 80)
            await good.send(b"word")
            assert await good.receive() == b"WORD"
        nursery.cancel_scope.cancel()
    [told] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "10.0.0.1" in told.getMessage()
