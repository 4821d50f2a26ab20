"""What strangers do is one line for each kind and minute, with their number."""

from __future__ import annotations

import pytest
import structlog.testing
import trio
import trio.testing

from hub_server.http.chatter import LINE_EVERY, Chatter


async def test_a_kind_is_told_once_a_minute_with_how_many_came(autojump_clock: trio.testing.MockClock) -> None:
    chatter = Chatter()
    with structlog.testing.capture_logs() as lines:
        for _ in range(1000):
            chatter.note("a scan", "192.0.2.1:1")
        chatter.note("a hang-up", "192.0.2.2:1", "reset")
        await trio.sleep(LINE_EVERY)
        chatter.note("a scan", "192.0.2.3:1")
    told = [(line["event"], line["peer"], line["times"], line.get("detail")) for line in lines]
    assert told == [
        ("a scan", "192.0.2.1:1", 1, None),
        ("a hang-up", "192.0.2.2:1", 1, "reset"),
        ("a scan", "192.0.2.3:1", 1000, None),
    ]
    assert chatter.counts == {"a scan": 1001, "a hang-up": 1}


@pytest.mark.parametrize("detail", ["x" * 10_000, "a\nb\x1b[31m"])
async def test_what_a_peer_can_choose_is_short_and_plain(detail: str) -> None:
    with structlog.testing.capture_logs() as lines:
        Chatter().note("a scan", "192.0.2.1:1", detail)
    assert len(lines[0]["detail"]) <= 200
    assert lines[0]["detail"].isprintable()
