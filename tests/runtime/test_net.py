"""Net without TCP: datagrams, ping, names, captures, and what the ends of a tunnel do to who waits."""

from __future__ import annotations

import contextlib
import errno
import io
import pathlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing
from scapy.layers.dns import DNS, DNSRR
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap

from tests.runtime.links import Host, Weather, joined_nets, joined_tunnels
from wgpy.config import InterfaceConfig, PeerConfig
from wgpy.errors import ConfigError, DropReason
from wgpy.keys import PrivateKey
from wgpy.runtime.datagrams import NetUdp
from wgpy.runtime.streams import NetStream
from wgpy.runtime.tunnel import open_tunnel

# --- datagrams -------------------------------------------------------------------------------------------------------


async def test_datagrams_go_there_and_back(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets(Weather(delay=0.01)) as (a, b), await b.net.open_udp(local=(None, 7)) as server:
        for host in ("10.0.0.2", "fd00::2"):
            async with await a.net.open_udp(remote=(host, 7)) as client:
                for payload in (b"hello", b"", bytes(40_000)):
                    await client.send(payload)
                    received, address = await server.receive_from()
                    assert received == payload
                    await server.send_to(payload[::-1], address)
                    assert await client.receive() == payload[::-1]


async def test_many_are_received_at_once_and_iterated_over(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b):
        server = await b.net.open_udp(local=(None, 7))
        client = await a.net.open_udp(remote=("10.0.0.2", 7))
        for number in range(10):
            client.send_nowait(bytes([number]))
        await trio.sleep(1)
        assert [payload[0] for payload, _ in await server.receive_many(4)] == [0, 1, 2, 3]
        received = []
        with trio.move_on_after(1):
            async for payload, _ in server:
                received.append(payload[0])
        assert received == [4, 5, 6, 7, 8, 9]


async def test_a_sender_waits_for_room_and_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b), trio.open_nursery() as nursery:
        server = await b.net.open_udp(local=(None, 7))
        client = await a.net.open_udp(remote=("10.0.0.2", 7))
        received: list[bytes] = []

        async def receive() -> None:
            async for payload, _ in server:
                received.append(payload)

        nursery.start_soon(receive)
        for number in range(2000):
            await client.send(number.to_bytes(2) * 500)
        await trio.sleep(1)
        assert [int.from_bytes(payload[:2]) for payload in received] == list(range(2000))
        nursery.cancel_scope.cancel()


async def test_who_will_not_wait_is_told_that_there_is_no_room(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, _), await a.net.open_udp(remote=("10.0.0.2", 7)) as client:
        for _ in range(100):
            client.send_nowait(bytes(1000))
        with pytest.raises(trio.WouldBlock):  # noqa: PT012 # one of many fails
            for _ in range(1000):
                client.send_nowait(bytes(1000))


async def test_nobody_there_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, _), await a.net.open_udp(remote=("fd00::2", 9)) as client:
        await client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            await client.receive()


async def test_one_task_receives_at_a_time_and_closing_wakes_it(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, _), trio.open_nursery() as nursery:
        udp = await a.net.open_udp()

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await udp.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await udp.receive()
        await udp.aclose()


# --- ping ------------------------------------------------------------------------------------------------------------


