"""A socket as a stream: who takes little is waited for, who takes nothing is not."""

from __future__ import annotations

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
