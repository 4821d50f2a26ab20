"""One connection: framing and refusals as RFC 9110 and 9112 have them, requests in turn, time, and its own failures."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from hub_server import supervise
from hub_server.domain.errors import Unavailable
from tests.hub.http.ground import Reply, answer, body_of, echo, hello, replies_of, said, talking

GET = b"GET /a HTTP/1.1\r\nHost: hub\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n"


async def one(application: Any, octets: bytes, method: str = "GET") -> Reply:
    """The only answer."""
    [reply] = replies_of(await said(application, octets), method)
    return reply


# --- what an answer looks like ---------------------------------------------------------------------------------------


async def test_an_answer_has_one_date_a_reason_phrase_and_the_request_s_id() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["state"]["request_id"])
        await hello(scope, receive, send)

    reply = await one(app, GET[:-2] + b"X-Request-Id: mine\r\n\r\n")
    assert (reply.status, reply.reason, reply.body) == (200, b"OK", b"/a")
    assert reply.one(b"date") == b"Sun, 09 Sep 2001 01:46:40 GMT"
    assert reply.all(b"x-request-id") == [seen[0].encode()]


async def test_a_date_of_the_application_is_the_only_one() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"", 404, (b"Date", b"Mon, 01 Jan 2024 00:00:00 GMT"), (b"x-request-id", b"theirs"))

    reply = await one(app, GET)
    assert reply.reason == b"Not Found"
    assert reply.all(b"date") == [b"Mon, 01 Jan 2024 00:00:00 GMT"]
    assert len(reply.all(b"x-request-id")) == 1
    assert reply.one(b"x-request-id") != b"theirs"


async def test_an_answer_without_a_length_is_sent_in_chunks_and_its_head_at_once() -> None:
    go = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await go.wait()
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    async with talking(app) as talk:
        await talk.say(LAST)
        head = await talk.hear(b"\r\n\r\n")
        go.set()
        [reply] = replies_of(head + await talk.rest(), "GET")
    assert (reply.body, reply.is_whole) == (b"onetwo", True)
    assert reply.all(b"transfer-encoding") == [b"chunked"]


async def test_to_http_1_0_the_end_of_an_answer_is_the_end_of_the_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["http_version"] == "1.0"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"piece"})

    for more in (b"", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n"):
        heard = await said(app, b"GET / HTTP/1.0\r\n" + more + b"\r\n" + b"GET / HTTP/1.0\r\n\r\n")
        assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
        assert heard.endswith(b"\r\n\r\npiece"), "one answer, no chunks"
        assert b"transfer-encoding" not in heard.lower()


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_that_have_no_body_get_none(status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"body", status)

    replies = replies_of(await said(app, GET + GET), "GET", "GET")
    assert [(reply.status, reply.body) for reply in replies] == [(status, b"")] * 2


async def test_head_has_the_fields_of_get_and_no_body() -> None:
    replies = replies_of(await said(hello, GET.replace(b"GET", b"HEAD") + GET), "HEAD", "GET")
    assert [(reply.body, reply.one(b"content-length")) for reply in replies] == [(b"", b"2"), (b"/a", b"2")]


# --- which requests are taken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "path", "host"),
    [
        (b"GET /a%20b?c=d HTTP/1.1\r\nHost: hub:1\r\n\r\n", "/a b", b"hub:1"),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: hub\r\n\r\n", "/", b"hub"),
        (b"GET http://other:8/x?y HTTP/1.1\r\nHost: hub\r\n\r\n", "/x", b"other:8"),
        (b"GET https://other HTTP/1.1\r\nHost: hub\r\n\r\n", "/", b"other"),
        (b"GET / HTTP/1.1\nHost: hub\n\n", "/", b"hub"),
        (b"GET / HTTP/1.1\r\nHost: [::1]:8443\r\nA: b\r\n c\r\n\r\n", "/", b"[::1]:8443"),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "/", b""),
        (b"GET /%ff%2f HTTP/1.1\r\nHost: hub\r\n\r\n", "/\ufffd/", b"hub"),
        (b"GET / HTTP/1.9\r\nHost: hub\r\n\r\n", "/", b"hub"),
    ],
)
async def test_every_form_of_a_target_is_understood(octets: bytes, path: str, host: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (scope["path"], dict(scope["headers"])[b"host"]) == (path, host)
        assert scope["client"] == ("192.0.2.1", 1234)
        await answer(send, b"")

    assert (await one(app, octets)).status == 200


BAD = {
    "no request": (400, b"\x00\x01\x02\r\n\r\n"),
    "TLS": (400, bytes.fromhex("16030100ca010000c6")),
    "HTTP/0.9": (400, b"GET /\r\n\r\n"),
    "preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
    "HTTP/3.0": (505, b"GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    "a host that is none": (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "a host with a user": (400, b"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n"),
    "another scheme": (400, b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a target with a fragment": (400, b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a target with NUL": (400, b"GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a target beyond ASCII": (400, "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n".encode()),
    "a star for GET": (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    "CONNECT": (501, b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "blank before a colon": (400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    "a field without a name": (400, b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
    "a line that continues nothing": (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    "NUL in a field": (400, b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x00c\r\n\r\n"),
    "CR in a field": (400, b"GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n"),
    "two framings": (400, POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunks in HTTP/1.0": (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "two lengths": (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"),
    "a length with a sign": (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd"),
    "a length below zero": (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
    "a length without end": (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n"),
    "another coding": (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    "a coding twice": (501, POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "a long target": (414, b"GET /" + b"a" * 70_000),
    "a target of 20 kB": (414, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a long head": (431, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 12_000),
    "a long field": (431, b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 70_000),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_a_request_that_is_none_is_refused_and_ends_the_connection(name: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it must not come so far")

    status, octets = BAD[name]
    reply = await one(app, octets + GET)
    assert (reply.status, reply.is_whole) == (status, True)
    assert reply.all(b"connection") == [b"close"]
    assert reply.one(b"content-type") == b"application/problem+json"
    assert reply.one(b"x-request-id") in reply.body


async def test_what_is_refused_is_not_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    """A field that is malformed may hold a secret; answer and log do not repeat it."""
    for octets in (GET[:-2] + b"Authorization : Bearer hush\r\n\r\n", b"GET /hush HTTP/\r\n\r\n", b"hush\r\n\r\n"):
        assert b"hush" not in await said(hello, octets)
    assert "hush" not in capsys.readouterr().out


async def test_options_of_everything_is_answered() -> None:
    reply = await one(hello, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS")
    assert (reply.status, reply.body) == (204, b"")
    assert b"GET" in reply.one(b"allow")


@pytest.mark.parametrize(
    "fields",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n",
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \xff\xfe\r\n",
        b"Connection: Upgrade\r\nUpgrade: x\r\n",
        b"Connection: close\r\nUpgrade: x\r\n",
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n",
    ],
)
async def test_any_other_upgrade_is_an_ordinary_request(fields: bytes) -> None:
    """RFC 9110 section 7.8: a server may ignore it. The application sees the fields, for SPDY gets a `Status`."""
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        seen.append(b"upgrade" in dict(scope["headers"]))
        await hello(scope, receive, send)

    replies = replies_of(await said(app, b"GET /a HTTP/1.1\r\nHost: hub\r\n" + fields + b"\r\n" + GET), "GET", "GET")
    assert [reply.status for reply in replies] == [200] * (1 if b"close" in fields else 2)
    assert seen[0]


async def test_the_preface_of_http_2_cannot_follow_a_request_either() -> None:
    replies = replies_of(await said(hello, GET + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "GET", "GET")
    assert [reply.status for reply in replies] == [200, 505]


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "framed",
    [
        b"Content-Length: 5\r\n\r\nabcde",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nTrailer: t\r\n\r\n",
        b"Transfer-Encoding: Chunked\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % octet for octet in b"abcde") + b"0\r\n\r\n",
    ],
)
async def test_a_body_arrives_whole_however_it_is_framed_and_cut(framed: bytes) -> None:
    octets = b"POST / HTTP/1.1\r\nHost: a\r\n" + framed
    replies = replies_of(await said(echo, octets + octets), "POST", "POST")
    assert [reply.body for reply in replies] == [b"abcde"] * 2
    async with talking(echo) as talk:
        for octet in octets:
            await talk.say(bytes([octet]))
        assert (await talk.hear(b"abcde")).startswith(b"HTTP/1.1 200 OK")


async def test_thousands_of_tiny_chunks_are_a_body_too() -> None:
    framed = b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"
    reply = await one(echo, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + framed, "POST")
    assert reply.body == b"x" * 20_000


@pytest.mark.parametrize("framed", [b"zz\r\nab\r\n", b"2\r\nabX\r\n", b"-1\r\n", b"f" * 30 + b"\r\n"])
async def test_a_malformed_body_is_refused(framed: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.disconnect"

    octets = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + framed
    assert (await one(app, octets, "POST")).status == 400


async def test_expect_100_continue_is_answered_when_the_body_is_wanted() -> None:
    octets = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    async with talking(echo) as talk:
        await talk.say(octets)
        assert await talk.hear(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await talk.say(b"ab")
        assert (await talk.rest()).endswith(b"ab")
    async with talking(hello) as talk:
        await talk.say(octets)
        heard = await talk.rest()
    assert heard.startswith(b"HTTP/1.1 200 OK\r\n"), "nobody wants it: no 100"
    assert b"\r\nconnection: close\r\n" in heard.lower()


async def test_a_body_that_nobody_reads_is_passed_over_when_it_is_there_and_ends_the_connection_otherwise() -> None:
    here = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /"
    replies = replies_of(await said(hello, here + GET), "POST", "GET")
    assert [reply.body for reply in replies] == [b"/a", b"/a"]
    async with talking(hello) as talk:
        await talk.say(here.replace(b": 5", b": 500000"))
        [reply] = replies_of(await talk.rest(), "POST")
        assert (reply.status, reply.all(b"connection")) == (200, [b"close"])
        assert talk.connection.lingers, "what is still sent must not reset the answer"


# --- in turn ---------------------------------------------------------------------------------------------------------


async def test_requests_that_come_together_are_answered_in_turn() -> None:
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        order.append(scope["path"])
        await trio.testing.wait_all_tasks_blocked()
        await hello(scope, receive, send)

    octets = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(20))
    replies = replies_of(await said(app, octets + LAST + GET), *["GET"] * 22)
    assert order == [*(f"/{number}" for number in range(20)), "/last"], "nothing after `Connection: close`"
    assert [reply.body.decode() for reply in replies] == order


async def test_octets_sent_one_by_one_are_a_request() -> None:
    async with talking(hello) as talk:
        for octet in GET:
            await talk.say(bytes([octet]))
        assert (await talk.hear(b"/a")).startswith(b"HTTP/1.1 200")


# --- hang-ups --------------------------------------------------------------------------------------------------------


async def test_an_application_that_listens_is_told_of_a_hang_up_and_its_send_fails() -> None:
    told: list[Any] = []
    begun = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        begun.set()
        told.append((await receive())["type"])
        try:
            await send({"type": "http.response.body", "body": b"x"})
        except OSError as problem:
            told.append(type(problem).__name__)
            raise

    failures = supervise.failures.get("request", 0)
    async with talking(app) as talk:
        await talk.say(GET)
        await begun.wait()
        await talk.stream.aclose()
        await talk.done.wait()
        assert talk.connection.is_broken
    assert told == ["http.disconnect", "HungUp"]
    assert supervise.failures.get("request", 0) == failures, "a hang-up is nobody's failure"


@pytest.mark.parametrize("listens", ["before", "after"])
async def test_after_the_answer_no_hang_up_is_delivered(listens: str, autojump_clock: trio.testing.MockClock) -> None:
    """Who hangs up having got all of it was answered. The application that goes on to wait is ended at last."""
    told: list[Any] = []
    ended: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            try:
                told.append(await receive())
            except trio.Cancelled:
                ended.append(True)
                raise

        await receive()
        async with trio.open_nursery() as nursery:
            if listens == "before":
                nursery.start_soon(listen)
                await trio.testing.wait_all_tasks_blocked()
            await hello(scope, receive, send)
            if listens == "after":
                nursery.start_soon(listen)

    async with talking(app) as talk:
        await talk.say(GET)
        await talk.hear(b"/a")
        await talk.stream.aclose()
        await talk.done.wait()
    assert (told, ended) == ([], [True])


async def test_what_was_sent_ahead_is_served_though_the_application_listened() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                raise AssertionError("nobody hung up")

            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            await hello(scope, receive, send)
            nursery.cancel_scope.cancel()

    async with talking(app) as talk:
        for number in range(5):
            await talk.say(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        for number in range(5):
            await talk.hear(b"\r\n\r\n/%d" % number)


async def test_half_a_body_and_a_hang_up_are_a_hang_up() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            told.append(message["body"])
        told.append(message["type"])

    assert await said(app, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf") == b""
    assert told == [b"half", "http.disconnect"]


# --- failures --------------------------------------------------------------------------------------------------------


async def test_a_failure_is_answered_with_500_and_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("secret")

    failures = supervise.failures.get("request", 0)
    reply = await one(app, GET)
    request_id = reply.one(b"x-request-id").decode()
    assert (reply.status, reply.reason) == (500, b"Internal Server Error")
    assert request_id.encode() in reply.body
    assert b"secret" not in reply.body
    assert request_id in capsys.readouterr().out
    assert supervise.failures["request"] == failures + 1


async def test_a_refusal_of_ours_has_its_own_status() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise Unavailable("the disk is full", retry_after=7)

    reply = await one(app, GET)
    assert (reply.status, reply.one(b"retry-after")) == (503, b"7")


@pytest.mark.parametrize("how", ["raises", "returns", "too much", "too little", "a bad field"])
async def test_an_answer_that_breaks_off_does_not_look_whole(how: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"content-length", b"4")] if how.startswith("too") else []
        if how == "a bad field":
            fields = [(b"a", b"b\r\nc: d")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"pie" if how != "too much" else b"piece", "more_body": True})
        if how == "raises":
            raise RuntimeError("broken")
        if how == "too little":
            await send({"type": "http.response.body", "body": b""})

    replies = replies_of(await said(app, GET + GET), "GET", "GET")
    if how in ("too much", "a bad field"):
        assert [reply.status for reply in replies] in ([500], [])
    else:
        assert [(reply.status, reply.is_whole) for reply in replies] == [(200, False)]


# --- time ------------------------------------------------------------------------------------------------------------


async def test_a_connection_that_says_nothing_is_closed_without_a_word(autojump_clock: trio.testing.MockClock) -> None:
    async with talking(hello, head=15) as talk:
        assert await talk.rest() == b""
        assert trio.current_time() == pytest.approx(15)


async def test_half_a_head_is_answered_with_408(autojump_clock: trio.testing.MockClock) -> None:
    """However it trickles."""
    async with talking(hello, head=15) as talk:
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                while True:
                    await talk.say(b"GET / HTTP/1.1\r\nA: b" if trio.current_time() == 0 else b"b")
                    await trio.sleep(1)

            nursery.start_soon(trickle)
            [reply] = replies_of(await talk.rest(), "GET")
            nursery.cancel_scope.cancel()
        assert reply.status == 408
        assert trio.current_time() == pytest.approx(15)


async def test_a_connection_rests_between_requests_so_long_and_no_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with talking(hello, idle=75) as talk:
        for _ in range(3):
            await talk.say(GET)
            await talk.hear(b"/a")
            await trio.sleep(70)
        assert await talk.rest() == b""
        assert trio.current_time() == pytest.approx(215)


@pytest.mark.parametrize(
    ("every", "ended_by"),
    [(1000.0, 30.0), (1.0, 31.0)],
    ids=["nothing comes", "it trickles"],
)
async def test_half_a_body_is_ended(every: float, ended_by: float, autojump_clock: trio.testing.MockClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with talking(app, body=30, body_rate=500) as talk:
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                await talk.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
                while True:
                    await trio.sleep(every)
                    await talk.say(b"x")

            nursery.start_soon(trickle)
            [reply] = replies_of(await talk.rest(), "POST")
            nursery.cancel_scope.cancel()
        assert (reply.status, reply.is_whole) == (408, True)
        assert trio.current_time() <= ended_by


async def test_a_body_that_comes_steadily_may_last(autojump_clock: trio.testing.MockClock) -> None:
    async with talking(echo, body=30, body_rate=500) as talk:
        await talk.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
        for _ in range(100):
            await trio.sleep(1)
            await talk.say(b"x" * 600)
        await talk.hear(b"\r\n\r\n" + b"x" * 60_000)
        assert trio.current_time() == pytest.approx(100)


async def test_an_answer_may_last_for_hours(autojump_clock: trio.testing.MockClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(10):
            await trio.sleep(3600)
            await send({"type": "http.response.body", "body": b"line\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with talking(app) as talk:
        await talk.say(LAST)
        [reply] = replies_of(await talk.rest(), "GET")
    assert (reply.body, reply.is_whole) == (b"line\n" * 10, True)


async def test_draining_ends_a_rest_and_no_request() -> None:
    go = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await body_of(receive) == b""
        await go.wait()
        await hello(scope, receive, send)

    async with talking(app) as busy, talking(hello) as resting:
        await busy.say(GET)
        await resting.say(GET)
        await resting.hear(b"/a")
        await trio.testing.wait_all_tasks_blocked()
        busy.service.drain()
        resting.service.drain()
        assert await resting.rest() == b""
        go.set()
        [reply] = replies_of(await busy.rest(), "GET")
        assert (reply.body, reply.all(b"connection")) == (b"/a", [b"close"])


async def test_a_client_that_sends_much_ahead_is_still_seen_to_hang_up(autojump_clock: trio.testing.MockClock) -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        told.append((await receive())["type"])

    async with talking(app) as talk:
        is_gone = False
        talk.connection.has_hung_up = lambda: is_gone
        await talk.say(GET + b"x" * 200_000)
        await trio.sleep(10)
        assert told == []
        is_gone = True
        await talk.done.wait()
    assert told == ["http.disconnect"]


async def test_a_request_whose_client_is_gone_already_is_not_worked_on() -> None:
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await hello(scope, receive, send)

    async with talking(app) as talk:
        await talk.say(GET)
        await talk.hear(b"/a")
        talk.connection.has_hung_up = lambda: True
        await talk.say(GET)
        await talk.done.wait()
    assert asked == ["/a"]
