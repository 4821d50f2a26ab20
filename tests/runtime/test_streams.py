"""NetStream and NetListener: trio's own checks, the ends of connections, and what the caller sees of them."""

from __future__ import annotations

import errno
import hashlib
import math
import random
import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from scapy.layers.dns import DNS, DNSRR

from tests.netstack.hosts import arriving
from tests.runtime.links import Host, Weather, guest_of, joined_nets, joined_tunnels
from tests.runtime.test_net import name_server, zone
from wgpy.netstack.tcp.host import Fallback
from wgpy.netstack.tcp.keepalive import Keepalive
from wgpy.runtime.listeners import NetListener
from wgpy.runtime.streams import NetStream
from wgpy.runtime.tunnel import Tunnel, open_tunnel
from wgpy.wire import icmp, ip


async def connected(a: Host, b: Host, host: str = "10.0.0.2", port: int = 80) -> tuple[NetStream, NetStream]:
    """A stream from a to b, and the other end of it."""
    [listener] = await b.net.open_tcp_listeners(port)
    async with listener:
        stream = await a.net.open_tcp_stream(host, port)
        return stream, await listener.accept()


# --- trio's own checks -----------------------------------------------------------------------------------------------


async def test_trio_s_check_of_half_closeable_streams(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b):

        async def make() -> tuple[NetStream, NetStream]:
            return await connected(a, b)

        async def make_clogged() -> tuple[NetStream, NetStream]:
            one, other = await connected(a, b)
            # Nobody reads at either end: fill all buffers.
            for stream in (one, other):
                with trio.move_on_after(1):
                    while True:
                        await stream.send_all(bytes(2**16))
            return one, other

        await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_trio_s_check_of_two_way_streams(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b):

        async def make() -> tuple[NetStream, NetStream]:
            return await connected(a, b, "fd00::2")

        await trio.testing.check_two_way_stream(make, None)


# --- dialling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["10.0.0.2", "fd00::2"])
async def test_nobody_listens(host: str, autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, _):
        with pytest.raises(ConnectionRefusedError):
            await a.net.open_tcp_stream(host, 80)
        assert a.net.statistics().connections == 0


async def test_nobody_answers(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets(Weather(loss=1.0)) as (a, _):
        before = trio.current_time()
        with pytest.raises(TimeoutError):
            await a.net.open_tcp_stream("10.0.0.2", 80)
        assert 60 < trio.current_time() - before < 200
        assert a.net.statistics().connections == 0


async def test_a_cancelled_dial_leaves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets(Weather(loss=1.0)) as (a, _):
        with trio.move_on_after(5) as scope:
            await a.net.open_tcp_stream("10.0.0.2", 80)
        assert scope.cancelled_caught
        assert a.net.statistics().connections == 0


async def test_ends_have_addresses(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b):
        stream, other = await connected(a, b, "fd00::2", 443)
        assert stream.remote_address == other.local_address == ("fd00::2", 443)
        assert stream.local_address == other.remote_address
        assert stream.local_address[0] == "fd00::1"


async def test_a_local_address_can_be_chosen(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b), await one_listener(b):
        stream = await a.net.open_tcp_stream("10.0.0.2", 80, local="10.0.0.1")
        assert stream.local_address[0] == "10.0.0.1"
        with pytest.raises(OSError, match="address") as refused:
            await a.net.open_tcp_stream("10.0.0.2", 80, local="10.0.0.77")
        assert refused.value.errno == errno.EADDRNOTAVAIL


async def one_listener(at: Host | Tunnel, port: int = 80, **more: object) -> NetListener:
    [listener] = await at.net.open_tcp_listeners(port, **more)  # type: ignore[arg-type]
    return listener


async def test_a_silent_family_costs_a_quarter_of_a_second(autojump_clock: trio.testing.MockClock) -> None:
    """RFC 8305: IPv6 first, and IPv4 beside it when that takes too long."""
    async with joined_nets() as (a, b), name_server(b, zone), await one_listener(b, host="10.0.0.2") as listener:
        b.stack.register_unreachable(lambda *_: None)
        a.swallow = lambda packet: packet[0] >> 4 == 6
        before = trio.current_time()
        stream = await a.net.open_tcp_stream("www.example", 80)
        assert stream.remote_address == ("10.0.0.2", 80)
        assert trio.current_time() - before == pytest.approx(0.25)
        await listener.accept()
        assert a.net.statistics().connections == 1, "the other attempt is gone"


async def test_a_family_that_refuses_costs_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b), name_server(b, zone), await one_listener(b, host="10.0.0.2"):
        before = trio.current_time()
        stream = await a.net.open_tcp_stream("www.example", 80, happy_eyeballs_delay=None)
        assert stream.remote_address == ("10.0.0.2", 80)
        assert trio.current_time() - before < 0.1


