"""Two devices on loopback, with packets in memory and time by trio's mock clock; B20, B31, R2, R3, R7, R15, T22."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from tests.property.strategies import UDP, PacketShape
from wgpy.config import Endpoint, InterfaceConfig, PeerConfig
from wgpy.errors import ConfigError, DeviceError, DropReason, TunnelClosed
from wgpy.keys import PrivateKey, PublicKey
from wgpy.protocol.events import Event, HandshakeCompleted
from wgpy.runtime import world
from wgpy.runtime.device import Device
from wgpy.runtime.tunnel import open_device
from wgpy.runtime.udp import UdpSockets
from wgpy.tun.memory import MemoryDevice
from wgpy.uapi import DeviceUpdate, PeerUpdate

A_KEY, B_KEY = PrivateKey(b"\x11" * 32), PrivateKey(b"\x22" * 32)
THERE = PacketShape(protocol=UDP, payload=b"there")
BACK = THERE.but(source=THERE.target, target=THERE.source, payload=b"back")


@dataclass
class Ends:
    a: Device
    b: Device
    a_packets: MemoryDevice
    b_packets: MemoryDevice


@pytest.fixture
def autojump_clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Time jumps only when loopback has had its say."""
    autojump_clock.autojump_threshold = 0.02
    return autojump_clock


@asynccontextmanager
async def joined(*, keepalive: int = 0) -> AsyncIterator[Ends]:
    a_packets, b_packets = MemoryDevice("a"), MemoryDevice("b")
    to_a = PeerConfig(A_KEY.public_key, allowed_ips=["10.0.0.1/32"])
    async with open_device(InterfaceConfig(B_KEY, peers=[to_a]), b_packets) as b:
        to_b = PeerConfig(
            B_KEY.public_key,
            allowed_ips=["10.0.0.2/32"],
            endpoint=Endpoint("127.0.0.1", b.udp.port),
            persistent_keepalive=keepalive,
        )
        async with open_device(InterfaceConfig(A_KEY, peers=[to_b]), a_packets) as a:
            yield Ends(a, b, a_packets, b_packets)


async def exchange(ends: Ends) -> None:
    with trio.fail_after(3):
        await ends.a_packets.send([THERE.build()])
        assert await ends.b_packets.receive() == [THERE.build()]
        await ends.b_packets.send([BACK.build()])
        assert await ends.a_packets.receive() == [BACK.build()]


async def next_event(events: trio.MemoryReceiveChannel[Event]) -> Event:
    with trio.fail_after(3):
        return await events.receive()


async def test_packets_go_both_ways_and_the_owners_hear_of_it(autojump_clock: trio.testing.MockClock) -> None:
    async with joined() as ends:
        events = ends.a.events()
        await exchange(ends)
        completed = await next_event(events)
        assert completed == HandshakeCompleted(B_KEY.public_key, Endpoint("127.0.0.1", ends.b.udp.port), True)
        (peer,) = ends.a.state().peers
        # B28: 33 octets are padded to 48, 32 not at all.
        assert peer.tx_bytes == 148 + 32 + 48
        assert peer.rx_bytes == 92 + 32 + 32
        assert ends.b.statistics().peers[A_KEY.public_key].endpoint == Endpoint("127.0.0.1", ends.a.udp.port)


async def test_time_is_that_of_the_clock(autojump_clock: trio.testing.MockClock) -> None:
    """A session is renewed after 120 s of use; a tunnel that is idle for ten minutes says nothing and works at once."""
    async with joined() as ends:
        await exchange(ends)
        first = ends.a.state().peers[0].tx_bytes
        await trio.sleep(121)
        await exchange(ends)
        await trio.sleep(30)
        sent = ends.a.state().peers[0].tx_bytes
        assert sent >= first + 148 + 48
        await trio.sleep(600)
        assert ends.a.state().peers[0].tx_bytes == sent, "B20"
        await exchange(ends)


async def test_a_persistent_keepalive_is_a_deadline_and_not_a_poll(autojump_clock: trio.testing.MockClock) -> None:
    """R2."""
    async with joined(keepalive=25) as ends:
        await exchange(ends)
        before = ends.b.state().peers[0].rx_bytes
        await trio.sleep(100)
        assert ends.b.state().peers[0].rx_bytes - before == 4 * 32
        deadline = ends.a.engine.next_deadline()
        assert deadline is not None
        assert 0 < deadline - trio.current_time() <= 25