async def test_ping_measures_the_way(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets(Weather(delay=0.05)) as (a, _):
        for host in ("10.0.0.2", "fd00::2"):
            assert await a.net.ping(host) == pytest.approx(0.1)
            assert await a.net.ping(host, size=30_000) == pytest.approx(0.1)


async def test_ping_without_an_answer_times_out(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, _):
        before = trio.current_time()
        with pytest.raises(TimeoutError, match=r"10\.9\.9\.9"):
            await a.net.ping("10.9.9.9", timeout=3)
        assert trio.current_time() - before == pytest.approx(3)


# --- names -----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def name_server(host: Host, answer: Callable[[DNS], bytes], address: str | None = None) -> AsyncIterator[None]:
    """A name server: answers what comes to port 53."""

    async def serve(udp: NetUdp) -> None:
        async for message, asker in udp:
            await udp.send_to(answer(DNS(message)), asker)

    async with await host.net.open_udp(local=(address, 53)) as udp, trio.open_nursery() as nursery:
        nursery.start_soon(serve, udp)
        yield
        nursery.cancel_scope.cancel()


def zone(asked: DNS) -> bytes:
    """www.example has addresses of both families, old.example only IPv4, broken.example none that can be told."""
    name, kind = asked.qd[0].qname.lower(), asked.qd[0].qtype
    records, code = [], 0
    if name == b"broken.example.":
        code = 2
    elif name not in (b"www.example.", b"old.example."):
        code = 3
    elif kind == 1:
        records = [DNSRR(rrname=asked.qd[0].qname, type="A", rdata="10.0.0.2")]
    elif name == b"www.example.":
        records = [DNSRR(rrname=asked.qd[0].qname, type="AAAA", rdata="fd00::2")]
    return bytes(DNS(id=asked.id, qr=1, rcode=code, qd=asked.qd, an=records))


async def test_names_are_resolved_through_the_tunnel_and_nowhere_else(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leak(*_: object, **__: object) -> None:
        raise AssertionError("the resolver of the host was asked")

    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        monkeypatch.setattr(socket, name, leak)
    async with joined_nets() as (a, b), name_server(b, zone):
        assert await a.net.getaddrinfo("www.example", 443, type=socket.SOCK_STREAM) == [
            (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("fd00::2", 443, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("10.0.0.2", 443)),
        ]
        assert [info[4] for info in await a.net.getaddrinfo("old.example", "domain", type=socket.SOCK_DGRAM)] == [
            ("10.0.0.2", 53)
        ]
        assert [info[4][0] for info in await a.net.getaddrinfo("www.example", family=socket.AF_INET)] == [
            "10.0.0.2"
        ] * 2
        assert await a.net.ping("www.example") < 1
        async with await a.net.open_udp(remote=("old.example", 53)) as udp:
            assert udp.remote_address == ("10.0.0.2", 53)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nowhere.example", socket.EAI_NONAME),
        ("a..b", socket.EAI_NONAME),
        ("broken.example", socket.EAI_FAIL),
    ],
)
async def test_a_name_without_an_address_says_why(name: str, code: int, autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b), name_server(b, zone):
        with pytest.raises(socket.gaierror) as refused:
            await a.net.getaddrinfo(name, 80)
        assert refused.value.errno == code


async def test_short_names_are_searched_for_and_answers_kept(autojump_clock: trio.testing.MockClock) -> None:
    asked: list[str] = []

    def answer(question: DNS) -> bytes:
        name = question.qd[0].qname
        asked.append(name.decode().lower())
        is_known, is_v4 = name.lower() == b"db.prod.example.", question.qd[0].qtype == 1
        records = [DNSRR(rrname=name, type="A", rdata="10.0.0.2", ttl=30)] if is_known and is_v4 else []
        return bytes(DNS(id=question.id, qr=1, rcode=0 if is_known else 3, qd=question.qd, an=records))

    async with joined_nets() as (a, b), name_server(b, answer):
        a.net.set_dns_servers(["10.0.0.2"], search=["nowhere.example", "prod.example"])

        async def look_up(name: str) -> str:
            [info] = await a.net.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)
            return str(info[4][0])

        assert await look_up("db") == "10.0.0.2"
        assert asked == ["db.nowhere.example.", "db.prod.example."]
        assert await look_up("db.prod.example") == "10.0.0.2"
        assert len(asked) == 2, "the second answer is kept"
        await trio.sleep(31)
        assert await look_up("db.prod.example.") == "10.0.0.2"
        assert len(asked) == 3
        with pytest.raises(socket.gaierror):
            await look_up("db.")


async def test_a_silent_server_is_asked_for_six_seconds(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b), await b.net.open_udp(local=(None, 53)) as server:
        before = trio.current_time()
        with pytest.raises(socket.gaierror) as refused:
            await a.net.getaddrinfo("www.example", family=socket.AF_INET)
        assert refused.value.errno == socket.EAI_AGAIN
        assert trio.current_time() - before == pytest.approx(6)
        ports = {address[1] for _, address in await server.receive_many(10)}
        assert len(ports) == 3


async def test_a_server_that_is_not_there_costs_no_time(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b), name_server(b, zone, "fd00::2"):
        a.net.set_dns_servers(["10.0.0.2", "fd00::2"])
        before = trio.current_time()
        assert len(await a.net.getaddrinfo("www.example", 80, type=socket.SOCK_STREAM)) == 2
        assert trio.current_time() - before < 1