async def test_when_every_address_fails_all_causes_are_told(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b), name_server(b, zone):
        with pytest.raises(OSError, match=r"www\.example:80") as refused:
            await a.net.open_tcp_stream("www.example", 80)
        causes = refused.value.__cause__
        assert isinstance(causes, ExceptionGroup)
        assert [type(cause) for cause in causes.exceptions] == [ConnectionRefusedError] * 2
        assert refused.value.errno == errno.ECONNREFUSED
        assert isinstance(refused.value, ConnectionRefusedError)


@pytest.mark.parametrize("host", ["10.0.0.9", "fd00::9"])
async def test_an_answer_that_a_host_cannot_be_reached_ends_the_dial(
    host: str, autojump_clock: trio.testing.MockClock
) -> None:
    """A router on the way says so; the kernel ends the attempt, and so do we."""
    async with joined_nets() as (a, _):
        octets = ip.from_text(host)

        def answer(packet: bytes) -> bool:
            if ip.destination(packet) != octets:
                return False
            router = ip.from_text("10.0.0.2" if len(octets) == 4 else "fd00::2")
            kind, code = (3, 1) if len(octets) == 4 else (1, 3)
            unreachable = icmp.error(packet, kind, code, source=router)
            assert unreachable is not None
            a.device.write_batch([arriving(unreachable)])
            return True

        a.swallow = answer
        before = trio.current_time()
        with pytest.raises(OSError, match="host") as refused:
            await a.net.open_tcp_stream(host, 80)
        assert refused.value.errno == errno.EHOSTUNREACH
        assert trio.current_time() - before < 0.5


# --- listening -------------------------------------------------------------------------------------------------------


async def test_a_port_is_one_s_own(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, _), await one_listener(a, 80):
        with pytest.raises(OSError, match="80") as refused:
            await a.net.open_tcp_listeners(80)
        assert refused.value.errno == errno.EADDRINUSE
        with pytest.raises(OSError, match="address") as refused:
            await a.net.open_tcp_listeners(81, host="10.0.0.77")
        assert refused.value.errno == errno.EADDRNOTAVAIL
        async with await one_listener(a, 0) as listener:
            assert listener.address[1] >= 1024


async def test_serve_tcp_serves_many_side_by_side(autojump_clock: trio.testing.MockClock) -> None:
    async def echo(stream: NetStream) -> None:
        async for octets in stream:
            await stream.send_all(octets)
        await stream.aclose()

    async with joined_nets() as (a, b), trio.open_nursery() as nursery:
        [listener] = await nursery.start(b.net.serve_tcp, echo, 7)
        assert listener.address == (None, 7)

        async def ask(number: int) -> None:
            async with await a.net.open_tcp_stream(("10.0.0.2", "fd00::2")[number % 2], 7) as stream:
                await stream.send_all(number.to_bytes(2) * 5000)
                await stream.send_eof()
                assert b"".join([octets async for octets in stream]) == number.to_bytes(2) * 5000

        async with trio.open_nursery() as clients:
            for number in range(50):
                clients.start_soon(ask, number)
        nursery.cancel_scope.cancel()


