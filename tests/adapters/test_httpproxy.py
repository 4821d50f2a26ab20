"""The HTTP proxy, as RFC 9110 and RFC 9112 have it."""

from __future__ import annotations

import base64
from typing import Any

import h11
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.adapters.standin import LoopbackNet, MemoryNet, echo_when_done, read_all
from wgpy.adapters.proxies.gate import Credentials, Gate, Refused
from wgpy.adapters.proxies.http import serve_client


async def converse(net: Any, gate: Gate, stream: Any) -> None:
    try:
        await serve_client(stream, net, gate)
    except Refused as refusal:
        gate.refused[str(refusal)] += 1
    except trio.BrokenResourceError:
        gate.refused["left"] += 1
    await stream.aclose()


async def mirror(stream: Any) -> None:
    """An origin server: the answer's body is the request, octet by octet."""
    http = h11.Connection(h11.SERVER)
    seen = b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some())
            seen += data
            http.receive_data(data)
        elif isinstance(event, h11.EndOfMessage):
            break
        elif isinstance(event, h11.ConnectionClosed):
            return
    await stream.send_all(b"HTTP/1.1 200 OK\r\nX-Hop: 1\r\nConnection: X-Hop\r\nContent-Length: %d\r\n\r\n" % len(seen))
    await stream.send_all(seen)
    await stream.aclose()