async def test_without_servers_the_missing_setting_is_named(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (_, b):
        with pytest.raises(socket.gaierror, match="`DNS =`") as refused:
            await b.net.getaddrinfo("www.example", 80)
        assert refused.value.errno == socket.EAI_AGAIN
        assert await b.net.getaddrinfo("10.1.2.3", 80, type=socket.SOCK_STREAM) == [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("10.1.2.3", 80))
        ]


async def test_forged_answers_do_not_reach_the_caller(autojump_clock: trio.testing.MockClock) -> None:
    """A server that guesses: every identifier is wrong, or the port another's."""
    async with (
        joined_nets() as (a, b),
        await b.net.open_udp(local=(None, 53)) as server,
        await b.net.open_udp(local=(None, 54)) as other,
        trio.open_nursery() as nursery,
    ):

        async def forge() -> None:
            async for message, address in server:
                asked = DNS(message)
                bad = DNSRR(rrname=asked.qd[0].qname, type="A", rdata="203.0.113.66")
                for number in range(1, 50):
                    reply = DNS(id=(asked.id + number) & 0xFFFF, qr=1, qd=asked.qd, an=[bad])
                    await server.send_to(bytes(reply), address)
                await other.send_to(bytes(DNS(id=asked.id, qr=1, qd=asked.qd, an=[bad])), address)
                await trio.sleep(0.1)
                await server.send_to(zone(asked), address)

        nursery.start_soon(forge)
        infos = await a.net.getaddrinfo("www.example", 80, socket.AF_INET, socket.SOCK_STREAM)
        assert [info[4][0] for info in infos] == ["10.0.0.2"]
        nursery.cancel_scope.cancel()


# --- captures --------------------------------------------------------------------------------------------------------


async def test_a_capture_holds_what_went_through_the_tunnel(
    autojump_clock: trio.testing.MockClock, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "inner.pcap"
    async with joined_nets() as (a, _):
        with a.net.start_pcap(file):
            await a.net.ping("fd00::2")
        await a.net.ping("10.0.0.2")
    assert file.stat().st_mode & 0o777 == 0o600
    packets = rdpcap(str(file))
    assert [(IPv6(bytes(packet)).src, IPv6(bytes(packet)).dst) for packet in packets] == [
        ("fd00::1", "fd00::2"),
        ("fd00::2", "fd00::1"),
    ]


async def test_a_capture_may_be_cut_short(autojump_clock: trio.testing.MockClock) -> None:
    out = io.BytesIO()
    async with joined_nets() as (a, _):
        with a.net.start_pcap(out, snaplen=40):
            await a.net.ping("10.0.0.2", size=100)
    kept, length = struct.unpack_from("<II", out.getvalue(), 24 + 8)
    assert (kept, length) == (40, 128)
    assert len(out.getvalue()) == 24 + 2 * (16 + 40)


# --- tunnels ---------------------------------------------------------------------------------------------------------


async def test_two_tunnels_carry_datagrams_and_echo() -> None:
    async with joined_tunnels() as (a, b):
        for host in ("10.0.0.2", "fd00::2"):
            assert await a.net.ping(host, timeout=5) > 0
        async with await b.net.open_udp(local=(None, 7)) as server, await a.net.open_udp() as client:
            await client.send_to(b"hello", ("fd00::2", 7))
            assert (await server.receive_from())[0] == b"hello"


@pytest.mark.parametrize(
    ("host", "number", "reason"),
    [
        ("10.9.9.9", errno.ENETUNREACH, DropReason.NO_PEER_FOR_DESTINATION),
        ("10.0.0.1", errno.EHOSTUNREACH, DropReason.NO_ENDPOINT),
    ],
)
async def test_a_destination_that_the_tunnel_does_not_lead_to_is_refused_at_once(
    host: str, number: int, reason: DropReason
) -> None:
    async with joined_tunnels() as (_, b):
        for call in (
            lambda: b.net.ping(host),
            lambda: b.net.open_udp(remote=(host, 7)),
            lambda: b.net.open_tcp_stream(host, 80),
        ):
            with pytest.raises(OSError, match=reason.value) as refused:
                await call()
            assert refused.value.errno == number
        assert not b.device.statistics().drops, "nothing was sent"


async def test_leaving_the_tunnel_wakes_who_waits() -> None:
    async with trio.open_nursery() as nursery:
        async with joined_tunnels() as (a, _):
            udp = await a.net.open_udp()

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError, match="tunnel"):
                    await udp.receive()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.ClosedResourceError):
            await a.net.open_udp()
        with pytest.raises(trio.ClosedResourceError):
            await a.net.ping("10.0.0.2")