async def test_a_handler_that_leaves_its_stream_open_has_said_everything(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def answer(stream: NetStream) -> None:
        await stream.receive_some()
        await stream.send_all(bytes(100_000))

    async with joined_nets(Weather(delay=0.02)) as (a, b), trio.open_nursery() as nursery:
        await nursery.start(b.net.serve_tcp, answer, 80)
        async with await a.net.open_tcp_stream("10.0.0.2", 80) as stream:
            await stream.send_all(b"?")
            assert len(b"".join([octets async for octets in stream])) == 100_000
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "problem",
    [
        RuntimeError("truth"),
        OSError("away"),
        EOFError(),
        trio.BrokenResourceError(),
        ExceptionGroup("several", [ValueError(), trio.ClosedResourceError()]),
    ],
)
async def test_a_handler_that_fails_resets_its_stream_and_no_other(
    problem: Exception, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async def serve(stream: NetStream) -> None:
        await stream.send_all(b"half of the")
        if await stream.receive_some() == b"fail":
            raise problem
        await stream.send_all(b" truth")

    async with joined_nets() as (a, b), trio.open_nursery() as nursery:
        await nursery.start(b.net.serve_tcp, serve, 80)
        good, bad = [await a.net.open_tcp_stream("10.0.0.2", 80) for _ in range(2)]
        for stream in (good, bad):
            assert await stream.receive_some() == b"half of the"
        await bad.send_all(b"fail")
        with pytest.raises(trio.BrokenResourceError):
            await bad.receive_some()
        await good.send_all(b"go on")
        assert await good.receive_some() == b" truth"
        async with await a.net.open_tcp_stream("10.0.0.2", 80) as another:
            assert await another.receive_some() == b"half of the"
        nursery.cancel_scope.cancel()
    is_defect = isinstance(problem, RuntimeError | ExceptionGroup)
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == is_defect
    assert all("10.0.0.1" in record.getMessage() for record in told)


async def test_who_stops_the_program_in_a_handler_stops_it(autojump_clock: trio.testing.MockClock) -> None:
    async def stop(stream: NetStream) -> None:
        raise KeyboardInterrupt

    async with joined_nets() as (a, b):
        with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                await nursery.start(b.net.serve_tcp, stop, 80)
                await a.net.open_tcp_stream("10.0.0.2", 80)
                await trio.sleep_forever()


async def test_all_that_wait_can_be_accepted_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b):
        listener = await one_listener(b)
        with pytest.raises(trio.WouldBlock):
            listener.accept_nowait()
        streams = [await a.net.open_tcp_stream("10.0.0.2", 80) for _ in range(3)]
        await trio.sleep(0.1)
        accepted = [await listener.accept(), listener.accept_nowait(), listener.accept_nowait()]
        assert [one.remote_address for one in accepted] == [one.local_address for one in streams]
        with pytest.raises(trio.WouldBlock):
            listener.accept_nowait()
        await listener.aclose()
        with pytest.raises(trio.ClosedResourceError):
            listener.accept_nowait()


async def test_a_crowd_is_served_without_a_segment_sent_again(autojump_clock: trio.testing.MockClock) -> None:
    """More connections than the accept queue holds come and go; nobody is kept waiting for a retransmission."""
    served = 0

    async def count(stream: NetStream) -> None:
        nonlocal served
        assert await stream.receive_some() == b""
        served += 1

    async with joined_nets() as (a, b), trio.open_nursery() as nursery:
        await nursery.start(b.net.serve_tcp, count, 80)

        async def dial() -> None:
            for _ in range(10):
                await (await a.net.open_tcp_stream("10.0.0.2", 80)).aclose()

        async with trio.open_nursery() as dialers:
            for _ in range(32):
                dialers.start_soon(dial)
        await trio.sleep(1)
        assert served == 320
        assert a.net.statistics().segments_retransmitted == b.net.statistics().segments_retransmitted == 0
        nursery.cancel_scope.cancel()