def answers_in(octets: bytes, methods: str = "GET GET GET GET GET") -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Status, fields and body of each answer in what a client got."""
    found = []
    for method in methods.split():
        if not octets:
            break
        http = h11.Connection(h11.CLIENT)
        http.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        http.send(h11.EndOfMessage())
        http.receive_data(octets)
        http.receive_data(b"") if b"onnection: close" in octets else None
        status, fields, body = 0, {}, b""
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.InformationalResponse):
                found.append((event.status_code, dict(event.headers), b""))
            elif isinstance(event, h11.Response):
                status, fields = event.status_code, dict(event.headers)
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        found.append((status, fields, body))
        octets = http.trailing_data[0]
    return found


async def ask(octets: bytes, gate: Gate | None = None, net: Any = None) -> bytes:
    """What a client gets that sends this and says that it is done."""
    async with trio.open_nursery() as nursery:
        servers = {
            ("intranet.test", 80): mirror,
            ("other.test", 80): mirror,
            ("intranet.test", 81): echo_when_done,
            ("10.0.0.1", 443): echo_when_done,
            ("fd00::1", 81): echo_when_done,
        }
        client, stream = trio.testing.memory_stream_pair()
        nursery.start_soon(converse, net or MemoryNet(nursery, servers), gate or Gate(), stream)
        await client.send_all(octets)
        await client.send_eof()
        return await read_all(client)


@pytest.mark.parametrize("target", ["10.0.0.1:443", "intranet.test:81", "[fd00::1]:81"])
async def test_connect_joins_and_half_close_survives(target: str) -> None:
    answer = await ask(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nearly octets".encode())
    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nearly octets"


async def test_a_plain_request_is_passed_on_for_its_origin_server() -> None:
    [(status, fields, body)] = answers_in(
        await ask(
            b"POST http://user@intranet.test/path?q=1 HTTP/1.1\r\nHost: elsewhere.test\r\nContent-Length: 4\r\n"
            b"Proxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\nConnection: X-Secret, close\r\n"
            b"X-Secret: 1\r\nX-Kept: 2\r\n\r\nbody"
        ),
        "POST",
    )
    assert body == (
        b"POST /path?q=1 HTTP/1.1\r\nHost: intranet.test\r\nContent-Length: 4\r\nX-Kept: 2\r\nVia: 1.1 wgpy\r\n"
        b"Connection: close\r\n\r\nbody"
    )
    assert status == 200
    assert b"x-hop" not in fields, "what an answer's Connection names stays here as well"
    assert fields[b"connection"] == b"close", "as the client wanted"


async def test_each_request_of_a_connection_goes_where_it_says() -> None:
    """Two in one write, the second to another host and without what the proxy was told; then one with a body."""
    gate = Gate(credentials=Credentials("me", "x"))
    secret = b"Proxy-Authorization: Basic " + base64.b64encode(b"me:x") + b"\r\n"
    octets = await ask(
        b"GET http://intranet.test/1 HTTP/1.1\r\nHost: intranet.test\r\n" + secret + b"\r\n"
        b"POST http://other.test/2 HTTP/1.1\r\nHost: other.test\r\nTransfer-Encoding: chunked\r\n" + secret + b"\r\n"
        b"3\r\nabc\r\n0\r\n\r\n"
        b"GET http://intranet.test/3 HTTP/1.1\r\nHost: intranet.test\r\n" + secret + b"\r\n",
        gate,
    )
    answers = answers_in(octets)
    assert [status for status, _, _ in answers] == [200] * 3
    assert [body.partition(b"\r\nVia")[0].split(b"\r\n")[:2] for _, _, body in answers] == [
        [b"GET /1 HTTP/1.1", b"Host: intranet.test"],
        [b"POST /2 HTTP/1.1", b"Host: other.test"],
        [b"GET /3 HTTP/1.1", b"Host: intranet.test"],
    ]
    assert answers[1][2].endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert b"roxy-" not in octets
    assert gate.traffic.down == len(octets)


async def test_credentials_are_looked_at_each_time() -> None:
    gate = Gate(credentials=Credentials("me", "x"))
    secret = b"Proxy-Authorization: Basic " + base64.b64encode(b"me:x") + b"\r\n"
    octets = await ask(
        b"GET http://intranet.test/1 HTTP/1.1\r\nHost: intranet.test\r\n" + secret + b"\r\n"
        b"GET http://intranet.test/2 HTTP/1.1\r\nHost: intranet.test\r\n\r\n",
        gate,
    )
    assert [status for status, _, _ in answers_in(octets)] == [200, 407]


@pytest.mark.parametrize(
    ("framing", "status"),
    [
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Content-Length: 3\r\nContent-Length: 4\r\n", 400),
        (b"Content-Length: -3\r\n", 400),
        (b"Transfer-Encoding: gzip\r\n", 400),
        (b"Content-Length: 0\r\nConnection: Content-Length\r\n", 200),
    ],
)
async def test_where_a_request_ends_is_said_once(framing: bytes, status: int) -> None:
    """RFC 9112 6.3: two hosts must never disagree about it."""
    octets = await ask(
        b"POST http://intranet.test/ HTTP/1.1\r\nHost: intranet.test\r\n" + framing + b"\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    assert answers_in(octets, "POST")[0][0] == status


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nok", b"ok"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"ok",
        ),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 700\r\n\r\n", b""),
    ],
)
async def test_answers_of_every_framing_end_where_they_end(answer: bytes, body: bytes) -> None:
    async def serve(stream: Any) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        net = MemoryNet(nursery, {("origin.test", 80): serve})
        request = b"GET http://origin.test/ HTTP/1.1\r\nHost: origin.test\r\n\r\n"
        found = [one for one in answers_in(await ask(request * 2, net=net), "GET GET") if one[0] >= 200]
    assert [one[2] for one in found] == [body] * 2


async def test_an_answer_that_breaks_off_is_not_taken_for_the_whole() -> None:
    async def serve(stream: Any) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        await stream.aclose()

    async def silent(stream: Any) -> None:
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        gate = Gate()
        net = MemoryNet(nursery, {("cut.test", 80): serve, ("silent.test", 80): silent})
        octets = await ask(b"GET http://cut.test/ HTTP/1.1\r\nHost: cut.test\r\n\r\n", gate, net)
        assert octets.endswith(b"half")
        assert b"chunked" not in octets
        octets = await ask(b"GET http://silent.test/ HTTP/1.1\r\nHost: silent.test\r\n\r\n", gate, net)
        assert octets.startswith(b"HTTP/1.1 502 ")
    assert gate.refused["unreachable"] == 2


async def test_who_waits_for_100_continue_gets_it_from_the_server() -> None:
    async def serve(stream: Any) -> None:
        head = bytes(await stream.receive_some())
        assert b"Expect: 100-continue" in head
        await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = bytes(await stream.receive_some())
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        client, stream = trio.testing.memory_stream_pair()
        nursery.start_soon(converse, MemoryNet(nursery, {("origin.test", 80): serve}), Gate(), stream)
        await client.send_all(
            b"POST http://origin.test/ HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 4\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        answer = bytes(await client.receive_some())
        assert answer.startswith(b"HTTP/1.1 100 ")
        await client.send_all(b"body")
        await client.send_eof()
        assert (await read_all(client)).endswith(b"\r\n\r\nbody")


async def test_a_server_may_answer_before_it_has_read_everything() -> None:
    """Then the client's connection ends with that answer: the rest of the request lies in the way of the next one."""

    async def serve(stream: Any) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        client, stream = trio.testing.memory_stream_pair()
        nursery.start_soon(converse, MemoryNet(nursery, {("origin.test", 80): serve}), Gate(), stream)
        await client.send_all(
            b"POST http://origin.test/ HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 4000000\r\n\r\nbegin"
        )
        assert (await read_all(client)).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://intranet.test", "/"), ("http://intranet.test?a", "/?a"), ("HTTP://intranet.test:80/b", "/b")],
)
async def test_paths(target: str, path: str) -> None:
    [(_, _, body)] = answers_in(await ask(f"GET {target} HTTP/1.1\r\n\r\n".encode()), "GET")
    assert body.startswith(f"GET {path} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"CONNECT 10.0.0.1:80 HTTP/1.1", 502),
        (b"GET http://10.0.0.9/ HTTP/1.1", 502),
        (b"GET / HTTP/1.1", 400),
        (b"GET https://intranet.test/ HTTP/1.1", 400),
        (b"GET http:///path HTTP/1.1", 400),
        (b"CONNECT intranet.test HTTP/1.1", 400),
        (b"CONNECT intranet.test:99999 HTTP/1.1", 400),
        (b"CONNECT [fd00::1:80 HTTP/1.1", 400),
        (b"nonsense", 400),
        (b"GET http://intranet.test/ HTTP/2.0", 400),
        (b"GET http://intranet.test/ HTTP/1.1\r\nno colon", 400),
        (b"GET http://intranet.test/ HTTP/1.1\r\nA : space", 400),
        (b"GET http://intranet.test/ HTTP/1.1\r\nA: x\r\n folded", 400),
        (b"GET http://intranet.test/ HTTP/1.1\r\nA: x\ny: z", 400),
        (b"GET http://intranet.test/ HTTP/1.1\r\nA: " + b"x" * 70000, 431),
    ],
)
async def test_answers_that_say_no(head: bytes, status: int) -> None:
    answer = await ask(head + b"\r\n\r\n")
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"wgpy proxy: " in answer


