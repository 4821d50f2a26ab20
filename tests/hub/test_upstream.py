"""HTTP to an edge, without a tunnel: time that passes, connections that die, and bodies that nobody wants."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from hub_server.upstream import EdgeFault, Upstream
from hub_server.wire import Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Line:
    """A wire whose every stream ends here."""

    def __init__(self) -> None:
        self.ends: list[trio.abc.HalfCloseableStream] = []
        self.mine: list[Any] = []
        self.why = "the edge was restarted"
        self.at_rest = True

    async def dial(self, cluster_id: str) -> Any:
        mine, theirs = memory_stream_pair()
        stream: Any = mine
        self.mine.append(stream)
        stream.abort = lambda: (mine.send_stream.close(), mine.receive_stream.close())
        self.ends.append(theirs)
        return stream

    def is_at_rest(self, stream: Any) -> bool:
        return self.at_rest

    def why_lost(self, stream: Any) -> str:
        return self.why


async def answered(upstream: Upstream, method: str = "GET") -> bytes:
    async with upstream.request("cl_1", method, "/", []) as answer:
        return await answer.piece()


async def test_a_head_may_come_with_the_first_line_of_a_log_hours_later(autojump_clock: MockClock) -> None:
    line = Line()
    upstream = Upstream(cast(Wire, line))
    async with trio.open_nursery() as nursery:
        got: list[bytes] = []

        async def follow() -> None:
            got.append(await answered(upstream))

        nursery.start_soon(follow)
        await trio.sleep(8 * 3600)
        assert got == []
        await line.ends[0].send_all(OK)
    assert got == [b"{}"]


async def test_a_head_of_a_request_with_a_body_may_come_late_as_well(autojump_clock: MockClock) -> None:
    line = Line()
    upstream = Upstream(cast(Wire, line))

    async def body(send: Callable[[bytes], Awaitable[None]]) -> None:
        await send(b"{}")

    async with trio.open_nursery() as nursery:

        async def late() -> None:
            await trio.sleep(3600)
            await line.ends[0].send_all(OK)

        nursery.start_soon(late)
        async with upstream.request("cl_1", "POST", "/", [], body, length=2) as answer:
            assert answer.status == 200


async def test_an_edge_that_takes_nothing_is_given_up(autojump_clock: MockClock) -> None:
    line = Line()
    upstream = Upstream(cast(Wire, line))

    async def dial(cluster_id: str) -> Any:
        mine, _ = trio.testing.lockstep_stream_pair()
        mine.abort = lambda: None  # type: ignore[attr-defined]
        return mine

    line.dial = dial  # type: ignore[method-assign]
    with pytest.raises(EdgeFault, match="did not take"):
        await answered(upstream)


async def test_the_fault_says_why_the_connection_was_cut() -> None:
    line = Line()
    upstream = Upstream(cast(Wire, line))

    async def die() -> None:
        await trio.testing.wait_all_tasks_blocked()
        line.mine[0].abort()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(die)
        with pytest.raises(EdgeFault, match="the edge was restarted"):
            await answered(upstream)


async def test_a_kept_connection_that_died_is_not_used_for_what_must_not_be_repeated() -> None:
    """A POST on it would fail though the edge is well."""
    line = Line()
    upstream = Upstream(cast(Wire, line))

    async def serve() -> None:
        await trio.testing.wait_all_tasks_blocked()
        await line.ends[-1].send_all(OK)

    for dialled, line.at_rest in ((1, True), (1, True), (2, False)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            assert await answered(upstream, "POST") == b"{}"
        assert len(line.ends) == dialled


@pytest.mark.parametrize(("number", "dialled"), [(errno.ECONNRESET, 2), (errno.ETIMEDOUT, 1)])
async def test_a_kept_connection_that_broke_is_replaced_and_one_that_was_silent_is_not(
    number: int, dialled: int
) -> None:
    """An edge that is gone would let the second dial wait for its time as well."""
    line = Line()
    upstream = Upstream(cast(Wire, line))

    async def serve(at: int) -> None:
        while len(line.ends) <= at:
            await trio.testing.wait_all_tasks_blocked()
        await line.ends[at].send_all(OK)

    async def broken() -> None:
        raise trio.BrokenResourceError from OSError(number, os.strerror(number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, 0)
        await answered(upstream)
    line.mine[0].receive_stream.receive_some_hook = broken
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, 1)
        if dialled == 2:
            assert await answered(upstream) == b"{}"
        else:
            with pytest.raises(EdgeFault):
                await answered(upstream)
        nursery.cancel_scope.cancel()
    assert len(line.ends) == dialled


async def test_the_rest_of_a_body_is_taken_after_the_edge_stopped_reading_it() -> None:
    """Its sender must come to read the answer that the edge gave in the middle."""
    line, pieces = Line(), 0
    upstream = Upstream(cast(Wire, line))
    is_sent = trio.Event()

    async def hang_up() -> None:
        raise trio.BrokenResourceError

    async def body(send: Callable[[bytes], Awaitable[None]]) -> None:
        nonlocal pieces
        line.mine[0].send_stream.send_all_hook = hang_up
        for _ in range(100):
            await send(bytes(1000))
            pieces += 1
        is_sent.set()

    async def answer_early() -> None:
        await is_sent.wait()
        await line.ends[0].send_all(OK.replace(b"200 OK", b"413 Too Large"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_early)
        async with upstream.request("cl_1", "POST", "/", [], body, length=10**6) as answer:
            assert (answer.status, pieces) == (413, 100)