async def test_closing_a_listener_resets_who_was_not_accepted(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b), trio.open_nursery() as nursery:
        listener = await one_listener(b)
        stream = await a.net.open_tcp_stream("10.0.0.2", 80)
        await trio.sleep(0.1)
        await listener.aclose()
        with pytest.raises(trio.BrokenResourceError) as broken:
            await stream.receive_some()
        assert isinstance(broken.value.__cause__, ConnectionResetError)
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        listener = await one_listener(b)

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()


async def test_a_fallback_accepts_for_any_address(autojump_clock: trio.testing.MockClock) -> None:
    asked = []

    def decide(local: tuple[str, int], remote: tuple[str, int]) -> Fallback:
        asked.append((local, remote[0]))
        return Fallback.REFUSE if local[1] == 25 else Fallback.ACCEPT

    async with joined_nets() as (a, b), await one_listener(b, 80), b.net.set_fallback_tcp_handler(decide) as anybody:
        async with await a.net.open_tcp_stream("203.0.113.9", 443) as stream:
            other = await anybody.accept()
            assert other.local_address == ("203.0.113.9", 443)
            await other.send_all(b"in place of somebody")
            assert await stream.receive_some() == b"in place of somebody"
        with pytest.raises(ConnectionRefusedError):
            await a.net.open_tcp_stream("203.0.113.9", 25)
        await (await a.net.open_tcp_stream("10.0.0.2", 80)).aclose()
    assert asked == [(("203.0.113.9", 443), "10.0.0.1"), (("203.0.113.9", 25), "10.0.0.1")]


# --- the ends of a connection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("close", [NetStream.aclose, trio.aclose_forcefully])
async def test_closing_delivers_what_was_sent(
    close: Callable[[NetStream], Awaitable[None]], autojump_clock: trio.testing.MockClock
) -> None:
    async with joined_nets(Weather(delay=0.02)) as (a, b):
        stream, other = await connected(a, b)
        await stream.send_all(bytes(100_000))
        await close(stream)
        assert len(b"".join([octets async for octets in other])) == 100_000
        await other.aclose()
        await trio.sleep(1)
        assert a.net.statistics().connections == b.net.statistics().connections == 0


async def test_closing_ends_in_a_reset_when_nobody_takes_what_was_sent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    weather = Weather()
    async with joined_nets(weather) as (a, b):
        stream, _ = await connected(a, b)
        weather.loss = 1.0
        await stream.send_all(b"into the void")
        await stream.aclose()
        await trio.sleep(4.9)
        assert a.net.statistics().connections == 1
        await trio.sleep(0.2)
        assert a.net.statistics().connections == 0


@pytest.mark.parametrize("how", ["unread", "aborted"])
async def test_an_end_without_ceremony_is_a_reset(how: str, autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b):
        stream, other = await connected(a, b)
        await other.send_all(b"before the end")
        if how == "unread":
            await trio.sleep(0.1)
            await stream.aclose()
        else:
            assert await stream.receive_some() == b"before the end"
            stream.abort()
        with pytest.raises(trio.BrokenResourceError) as broken:
            await other.receive_some()
        assert isinstance(broken.value.__cause__, ConnectionResetError)
        with pytest.raises(trio.BrokenResourceError):
            await other.send_all(b"more")


async def test_what_came_before_a_reset_is_read_first(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, b):
        stream, other = await connected(a, b)
        await other.send_all(b"the last words")
        await trio.sleep(0.1)
        other.abort()
        await trio.sleep(0.1)
        assert await stream.receive_some() == b"the last words"
        with pytest.raises(trio.BrokenResourceError) as broken:
            await stream.receive_some()
        assert isinstance(broken.value.__cause__, ConnectionResetError)


async def test_a_user_timeout_breaks_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    weather = Weather()
    async with joined_nets(weather) as (a, b):
        stream, _ = await connected(a, b)
        stream.set_user_timeout(20)
        weather.loss = 1.0
        before = trio.current_time()
        await stream.send_all(b"anybody?")
        with pytest.raises(trio.BrokenResourceError) as broken:
            await stream.receive_some()
        assert isinstance(broken.value.__cause__, TimeoutError)
        assert trio.current_time() - before == pytest.approx(20, abs=1)