async def test_a_tunnel_without_an_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs an address"):
        async with open_tunnel(InterfaceConfig(PrivateKey.generate())):
            pass


async def test_a_small_mtu_turns_ipv6_off(caplog: pytest.LogCaptureFixture) -> None:
    config = InterfaceConfig(PrivateKey.generate(), addresses=["10.0.0.1/24", "fd00::1/64"], mtu=1200)
    async with open_tunnel(config) as tunnel:
        assert tunnel.net.addresses == ("10.0.0.1",)
    assert "no IPv6 inside the tunnel" in caplog.text


async def test_a_failed_tunnel_breaks_who_waits() -> None:
    host = Host(("10.0.0.1",), (), mtu=1420, seed="x")
    async with trio.open_nursery() as nursery:
        udp = await host.net.open_udp()

        async def wait() -> None:
            with pytest.raises(trio.BrokenResourceError) as broken:
                await udp.receive()
            assert isinstance(broken.value.__cause__, RuntimeError)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        try:
            raise RuntimeError("the sky fell")
        except RuntimeError:
            host.device.close()


# --- which address ---------------------------------------------------------------------------------------------------


def no_ipv6(address: bytes) -> DropReason | None:
    """A tunnel whose AllowedIPs hold no IPv6 address."""
    return DropReason.NO_PEER_FOR_DESTINATION if len(address) == 16 else None


async def test_of_a_name_with_both_families_the_one_with_a_route_is_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with joined_nets() as (a, b), name_server(b, zone), await b.net.open_udp(local=(None, 7)) as echo:
        a.net._refusal = no_ipv6
        await b.net.open_tcp_listeners(80)
        assert await a.net.ping("www.example") < 1
        async with await a.net.open_udp(remote=("www.example", 7)) as udp:
            assert udp.remote_address == ("10.0.0.2", 7)
            await udp.send(b"?")
            assert (await echo.receive_from())[0] == b"?"
        before = trio.current_time()
        stream = await a.net.open_tcp_stream("www.example", 80)
        assert stream.remote_address == ("10.0.0.2", 80)
        assert trio.current_time() - before < 0.1
        with pytest.raises(OSError, match="fd00::2") as refused:
            await a.net.ping("fd00::2")
        assert refused.value.errno == errno.ENETUNREACH


@pytest.mark.parametrize("call", ["ping", "getaddrinfo", "udp", "tcp"])
async def test_a_server_that_drops_questions_for_ipv6_costs_no_time(
    call: str, autojump_clock: trio.testing.MockClock
) -> None:
    """RFC 8305 section 3: 50 ms after the first family has answered."""

    async def answer_v4_only(udp: NetUdp) -> None:
        async for message, asker in udp:
            if DNS(message).qd[0].qtype == 1:
                await udp.send_to(zone(DNS(message)), asker)

    async with (
        joined_nets() as (a, b),
        await b.net.open_udp(local=(None, 53)) as server,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(answer_v4_only, server)
        await b.net.open_tcp_listeners(80)
        before = trio.current_time()
        match call:
            case "ping":
                await a.net.ping("www.example")
            case "udp":
                (await a.net.open_udp(remote=("www.example", 7))).close()
            case "tcp":
                (await a.net.open_tcp_stream("www.example", 80)).abort()
            case _:
                assert {info[4][0] for info in await a.net.getaddrinfo("www.example", 80)} == {"10.0.0.2"}
        assert trio.current_time() - before < 0.1
        # Who says that there is no such name says it of both families.
        with pytest.raises(socket.gaierror) as refused:
            await a.net.getaddrinfo("nowhere.example")
        assert refused.value.errno == socket.EAI_NONAME
        assert trio.current_time() - before < 0.2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("host", "number"),
    [
        ("224.0.0.1", errno.ENETUNREACH),
        ("ff02::1", errno.ENETUNREACH),
        ("255.255.255.255", errno.ENETUNREACH),
        ("10.0.0.255", errno.ENETUNREACH),
        ("::ffff:10.0.0.2", errno.ENETUNREACH),
        ("0.0.0.0", errno.ENETUNREACH),
        ("127.0.0.1", errno.ENETUNREACH),
        ("::1", errno.ENETUNREACH),
        ("::", errno.ENETUNREACH),
    ],
)
async def test_what_is_no_address_of_a_host_is_refused_at_once(host: str, number: int) -> None:
    everything = ["0.0.0.0/0", "::/0"]
    said = host.removeprefix("::ffff:")  # Pythons differ in how they write the rest
    async with open_tunnel(
        InterfaceConfig(
            PrivateKey.generate(),
            addresses=["10.0.0.1/24", "fd00::1/64"],
            peers=[PeerConfig(PrivateKey.generate().public_key, allowed_ips=everything, endpoint="127.0.0.1:9")],
        )
    ) as tunnel:
        for call in (lambda: tunnel.net.ping(host), lambda: tunnel.net.open_tcp_stream(host, 80)):
            with pytest.raises(OSError, match=re.escape(said)) as refused:
                await call()
            assert refused.value.errno == number
        async with await tunnel.net.open_udp() as udp:
            if host in ("224.0.0.1", "ff02::1"):
                await udp.send_to(b"to a group", (host, 5353))
            else:
                with pytest.raises(OSError, match=re.escape(said)) as refused:
                    await udp.send_to(b"?", (host, 7))
                assert refused.value.errno == (errno.EACCES if host.endswith(".255") else number)