async def test_a_name_that_the_tunnel_does_not_know() -> None:
    gate = Gate()
    answer = await ask(b"CONNECT localhost:80 HTTP/1.1\r\n\r\n", gate, LoopbackNet())
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"no such name" in answer
    assert gate.refused == {"unreachable": 1}


@pytest.mark.parametrize(
    ("field", "is_let_in"),
    [
        (b"Basic " + base64.b64encode(b"me:pass:word"), True),
        (b"basic " + base64.b64encode(b"me:pass:word"), True),
        (b"Basic " + base64.b64encode(b"me:pass"), False),
        (b"Bearer " + base64.b64encode(b"me:pass:word"), False),
        (b"Basic !!!", False),
        (b"", False),
    ],
)
async def test_credentials(field: bytes, is_let_in: bool) -> None:
    gate = Gate(credentials=Credentials("me", "pass:word"))
    more = b"Proxy-Authorization: " + field + b"\r\n" if field else b""
    answer = await ask(b"CONNECT 10.0.0.1:443 HTTP/1.1\r\n" + more + b"\r\n", gate)
    assert answer.startswith(b"HTTP/1.1 200 " if is_let_in else b"HTTP/1.1 407 ")
    assert (b"Proxy-Authenticate: Basic" in answer) is not is_let_in
    assert gate.refused["not authenticated"] == (not is_let_in)


@given(st.binary(max_size=300) | st.builds(b"CONNECT ".__add__, st.binary(max_size=60)))
def test_hostile_requests_raise_nothing(octets: bytes) -> None:
    async def main() -> None:
        await ask(octets + b"\r\n\r\n")

    trio.run(main)