async def test_keepalive_finds_a_dead_peer_and_spares_a_living_one(autojump_clock: trio.testing.MockClock) -> None:
    weather = Weather(delay=0.01)
    async with joined_nets(weather) as (a, b):
        stream, _ = await connected(a, b)
        stream.set_keepalive(Keepalive(idle=10, interval=2, probes=3))
        with trio.move_on_after(100) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
        weather.loss = 1.0
        before = trio.current_time()
        with pytest.raises(trio.BrokenResourceError) as broken:
            await stream.receive_some()
        assert isinstance(broken.value.__cause__, TimeoutError)
        assert trio.current_time() - before < 20


async def test_both_ends_find_a_dead_peer_as_they_were_opened(autojump_clock: trio.testing.MockClock) -> None:
    weather = Weather(delay=0.01)
    keepalive = Keepalive(idle=5, interval=3, probes=3)
    async with joined_nets(weather) as (a, b):
        [listener] = await b.net.open_tcp_listeners(80, keepalive=keepalive, user_timeout=14)
        ends = [await a.net.open_tcp_stream("10.0.0.2", 80, keepalive=keepalive), await listener.accept()]
        weather.loss = 1.0
        before = trio.current_time()

        async def until_broken(stream: NetStream) -> None:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            assert trio.current_time() - before < 15

        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(until_broken, end)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
async def test_a_user_timeout_is_a_time(seconds: float, autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets() as (a, _):
        with pytest.raises(ValueError, match="positive"):
            await a.net.open_tcp_stream("10.0.0.2", 80, user_timeout=seconds)
        with pytest.raises(ValueError, match="positive"):
            await a.net.open_tcp_listeners(80, user_timeout=seconds)


async def test_an_attempt_ends_with_its_user_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets(Weather(loss=1.0)) as (a, _):
        before = trio.current_time()
        with pytest.raises(TimeoutError):
            await a.net.open_tcp_stream("10.0.0.2", 80, user_timeout=5)
        assert trio.current_time() - before == pytest.approx(5, abs=0.1)


async def test_a_cancelled_receive_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets(Weather(delay=0.3)) as (a, b):
        stream, other = await connected(a, b)
        await other.send_all(b"later")
        with trio.move_on_after(0.1) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
        assert await stream.receive_some() == b"later"


async def test_leaving_the_tunnel_wakes_streams_and_listeners_and_resets_the_other_end() -> None:
    async with joined_tunnels() as (_, b):
        [listener] = await b.net.open_tcp_listeners(80)
        async with trio.open_nursery() as nursery:
            async with open_tunnel(guest_of(b)) as c:
                stream = await c.net.open_tcp_stream("10.0.0.2", 80)
                other = await listener.accept()
                [idle] = await c.net.open_tcp_listeners(81)
                calls = (stream.receive_some, idle.accept, _fill(stream))

                async def expect_closed(call: Callable[[], Awaitable[object]]) -> None:
                    with pytest.raises(trio.ClosedResourceError, match="tunnel"):
                        await call()

                for call in calls:
                    nursery.start_soon(expect_closed, call)
                await trio.sleep(0.3)
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(b"x")
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
            await _read_all(other)


async def _read_all(stream: NetStream) -> None:
    async for _ in stream:
        pass


def _fill(stream: NetStream) -> Callable[[], Awaitable[None]]:
    async def fill() -> None:
        while True:
            await stream.send_all(bytes(2**20))

    return fill


async def test_leaving_the_tunnel_delivers_what_was_sent_on_closed_streams() -> None:
    async with joined_tunnels() as (_, b), await one_listener(b) as listener:
        async with open_tunnel(guest_of(b)) as c, await c.net.open_tcp_stream("10.0.0.2", 80) as stream:
            await stream.send_all(bytes(40_000))
        assert len(b"".join([octets async for octets in await listener.accept()])) == 40_000


# --- weather ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weather",
    [
        Weather(delay=0.02),
        Weather(delay=0.02, loss=0.02),
        Weather(delay=0.02, jitter=0.02),
        Weather(delay=0.02, repeats=0.05),
        Weather(delay=0.02, jitter=0.05, loss=0.05, repeats=0.02),
    ],
    ids=["clear", "loss", "disorder", "repetition", "everything"],
)
@pytest.mark.parametrize("host", ["10.0.0.2", "fd00::2"])
async def test_both_directions_at_once_through_weather(
    host: str, weather: Weather, autojump_clock: trio.testing.MockClock
) -> None:
    async with joined_nets(weather) as (a, b):
        stream, other = await connected(a, b, host)
        sent = {stream: random.Random(1).randbytes(1_500_000), other: random.Random(2).randbytes(1_500_000)}
        got: dict[NetStream, str] = {}

        async def send(end: NetStream) -> None:
            await end.send_all(sent[end])
            await end.send_eof()

        async def receive(end: NetStream) -> None:
            digest = hashlib.sha256()
            async for octets in end:
                digest.update(octets)
            got[end] = digest.hexdigest()

        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                for end in (stream, other):
                    nursery.start_soon(send, end)
                    nursery.start_soon(receive, end)
        assert got[stream] == hashlib.sha256(sent[other]).hexdigest()
        assert got[other] == hashlib.sha256(sent[stream]).hexdigest()