async def test_b31_another_port_keeps_the_sessions(autojump_clock: trio.testing.MockClock) -> None:
    async with joined() as ends:
        await exchange(ends)
        handshake = ends.a.state().peers[0].last_handshake_time
        old = ends.a.udp.port
        ends.a.apply(DeviceUpdate(listen_port=0))
        assert ends.a.udp.port != old
        assert ends.a.state().listen_port == ends.a.udp.port
        await exchange(ends)
        assert ends.a.state().peers[0].last_handshake_time == handshake
        assert ends.b.state().peers[0].endpoint == Endpoint("127.0.0.1", ends.a.udp.port)


async def test_another_port_forgets_the_sources(autojump_clock: trio.testing.MockClock) -> None:
    """Protocol notes 1.10."""
    async with joined() as ends:
        await exchange(ends)

        def source() -> object:
            ends.b.engine.send_packet(BACK.build(), trio.current_time())
            return ends.b.engine.datagrams_to_send()[-1].local

        assert source() is not None
        ends.b.rebind(0)
        assert source() is None


async def test_a_taken_port_changes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """Protocol notes 3.4: port and mark are applied first, so nothing else has changed when they fail."""
    async with joined() as ends:
        other = UdpSockets()
        try:
            update = DeviceUpdate(listen_port=other.port, replace_peers=True)
            before = ends.a.state()
            with pytest.raises(DeviceError, match="is taken"):
                ends.a.apply(update)
            assert ends.a.state() == before
        finally:
            other.close()
        with pytest.raises(ConfigError, match="is a name"):
            ends.a.apply(
                DeviceUpdate(listen_port=0, peers=[PeerUpdate(B_KEY.public_key, endpoint=Endpoint("name.example", 1))])
            )
        assert ends.a.state() == before
        await exchange(ends)


async def test_peers_come_and_go_while_it_runs(autojump_clock: trio.testing.MockClock) -> None:
    """R17."""
    async with joined() as ends:
        await exchange(ends)
        stranger = PublicKey(b"\x33" * 32)
        ends.a.add_peer(PeerConfig(stranger, allowed_ips=["10.0.0.3/32"]))
        ends.a.update_peer(PeerConfig(stranger, allowed_ips=["10.0.0.2/32"]))
        await ends.a_packets.send([THERE.build()])
        await trio.sleep(1)
        assert ends.a.statistics().peers[stranger].drops == {DropReason.NO_ENDPOINT: 1}
        assert (await ends.a_packets.receive())[0][20] == 3, "B62: unreachable"
        ends.a.remove_peer(stranger)
        ends.a.update_peer(PeerConfig(B_KEY.public_key, allowed_ips=["10.0.0.2/32"]))
        await exchange(ends)


async def test_down_is_silence_and_up_is_as_new(autojump_clock: trio.testing.MockClock) -> None:
    async with joined() as ends:
        await exchange(ends)
        ends.a.set_up(False)
        before = ends.a.state().peers[0].tx_bytes
        await ends.a_packets.send([THERE.build()])
        await trio.sleep(30)
        assert ends.a.state().peers[0].tx_bytes == before
        assert ends.a.statistics().drops[DropReason.INTERFACE_DOWN] >= 1
        ends.a.set_up(True)
        await exchange(ends)


async def test_b39_the_mtu_follows_the_interface(autojump_clock: trio.testing.MockClock) -> None:
    async with joined() as ends:
        ends.a.set_mtu(1300)
        assert (ends.a.engine.mtu, ends.a_packets.mtu) == (1300, 1300)
        await exchange(ends)


async def test_drops_of_the_packet_device_are_in_the_statistics(autojump_clock: trio.testing.MockClock) -> None:
    async with joined() as ends:
        await ends.a_packets.send([b"nonsense", THERE.build()])
        await ends.b_packets.receive()
        assert ends.a.statistics().drops[DropReason.INNER_MALFORMED] == 1


