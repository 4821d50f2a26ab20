"""SOCKS5, octet by octet as in RFC 1928 and RFC 1929."""

from __future__ import annotations

import functools
import socket
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.adapters.standin import LoopbackNet, MemoryNet, echo_when_done, hang_up, read_all, serving, silence
from wgpy.adapters.proxies.gate import Credentials, Gate, Limits, Refused
from wgpy.adapters.proxies.socks5 import decode_datagram, encode_datagram, serve_client


def request(command: int, kind: int, host: bytes, port: int) -> bytes:
    return bytes([5, command, 0, kind]) + host + port.to_bytes(2)


def name(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


async def receive_exactly(stream: Any, count: int) -> bytes:
    received = b""
    while len(received) < count:
        data = await stream.receive_some(count - len(received))
        assert data, f"it ended after {received!r}"
        received += data
    return received


async def converse(net: Any, gate: Gate, client: Any, stream: Any) -> None:
    try:
        await serve_client(stream, net, gate)
    except Refused as refusal:
        gate.refused[str(refusal)] += 1
    except trio.BrokenResourceError:
        gate.refused["left"] += 1
    await stream.aclose()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def net(nursery: trio.Nursery) -> MemoryNet:
    return MemoryNet(
        nursery, {("intranet.test", 80): echo_when_done, ("10.0.0.1", 80): echo_when_done, ("fd00::1", 80): silence}
    )


@pytest.fixture
def connect(nursery: trio.Nursery, net: MemoryNet, gate: Gate) -> Any:
    def make(gate: Gate = gate) -> Any:
        client, stream = trio.testing.memory_stream_pair()
        nursery.start_soon(converse, net, gate, client, stream)
        return client

    return make


@pytest.mark.parametrize(
    ("kind", "host"), [(1, bytes([10, 0, 0, 1])), (3, name("intranet.test"))], ids=["address", "name"]
)
async def test_connect_joins_and_half_close_survives(connect: Any, gate: Gate, kind: int, host: bytes) -> None:
    client = connect()
    await client.send_all(b"\x05\x01\x00")
    assert await receive_exactly(client, 2) == b"\x05\x00"
    await client.send_all(request(1, kind, host, 80) + b"early ")
    assert await receive_exactly(client, 10) == bytes.fromhex("05000001000000000000")
    await client.send_all(b"and late")
    await client.send_eof()
    assert await read_all(client) == b"early and late"
    assert (gate.traffic.up, gate.traffic.down) == (14, 14)


async def test_an_ipv6_target(connect: Any) -> None:
    client = connect()
    await client.send_all(b"\x05\x02\x00\x02" + request(1, 4, socket.inet_pton(socket.AF_INET6, "fd00::1"), 80))
    assert (await receive_exactly(client, 12))[:4] == b"\x05\x00\x05\x00"


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (request(1, 1, bytes([10, 0, 0, 1]), 81), 5),
        (request(2, 1, bytes([10, 0, 0, 1]), 80), 7),
        (request(9, 1, bytes([10, 0, 0, 1]), 80), 7),
        (bytes([5, 1, 0, 2, 0, 0]), 8),
        (request(1, 3, name("a b"), 80), 8),
    ],
    ids=["refused", "BIND", "unknown command", "unknown address type", "no name"],
)
async def test_replies_that_say_no(connect: Any, octets: bytes, reply: int) -> None:
    client = connect()
    await client.send_all(b"\x05\x01\x00" + octets)
    assert await receive_exactly(client, 12) == b"\x05\x00\x05" + bytes([reply]) + bytes.fromhex("0001000000000000")
    assert await client.receive_some() == b""


async def test_a_name_that_the_tunnel_does_not_know_is_not_looked_up_here(
    nursery: trio.Nursery, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the host's resolver was asked")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    client, stream = trio.testing.memory_stream_pair()
    nursery.start_soon(converse, LoopbackNet(), gate, client, stream)
    await client.send_all(b"\x05\x01\x00" + request(1, 3, name("localhost"), 80))
    assert (await receive_exactly(client, 12))[3] == 4
    assert gate.refused == {"unreachable": 1}


SECRET = Credentials("me", "pass word")


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (b"\x05\x02\x00\x02\x01\x02me\x09pass word", b"\x05\x02\x01\x00"),
        (b"\x05\x01\x02\x01\x02me\x05wrong", b"\x05\x02\x01\x01"),
        (b"\x05\x01\x02\x01\x03you\x09pass word", b"\x05\x02\x01\x01"),
        (b"\x05\x01\x02\x01\x00\x00", b"\x05\x02\x01\x01"),
        (b"\x05\x01\x00", b"\x05\xff"),
    ],
    ids=["right", "wrong password", "wrong user", "empty", "not offered"],
)
async def test_user_and_password(connect: Any, sent: bytes, received: bytes) -> None:
    gate = Gate(credentials=SECRET)
    client = connect(gate)
    await client.send_all(sent)
    assert await receive_exactly(client, len(received)) == received
    if received[-1]:
        assert await client.receive_some() == b""
        assert gate.refused == {"not authenticated": 1}
    else:
        await client.send_all(request(1, 1, bytes([10, 0, 0, 1]), 80))
        assert (await receive_exactly(client, 10))[1] == 0