async def test_a_name_with_many_addresses_is_asked_for_over_tcp(autojump_clock: trio.testing.MockClock) -> None:
    def truncated(asked: DNS) -> bytes:
        return bytes(DNS(id=asked.id, qr=1, tc=1, qd=asked.qd))

    async def serve(stream: NetStream) -> None:
        async with stream:
            asked = await stream.receive_some()
            query = DNS(asked[2:])
            records = [DNSRR(rrname=query.qd[0].qname, rdata=f"10.1.{n // 200}.{n % 200}") for n in range(1000)]
            reply = bytes(DNS(id=query.id, qr=1, qd=query.qd, an=records))
            await stream.send_all(len(reply).to_bytes(2) + reply)

    async with joined_nets() as (a, b), name_server(b, truncated), trio.open_nursery() as nursery:
        await nursery.start(b.net.serve_tcp, serve, 53)
        infos = await a.net.getaddrinfo("many.example", 80, socket.AF_INET, socket.SOCK_STREAM)
        assert len(infos) == 1000
        nursery.cancel_scope.cancel()


async def test_two_tunnels_with_the_same_addresses_live_side_by_side() -> None:
    async with joined_tunnels() as (a, b), joined_tunnels() as (c, d):
        [at_b], [at_d] = await b.net.open_tcp_listeners(80), await d.net.open_tcp_listeners(80)
        to_b, to_d = await a.net.open_tcp_stream("10.0.0.2", 80), await c.net.open_tcp_stream("10.0.0.2", 80)
        await to_b.send_all(b"to b")
        await to_d.send_all(b"to d")
        assert await (await at_b.accept()).receive_some() == b"to b"
        assert await (await at_d.accept()).receive_some() == b"to d"


async def test_knobs_and_information(autojump_clock: trio.testing.MockClock) -> None:
    async with joined_nets(Weather(delay=0.05)) as (a, b):
        stream, other = await connected(a, b)
        stream.set_no_delay(False)
        for _ in range(20):
            await stream.send_all(b"x")
        await trio.sleep(1)
        packets = [packet for packet in a.seen if packet.endswith(b"x")]
        assert len(packets) == 2, "Nagle: one at once, the rest when that was acknowledged"
        assert await other.receive_some() == b"x" * 20
        info = stream.tcp_info()
        assert info.srtt == pytest.approx(0.1, rel=0.5)
        assert info.mss > 1300
        assert repr(stream).startswith("<NetStream ('10.0.0.1'")
