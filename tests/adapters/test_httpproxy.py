"""The HTTP proxy, as RFC 9110 and RFC 9112 have it."""

from __future__ import annotations

import base64
from typing import Any

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


async def ask(octets: bytes, gate: Gate | None = None, net: Any = None) -> bytes:
    """What a client gets that sends this and says that it is done."""
    async with trio.open_nursery() as nursery:
        servers = {
            ("intranet.test", 80): echo_when_done,
            ("10.0.0.1", 443): echo_when_done,
            ("fd00::1", 81): echo_when_done,
        }
        client, stream = trio.testing.memory_stream_pair()
        nursery.start_soon(converse, net or MemoryNet(nursery, servers), gate or Gate(), stream)
        await client.send_all(octets)
        await client.send_eof()
        return await read_all(client)


@pytest.mark.parametrize("target", ["10.0.0.1:443", "intranet.test:80", "[fd00::1]:81"])
async def test_connect_joins_and_half_close_survives(target: str) -> None:
    answer = await ask(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nearly octets".encode())
    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nearly octets"


async def test_a_plain_request_is_passed_on_for_its_origin_server() -> None:
    """The echo server sends back what it got."""
    answer = await ask(
        b"POST http://user@intranet.test/path?q=1 HTTP/1.1\r\nHost: elsewhere.test\r\nContent-Length: 4\r\n"
        b"Proxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\nConnection: X-Secret, close\r\n"
        b"X-Secret: 1\r\nX-Kept: 2\r\n\r\nbody"
    )
    assert answer == (
        b"POST /path?q=1 HTTP/1.1\r\nHost: intranet.test\r\nContent-Length: 4\r\nX-Kept: 2\r\nVia: 1.1 wgpy\r\n"
        b"Connection: close\r\n\r\nbody"
    )


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://intranet.test", "/"), ("http://intranet.test?a", "/?a"), ("HTTP://intranet.test:80/b", "/b")],
)
async def test_paths(target: str, path: str) -> None:
    assert (await ask(f"GET {target} HTTP/1.1\r\n\r\n".encode())).startswith(f"GET {path} HTTP/1.1\r\n".encode())


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
