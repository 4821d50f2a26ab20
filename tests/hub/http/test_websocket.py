"""WebSockets: the opening checked, messages both ways, pings, limits, the closing; with two clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, Pong, TextMessage

from hub_server.http.websocket import MESSAGE
from tests.hub.http.ground import Talk, hello, replies_of, said, serving, talking

OPENING = (
    b"GET /exec?command=sh HTTP/1.1\r\nHost: hub\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: v5.channel.k8s.io, v4.channel.k8s.io\r\n\r\n"
)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Give every message back, until the peer closes."""
    assert scope["type"] == "websocket"
    assert scope["subprotocols"] == ["v5.channel.k8s.io", "v4.channel.k8s.io"]
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "subprotocol": "v5.channel.k8s.io", "headers": [(b"x-a", b"b")]})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    assert message["type"] == "websocket.disconnect"


class Client:
    """The frames of a client over a connection in memory."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.frames = Frames(ConnectionType.CLIENT)

    async def open(self) -> bytes:
        await self._talk.say(OPENING)
        return await self._talk.hear(b"\r\n\r\n")

    async def say(self, event: Event) -> None:
        await self._talk.say(self.frames.send(event))

    async def hear(self) -> list[Event]:
        """The next events; none at the end of the connection."""
        while True:
            if events := list(self.frames.events()):
                return events
            data = await self._talk.stream.receive_some()
            if not data:
                return []
            self.frames.receive_data(data)

    async def message(self) -> str | bytes:
        whole: Any = None
        while True:
            for event in await self.hear():
                assert isinstance(event, Message), event
                whole = event.data if whole is None else whole + event.data
                if event.message_finished:
                    return whole


async def test_messages_go_both_ways_as_the_specification_s_example_opens_them() -> None:
    async with talking(echo) as talk:
        client = Client(talk)
        head = await client.open()
        lines = head.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
        assert {b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", b"sec-websocket-protocol: v5.channel.k8s.io"} < {
            *lines
        }
        await client.say(BytesMessage(b"\x00" * 100_000))
        assert await client.message() == b"\x00" * 100_000
        await client.say(TextMessage("ä", message_finished=False))
        await client.say(Ping(b"there?"))
        await client.say(TextMessage("ö"))
        assert await client.hear() == [Pong(b"there?")]
        assert await client.message() == "äö"
        await client.say(CloseConnection(1000, "done"))
        [closed] = await client.hear()
        assert isinstance(closed, CloseConnection)
        assert await client.hear() == [], "the server ends the connection"


async def test_frames_that_come_with_the_opening_are_heard() -> None:
    async with talking(echo) as talk:
        client = Client(talk)
        await talk.say(OPENING + client.frames.send(TextMessage("early")))
        await talk.hear(b"\r\n\r\n")
        assert await client.message() == "early"


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Version: 13", b"Version: 8", 426),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 426),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ=", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"\xff" * 24, 400),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400),
        (b"GET", b"POST", 400),
        (b"Host: hub", b"Host: hub\r\nContent-Length: 3", 400),
    ],
)
async def test_an_opening_that_is_wrong_is_refused(old: bytes, new: bytes, status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it must not come so far")

    [reply] = replies_of(await said(app, OPENING.replace(old, new)), "GET")
    assert reply.status == status
    if status == 426:
        assert reply.one(b"sec-websocket-version") == b"13"
        assert reply.one(b"upgrade") == b"websocket"


async def test_it_can_be_denied_with_an_answer_and_without() -> None:
    async def with_answer(scope: Any, receive: Any, send: Any) -> None:
        assert "websocket.http.response" in scope["extensions"]
        await send({"type": "websocket.http.response.start", "status": 501, "headers": [(b"content-length", b"3")]})
        await send({"type": "websocket.http.response.body", "body": b"why"})

    async def without(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    replies = replies_of(await said(with_answer, OPENING + OPENING), "GET", "GET")
    assert [(reply.status, reply.reason, reply.body) for reply in replies] == [(501, b"Not Implemented", b"why")] * 2
    [reply] = replies_of(await said(without, OPENING), "GET")
    assert (reply.status, reply.is_whole) == (403, True)


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # an opcode that is none
        (b"\x81\x81\x00\x00\x00\x00\xff", 1007),  # no UTF-8
        (b"\x89\xfe\x00\x80\x00\x00\x00\x00" + b"a" * 128, 1002),  # a long ping
    ],
)
async def test_frames_that_break_the_rules_end_it_with_the_code_for_that(octets: bytes, code: int) -> None:
    async with talking(echo) as talk:
        client = Client(talk)
        await client.open()
        await talk.say(octets)
        [closed] = await client.hear()
        assert isinstance(closed, CloseConnection)
        assert closed.code == code


async def test_a_message_without_end_is_cut() -> None:
    async with talking(echo) as talk:
        client = Client(talk)
        await client.open()
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                while True:
                    await client.say(BytesMessage(bytes(65536), message_finished=False))

            nursery.start_soon(flood)
            [closed] = await client.hear()
            nursery.cancel_scope.cancel()
        assert isinstance(closed, CloseConnection)
        assert closed.code == 1009
        assert MESSAGE < 2**21


async def test_a_silent_peer_is_asked_and_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with talking(echo) as talk:
        client = Client(talk)
        await client.open()
        pings = 0
        while events := await client.hear():
            pings += sum(isinstance(event, Ping) for event in events)
        assert pings == 3
        assert trio.current_time() == pytest.approx(80, abs=5)


@pytest.mark.parametrize("how", ["returns", "raises"])
async def test_when_the_application_ends_it_is_closed(how: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        if how == "raises":
            raise RuntimeError("broken")

    async with talking(app) as talk:
        client = Client(talk)
        await client.open()
        [closed] = await client.hear()
        assert isinstance(closed, CloseConnection)
        assert closed.code == (1000 if how == "returns" else 1011)
        await client.say(closed.response())
        assert await client.hear() == []


async def test_a_hang_up_is_a_disconnect() -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        told.append(await receive())

    async with talking(app) as talk:
        await Client(talk).open()
        await talk.stream.aclose()
        await talk.done.wait()
    assert told == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


async def test_another_client_speaks_it_over_tls(tmp_path: Path) -> None:
    async with serving(echo, tmp_path) as served:
        opened = trio_websocket.open_websocket(
            "127.0.0.1",
            served.port,
            "/",
            use_ssl=served.trusting(),
            subprotocols=["v5.channel.k8s.io", "v4.channel.k8s.io"],
        )
        async with opened as socket:
            assert socket.subprotocol == "v5.channel.k8s.io"
            for size in (0, 1, 125, 126, 65535, 65536, 500_000):
                await socket.send_message(b"x" * size)
                assert await socket.get_message() == b"x" * size
            await socket.ping(b"1")


async def test_an_application_of_requests_alone_refuses_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)

    [reply] = replies_of(await said(app, OPENING), "GET")
    assert reply.status == 500
