"""A socket as a stream: who takes little is waited for, who takes nothing is not."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing

from hub_server.http.limits import Limits
from hub_server.http.transport import Transport


class Slow:
    """A socket whose buffer becomes free at last; until then only the count of what is not acknowledged moves."""

    def __init__(self, blocked: int) -> None:
        self.blocked = blocked
        self.sent = b""

    async def send(self, data: memoryview) -> int:
        if self.blocked:
            self.blocked -= 1
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        self.sent += bytes(data[:3])
        return min(3, len(data))


def counting(monkeypatch: pytest.MonkeyPatch, counts: Iterator[int]) -> None:
    monkeypatch.setattr(Transport, "_untaken", lambda self: next(counts))


async def test_who_takes_little_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    counting(monkeypatch, iter(range(1000, 0, -1)))
    slow: Any = Slow(blocked=10)
    await Transport(slow, Limits(stall=60)).send_all(b"0123456789")
    assert slow.sent == b"0123456789"
    assert trio.current_time() == pytest.approx(600)


async def test_who_takes_nothing_is_not(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    counting(monkeypatch, iter([1000] * 9))
    slow: Any = Slow(blocked=10)
    with pytest.raises(trio.BrokenResourceError, match="nothing was taken for 60 s"):
        await Transport(slow, Limits(stall=60)).send_all(b"0123456789")
    assert trio.current_time() == pytest.approx(60)


@pytest.mark.parametrize("is_reset", [False, True])
async def test_the_kernel_knows_of_a_reset_before_anything_is_read(is_reset: bool) -> None:
    """A client that ended its half only may still want its answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        transport = Transport(trio.socket.from_stdlib_socket(accepted), Limits())
        client.sendall(b"GET")
        assert not transport.has_hung_up()
        if is_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        else:
            client.shutdown(socket.SHUT_WR)
        await trio.lowlevel.wait_readable(transport._socket)
        assert await transport.receive_some() == b"GET"
        assert transport.has_hung_up() is is_reset
        await transport.aclose()
        client.close()
