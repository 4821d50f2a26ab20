"""Two streams joined."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from tests.adapters.standin import echo_when_done, hang_up, read_all, serving
from wgpy.adapters.relay import Traffic, relay


async def test_half_close_survives() -> None:
    client, first = trio.testing.memory_stream_pair()
    second, server = trio.testing.memory_stream_pair()
    traffic = Traffic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo_when_done, server)
        nursery.start_soon(lambda: relay(first, second, traffic=traffic))
        await client.send_all(b"question")
        await client.send_eof()
        assert await read_all(client) == b"question"
    assert (traffic.up, traffic.down) == (8, 8)


async def test_the_other_direction_half_closes_too() -> None:
    client, first = trio.testing.memory_stream_pair()
    second, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, first, second)
        await server.send_all(b"bye")
        await server.send_eof()
        assert await read_all(client) == b"bye"
        await client.send_all(b"and this")
        await client.send_eof()
        assert await read_all(server) == b"and this"


async def test_a_reset_is_passed_on_as_a_reset() -> None:
    async with serving(hang_up) as port, trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        first = await listener.accept()
        nursery.start_soon(relay, first, await trio.open_tcp_stream("127.0.0.1", port))
        with pytest.raises(trio.BrokenResourceError) as caught:
            await read_all(client)
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.ECONNRESET
        await client.aclose()
        await listener.aclose()


async def test_silence_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    client, first = trio.testing.memory_stream_pair()
    second, server = trio.testing.memory_stream_pair()
    outcome: list[BaseException | None] = []

    async def run() -> None:
        outcome.append(await relay(first, second, idle_timeout=100))

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        for _ in range(5):
            await trio.sleep(60)
            await client.send_all(b"tick")
            assert await server.receive_some() == b"tick"
    assert isinstance(outcome[0], TimeoutError)
    assert trio.current_time() - started == pytest.approx(400)
    assert await client.receive_some() == b""


async def test_who_has_said_everything_is_waited_for_less_long(autojump_clock: trio.testing.MockClock) -> None:
    client, first = trio.testing.memory_stream_pair()
    second, server = trio.testing.memory_stream_pair()
    outcome: list[BaseException | None] = []

    async def run() -> None:
        outcome.append(await relay(first, second, idle_timeout=7440, half_closed_timeout=240))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(1000)
        await client.send_all(b"question")
        await client.send_eof()
        assert await server.receive_some() == b"question"
        # A slow answer is still let through, as long as it goes on.
        for _ in range(3):
            await trio.sleep(200)
            await server.send_all(b"part")
            assert await client.receive_some() == b"part"
        started = trio.current_time()
    assert trio.current_time() - started == pytest.approx(240)
    assert isinstance(outcome[0], TimeoutError)