@pytest.mark.parametrize("own", ["10.0.0.1", "fd00::1"])
async def test_one_s_own_address_loops_back(own: str, autojump_clock: trio.testing.MockClock) -> None:
    """As in a kernel: streams, datagrams, echo and refusals, and nothing of it leaves."""
    async with joined_nets() as (a, _), trio.open_nursery() as nursery:
        a.net._refusal = lambda address: DropReason.NO_PEER_FOR_DESTINATION
        payload = bytes(range(256)) * 4096

        async def swallow(stream: NetStream) -> None:
            received = b"".join([chunk async for chunk in stream])
            await stream.send_all(b"%d" % len(received))

        await nursery.start(a.net.serve_tcp, swallow, 80)
        stream = await a.net.open_tcp_stream(own, 80)
        assert stream.remote_address[0] == stream.local_address[0] == own
        await stream.send_all(payload)
        await stream.send_eof()
        assert await stream.receive_some() == b"%d" % len(payload)
        with pytest.raises(ConnectionRefusedError):
            await a.net.open_tcp_stream(own, 81)
        assert await a.net.ping(own, size=3000) < 0.1
        async with await a.net.open_udp(local=(None, 7)) as server, await a.net.open_udp(remote=(own, 7)) as client:
            await client.send(bytes(5000))
            datagram, asker = await server.receive_from()
            assert (len(datagram), asker[0]) == (5000, own)
        async with await a.net.open_udp(remote=(own, 9)) as client:
            await client.send(b"?")
            with pytest.raises(ConnectionRefusedError):
                await client.receive_from()
        assert not a.seen, "nothing left"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("port", [-1, 65536, 99999])
async def test_what_is_no_port_is_refused(port: int, autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b), name_server(b, zone):
        for call in (
            lambda: a.net.open_tcp_stream("10.0.0.2", port),
            lambda: a.net.open_tcp_stream("www.example", port),
            lambda: a.net.open_tcp_listeners(port),
            lambda: a.net.open_udp(local=(None, port)),
            lambda: a.net.open_udp(remote=("www.example", port)),
        ):
            with pytest.raises(OSError, match=str(port)) as refused:
                await call()
            assert refused.value.errno == errno.EINVAL


@pytest.mark.parametrize("host", [b"wiki", b"10.0.0.2", 167772162, None])
async def test_what_is_no_text_is_no_host(host: object, autojump_clock: trio.testing.MockClock) -> None:
    """Four octets are not the address whose octets they are."""
    async with joined_nets() as (a, _):
        for call in (
            lambda: a.net.open_tcp_stream(host, 80),  # type: ignore[arg-type]
            lambda: a.net.ping(host),  # type: ignore[arg-type]
            lambda: a.net.open_udp(remote=(host, 7)),  # type: ignore[arg-type]
            lambda: a.net.getaddrinfo(host, 7),  # type: ignore[arg-type]
        ):
            with pytest.raises(TypeError, match="text"):
                await call()