async def test_who_reads_events_too_slowly_loses_the_newest(autojump_clock: trio.testing.MockClock) -> None:
    async with joined() as ends:
        slow, gone = ends.a.events(), ends.a.events()
        gone.close()
        for number in range(1100):
            ends.a.engine._shared.events.append(HandshakeCompleted(B_KEY.public_key, Endpoint("192.0.2.1", 1), True))
            if number % 100 == 0:
                ends.a._flush()
        ends.a._flush()
        assert slow.statistics().current_buffer_used == 1024


async def test_r7_the_end_of_the_scope_ends_everything(autojump_clock: trio.testing.MockClock) -> None:
    async with joined() as ends:
        await exchange(ends)
        events, port = ends.a.events(), ends.a.udp.port
        engine = ends.a.engine
        await exchange(ends)
    with pytest.raises(TunnelClosed):
        await ends.a_packets.send([THERE.build()])
    with trio.fail_after(1):
        async for _ in events:
            pass  # it ends
        async for _ in ends.a.events():
            pass  # and so does what is asked for afterwards
    UdpSockets(port).close()
    assert engine.private_key is None, "keys are gone"
    assert engine.statistics().sessions == 0
    assert engine.next_deadline() is None


async def test_a_packet_device_that_ends_ends_the_tunnel(autojump_clock: trio.testing.MockClock) -> None:
    packets = MemoryDevice("gone")

    async def main() -> None:
        async with open_device(InterfaceConfig(A_KEY), packets):
            packets.close()
            await trio.sleep_forever()

    with pytest.raises(TunnelClosed, match="gone was closed") as raised:
        await main()
    assert raised.value.__cause__ is None


async def test_what_cannot_be_opened_leaves_nothing_behind(autojump_clock: trio.testing.MockClock) -> None:
    other = UdpSockets()
    packets = MemoryDevice("m")
    with pytest.raises(DeviceError, match="is taken"):
        async with open_device(InterfaceConfig(A_KEY, listen_port=other.port), packets):
            raise AssertionError("never reached")
    other.close()
    with pytest.raises(TunnelClosed):
        await packets.send([b""])


async def test_the_exception_of_the_caller_comes_out_bare(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_device(InterfaceConfig(A_KEY), MemoryDevice("m")):
            _ = 1 / 0


async def test_t22_two_machines_with_one_key_are_told_of_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "wgpy.device")
    async with joined() as ends:
        for _ in range(11):
            ends.a._watch_moves(B_KEY.public_key)
            await trio.sleep(1)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "two machines with one private key" in caplog.text


async def test_while_the_interface_is_down_somebody_looks_at_it(autojump_clock: trio.testing.MockClock) -> None:
    """What arrives may be quicker than the news that the interface came up."""
    async with joined() as ends:
        ends.b.set_up(False)
        looked = []

        async def look() -> None:
            looked.append(trio.current_time())
            ends.b.set_up(True)

        ends.b.look_at_link = look
        await exchange(ends)
        assert len(looked) == 1
        assert math.isfinite(looked[0])


async def test_a_wall_clock_that_jumps_is_told_to_people(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """S1: an initiation is refused when its time is before that of the last one."""
    async with joined():
        await trio.sleep(30)
        assert not caplog.records
        real = world.wall_clock
        monkeypatch.setattr(world, "wall_clock", lambda: real() - 3600)
        await trio.sleep(90)
    told = [one for one in caplog.records if "wall clock" in one.message]
    assert len(told) == 2, "each device once"
    assert {one.levelno for one in told} == {logging.WARNING}
    assert all("jumped by -3600 s" in one.message for one in told)


@pytest.mark.parametrize("verb", ["receive_batches", "_receive_initiation"])
async def test_a_defect_met_by_a_datagram_costs_that_datagram_and_one_line(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    verb: str,
) -> None:
    async with joined() as ends:
        await exchange(ends)

        def fail(*_: object) -> None:
            raise AssertionError("a defect")

        with monkeypatch.context() as broken:
            broken.setattr(ends.b.engine, verb, fail)
            for _ in range(5):
                ends.a.start_handshake(B_KEY.public_key)
                await trio.sleep(6)
        reports = [record for record in caplog.records if "please report this" in record.message]
        assert 1 <= len(reports) <= 4, "in thirty seconds, however many there were"
        assert reports[0].exc_info is not None
        await exchange(ends)