async def test_a_slow_greeting_is_ended(autojump_clock: trio.testing.MockClock, connect: Any) -> None:
    gate = Gate(limits=Limits(greeting_timeout=20))
    client = connect(gate)
    await client.send_all(b"\x05")
    assert await client.receive_some() == b""
    assert gate.refused == {"greeting timed out": 1}


@given(st.binary(max_size=600))
def test_hostile_greetings_raise_nothing_else(octets: bytes) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            net, gate = MemoryNet(nursery, {}), Gate()
            client, stream = trio.testing.memory_stream_pair()
            nursery.start_soon(converse, net, gate, client, stream)
            await client.send_all(octets)
            await client.send_eof()
            await read_all(client)

    trio.run(main)


@given(st.binary(max_size=300))
def test_hostile_datagrams_raise_nothing(octets: bytes) -> None:
    decoded = decode_datagram(octets)
    assert decoded is None or isinstance(decoded[1], bytes)


@pytest.mark.parametrize("source", [("10.0.0.53", 53), ("fd00::1", 65535), ("a.test", 1)])
def test_datagrams_come_back_from_their_header(source: tuple[str, int]) -> None:
    assert decode_datagram(encode_datagram(source, b"")) == (source, b"")
    assert decode_datagram(encode_datagram(source, b"payload")) == (source, b"payload")


def test_fragments_of_datagrams_are_refused() -> None:
    whole = encode_datagram(("10.0.0.53", 53), b"x")
    assert decode_datagram(b"\0\0\1" + whole[3:]) is None


async def test_a_reset_in_the_tunnel_is_a_reset_for_the_client(gate: Gate) -> None:
    net = LoopbackNet()
    async with (
        serving(hang_up) as port,
        serving(functools.partial(serve_client, net=net, gate=gate)) as proxy,
        await trio.open_tcp_stream("127.0.0.1", proxy) as client,
    ):
        await client.send_all(b"\x05\x01\x00" + request(1, 1, bytes([127, 0, 0, 1]), port))
        await receive_exactly(client, 12)
        with pytest.raises(trio.BrokenResourceError):
            await read_all(client)


async def test_a_name_that_nobody_answers_for_keeps_no_other_datagram_waiting(gate: Gate) -> None:
    class Slow(LoopbackNet):
        asked = 0

        async def getaddrinfo(self, host: str, port: int) -> list[Any]:
            if host == "silent.test":
                self.asked += 1
                await trio.sleep_forever()
            return await super().getaddrinfo(host, port)

    net = Slow(echo_test="127.0.0.1")
    async with trio.open_nursery() as nursery, serving(functools.partial(serve_client, net=net, gate=gate)) as proxy:
        server = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        await server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        control = await trio.open_tcp_stream("127.0.0.1", proxy)
        await control.send_all(b"\x05\x01\x00" + request(3, 1, bytes(4), 0))
        reply = await receive_exactly(control, 12)
        association = ("127.0.0.1", int.from_bytes(reply[10:]))
        client = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for number in range(100):
            await client.sendto(encode_datagram(("silent.test", port), b"%d" % number), association)
        await client.sendto(encode_datagram(("echo.test", port), b"heard"), association)
        with trio.fail_after(20):
            assert (await server.recvfrom(100))[0] == b"heard"
        assert net.asked == 1
        await control.aclose()
        nursery.cancel_scope.cancel()
    for one in (client, server):
        one.close()


async def test_udp_associate(gate: Gate) -> None:
    """Datagrams go to the address of their header, answers carry theirs, for as long as the TCP connection stands."""
    net = LoopbackNet(echo_test="127.0.0.1")
    server = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    await server.bind(("127.0.0.1", 0))
    port = server.getsockname()[1]

    async def answer() -> None:
        while True:
            data, sender = await server.recvfrom(65535)
            await server.sendto(data[::-1], sender)

    async with trio.open_nursery() as nursery, serving(functools.partial(serve_client, net=net, gate=gate)) as proxy:
        nursery.start_soon(answer)
        control = await trio.open_tcp_stream("127.0.0.1", proxy)
        await control.send_all(b"\x05\x01\x00" + request(3, 1, bytes(4), 0))
        reply = await receive_exactly(control, 12)
        assert reply[2:10] == bytes.fromhex("050000017f000001")
        association = ("127.0.0.1", int.from_bytes(reply[10:]))
        client = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stranger = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for target in (("127.0.0.1", port), ("echo.test", port)):
            await client.sendto(encode_datagram(target, b"abc"), association)
            data, _ = await client.recvfrom(65535)
            assert decode_datagram(data) == (("127.0.0.1", port), b"cba")
        await stranger.sendto(encode_datagram(("127.0.0.1", port), b"stranger"), association)
        await client.sendto(b"\0\0\1" + encode_datagram(("127.0.0.1", port), b"fragment")[3:], association)
        await client.sendto(encode_datagram(("unknown.test", port), b"lost"), association)
        await client.sendto(encode_datagram(("127.0.0.1", port), b"last"), association)
        data, _ = await client.recvfrom(65535)
        assert decode_datagram(data) == (("127.0.0.1", port), b"tsal"), "only the client's whole datagrams went through"
        await control.send_eof()
        assert await control.receive_some() == b""
        assert (gate.datagrams.up, gate.datagrams.down) == (3, 3)
        probe = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        await probe.bind(association)  # the association is over, and its port free
        await control.aclose()
        nursery.cancel_scope.cancel()
    for one in (client, stranger, probe, server):
        one.close()
