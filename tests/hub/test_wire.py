"""The wire: peers and realms live, dialling, facts, cutting; A48 and A59 as far as the tunnel decides them."""

from __future__ import annotations

import contextlib
import dataclasses
import errno

import pytest
import trio
import trio.testing

import hub_server.wire
import wgpy
from hub_server.domain.messages import Beat, BeatType
from hub_server.domain.records import RealmRecord
from hub_server.nursery import unwrapped
from hub_server.supervise import PortLost
from hub_server.wire import EDGE_PORT, Wire, open_wire
from tests.hub.edges import HUB4, HUB6, Edge, Notes, open_hub


async def serve_name(edge: Edge, task_status: trio.TaskStatus[object]) -> None:
    """Answer with the cluster's id, and hold the connection until the other end closes it."""

    async def handle(stream: trio.abc.HalfCloseableStream) -> None:
        async with stream:
            await stream.send_all(edge.cluster_id.encode())
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.receive_some()

    await edge.tunnel.net.serve_tcp(handle, EDGE_PORT, task_status=task_status)


async def test_dial_reaches_the_edge_of_that_cluster_among_equal_addresses() -> None:
    """A59: five tenants, the same subnet; each id leads to its own edge."""
    edges = [Edge(f"cl_{n}", f"t{n}") for n in range(5)]
    async with open_hub(*edges) as (wire, notes, _), contextlib.AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        for edge in edges:
            await stack.enter_async_context(edge.connected(wire))
            await edge.beat()
            await nursery.start(serve_name, edge)
        for edge in edges:
            async with await wire.dial(edge.cluster_id) as stream:
                assert await stream.receive_some() == edge.cluster_id.encode()
        assert {who for kind, who, _ in notes.heard if kind == "beat"} == {edge.cluster_id for edge in edges}
        nursery.cancel_scope.cancel()


async def test_dialling_who_is_not_there_says_so_like_a_kernel() -> None:
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, _, _):
        with pytest.raises(OSError, match="cl_9") as raised:
            await wire.dial("cl_9")
        assert raised.value.errno == errno.EHOSTUNREACH
        with pytest.raises(OSError, match=r"route|refused") as raised:
            await wire.dial("cl_1")
        assert raised.value.errno == errno.EHOSTUNREACH, "nobody knows where it is"
        async with edge.connected(wire):
            await edge.beat()
            with pytest.raises(OSError, match=r"route|refused") as raised:
                await wire.dial("cl_1")
            assert raised.value.errno == errno.ECONNREFUSED
        with pytest.raises(OSError, match="cl_1") as raised:
            await wire.dial("cl_1", timeout=0.1)
        assert raised.value.errno == errno.ETIMEDOUT


async def test_the_sink_hears_of_the_first_packet_and_of_the_confirmed_key() -> None:
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, notes, _):
        before = wire.facts("cl_1")
        assert before is not None
        assert (before.last_authenticated, before.last_handshake, before.endpoint) == (None, None, None)
        async with edge.connected(wire):
            await edge.beat()
            assert [kind for kind, _, _ in notes.heard][:3] == ["initiation", "confirmed", "beat"]
            facts = wire.facts("cl_1")
            assert facts is not None
            assert facts.endpoint == f"127.0.0.1:{edge.tunnel.device.udp.port}"
            assert facts.last_authenticated is not None
            assert facts.last_handshake == pytest.approx(facts.last_authenticated, abs=2)
            assert min(facts.rx, facts.tx) > 100
        assert wire.facts("cl_9") is None


async def test_a_wrong_preshared_key_is_an_initiation_that_is_never_confirmed() -> None:
    """The ground of `HandshakeRejected`."""
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, notes, _), edge.connected(wire, psk=wgpy.PresharedKey(b"\x01" * 32)):
        await edge.send_beat()
        await notes.until("initiation")
        await trio.sleep(0.1)
        assert notes.of("confirmed") == notes.of("beat") == []


async def test_a_dropped_peer_is_cut_and_gets_no_answer() -> None:
    """A36, the part of the wire: streams end, the key is a stranger's, the address is free."""
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, notes, _), edge.connected(wire), trio.open_nursery() as nursery:
        await edge.beat()
        await nursery.start(serve_name, edge)
        stream = await wire.dial("cl_1")
        assert await stream.receive_some() == b"cl_1"
        wire.drop_peer("cl_1")
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        count = len(notes.heard)
        edge.tunnel.device.start_handshake(edge.hub_key)
        await edge.send_beat()
        await trio.sleep(0.1)
        assert len(notes.heard) == count
        assert wire.cluster_at("t1", str(edge.address)) is None
        wire.drop_peer("cl_1")
        nursery.cancel_scope.cancel()


async def test_cut_ends_streams_and_leaves_the_tunnel() -> None:
    edge, other = Edge("cl_1"), Edge("cl_2", number=3)
    async with (
        open_hub(edge, other) as (wire, _, _),
        edge.connected(wire),
        other.connected(wire),
        trio.open_nursery() as nursery,
    ):
        for one in (edge, other):
            await one.beat()
            await nursery.start(serve_name, one)
        cut, kept = await wire.dial("cl_1"), await wire.dial("cl_2")
        wire.cut("cl_1", "for the test")
        with pytest.raises(trio.ClosedResourceError):
            await cut.receive_some()
        assert await kept.receive_some() == b"cl_2"
        assert (await edge.beat()).seq == edge.seq
        async with await wire.dial("cl_1") as again:
            assert await again.receive_some() == b"cl_1"
        nursery.cancel_scope.cancel()


async def test_a_restart_cuts_what_was_opened_before_the_last_handshake_and_nothing_later() -> None:
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, notes, _), trio.open_nursery() as nursery:
        async with edge.connected(wire):
            await edge.beat()
            async with trio.open_nursery() as serving:
                await serving.start(serve_name, edge)
                before = await wire.dial("cl_1")
                serving.cancel_scope.cancel()
        async with edge.connected(wire):
            await edge.beat()
            await notes.until("confirmed", 2)
            await nursery.start(serve_name, edge)
            after = await wire.dial("cl_1")
            wire.cut("cl_1", "the edge was restarted", is_restart=True)
            with pytest.raises(trio.ClosedResourceError):
                await before.receive_some()
            assert await after.receive_some() == b"cl_1"
            assert wire.why_lost(before) == "the edge was restarted"
            assert wire.why_lost(after) == "the connection to the edge was lost"
            nursery.cancel_scope.cancel()


def test_an_edge_that_dies_without_a_word_is_found_out_within_fifteen_seconds() -> None:
    assert hub_server.wire.ALIVE.dead_after < 15


async def test_a_stream_of_an_edge_that_died_without_a_word_ends_as_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle, and with something on its way."""
    monkeypatch.setattr(hub_server.wire, "ALIVE", wgpy.Keepalive(idle=1, interval=1, probes=1))
    edge = Edge("cl_1")
    async with open_hub(edge) as (wire, _, _), edge.connected(wire), trio.open_nursery() as nursery:
        await edge.beat()
        await nursery.start(serve_name, edge)
        idle, busy = await wire.dial("cl_1"), await wire.dial("cl_1")
        for stream in (idle, busy):
            assert await stream.receive_some() == b"cl_1"
        edge.tunnel.device.remove_peer(edge.hub_key)  # from here on it hears and says nothing
        await busy.send_all(b"asked")
        with trio.fail_after(120):
            for stream in (idle, busy):
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
        nursery.cancel_scope.cancel()


async def test_realms_and_peers_come_and_go_live() -> None:
    edge = Edge("cl_1", "late")
    async with open_hub() as (wire, notes, _):
        with pytest.raises(KeyError):
            wire.put_peer(edge.record)
        wire.put_realm(RealmRecord("late", HUB4, HUB6))
        wire.put_realm(RealmRecord("late", HUB4, HUB6))
        wire.put_peer(edge.record)
        async with edge.connected(wire):
            await edge.beat()
            wire.put_peer(dataclasses.replace(edge.record, keepalive=25))
            await edge.beat()
            assert len(notes.of("confirmed")) == 1, "a changed keepalive leaves the session"
            wire.put_realm(RealmRecord("late", HUB4, HUB6, mtu=1300))
            edge.tunnel.device.start_handshake(edge.hub_key)
            wire.drop_realm("late")
            assert wire.facts("cl_1") is None


async def test_a_new_key_for_a_cluster_replaces_the_old_one() -> None:
    old, new = Edge("cl_1"), Edge("cl_1")
    async with open_hub(old) as (wire, notes, _), old.connected(wire), new.connected(wire):
        await old.beat()
        wire.put_peer(new.record)
        await new.beat()
        assert notes.of("confirmed")[0] != notes.of("confirmed")[1]
        await old.send_beat()
        await trio.sleep(0.1)
        assert len(notes.of("beat")) == 2


async def test_a_neighbour_s_or_a_foreign_source_address_is_refused() -> None:
    """A59: what an edge says under another address is dropped, within the tenant and across."""
    edge, neighbour, foreign = Edge("cl_1"), Edge("cl_2", number=3), Edge("cl_3", "t2", number=4)
    async with open_hub(edge, neighbour, foreign) as (wire, notes, _), edge.connected(wire):
        await edge.beat()
        for borrowed in (neighbour.address, foreign.address, HUB4):
            spoofing = wgpy.InterfaceConfig(
                edge.key,
                addresses=[f"{borrowed}/32"],
                peers=[
                    wgpy.PeerConfig(
                        edge.hub_key,
                        allowed_ips=["100.64.0.0/24"],
                        endpoint=f"127.0.0.1:{wire.port}",
                        preshared_key=edge.psk,
                    )
                ],
            )
            async with wgpy.open_tunnel(spoofing) as tunnel, await tunnel.net.open_udp() as udp:
                await udp.send_to(Beat(BeatType.BEAT, 1, 1).encode(), (str(HUB4), 7000))
                await trio.sleep(0.05)
        assert {who for _, who, _ in notes.heard} == {"cl_1"}


async def keep_connected(edge: Edge, wire: Wire, task_status: trio.TaskStatus[None]) -> None:
    async with edge.connected(wire):
        await edge.beat()
        task_status.started()
        await trio.sleep_forever()


async def test_the_hub_comes_back_and_calls_the_places_it_remembers() -> None:
    """A48: same key, same port, no word from the edge: the hub starts the handshake itself."""
    key, edges = bytes(wgpy.PrivateKey.generate()), [Edge(f"cl_{n}", number=n + 2) for n in range(3)]
    records = []
    async with trio.open_nursery() as nursery:
        async with open_hub(*edges, key=key) as (wire, _, _):
            port = wire.port
            for edge in edges:
                await nursery.start(keep_connected, edge, wire)
                host, _, number = str(wire.endpoint(edge.cluster_id)).rpartition(":")
                records.append(dataclasses.replace(edge.record, endpoint=(host, int(number))))
        notes = Notes()
        async with open_wire(key, port, [RealmRecord("t1", HUB4, HUB6)], records, notes):
            await notes.until("confirmed", len(edges))
            assert notes.of("initiation") == []
        nursery.cancel_scope.cancel()


async def test_a_new_key_takes_the_place_of_the_one_in_use_with_its_first_handshake() -> None:
    """A new invite does not throw the running edge out: what it was made for may never come."""
    old, new = Edge("cl_1"), Edge("cl_1")
    async with open_hub(old) as (wire, notes, _), old.connected(wire):
        await old.beat()
        wire.put_peer(dataclasses.replace(new.record, pending_until=float("inf")))
        await old.beat()
        assert notes.of("key") == []
        async with new.connected(wire):
            await new.beat()
            assert notes.of("key") == [bytes(new.key.public_key)]
            heard = len(notes.of("beat"))
            await old.send_beat()
            await new.beat()
            assert len(notes.of("beat")) == heard + 1, "the old key is not served any more"


async def test_a_new_key_that_waited_too_long_is_not_taken() -> None:
    old, new = Edge("cl_1"), Edge("cl_1")
    async with open_hub(old) as (wire, notes, _), old.connected(wire):
        await old.beat()
        wire.put_peer(dataclasses.replace(new.record, pending_until=1.0))
        async with new.connected(wire):
            await new.send_beat()
            await old.beat()
        assert notes.of("key") == []
        assert len(notes.of("beat")) == 2


async def test_a_device_that_dies_is_the_port_lost() -> None:
    """All tunnels end with it; what the hub itself raised meanwhile passes as it is."""

    async def lose() -> None:
        async with open_wire(bytes(wgpy.PrivateKey.generate()), 0, [], [], Notes()) as wire:
            wire._tunnel.device.packets.close()
            await trio.sleep_forever()

    with pytest.raises(PortLost, match=r"UDP port \d+ of WireGuard ended"), unwrapped():
        await lose()
    with pytest.raises(KeyError), unwrapped():
        async with open_wire(bytes(wgpy.PrivateKey.generate()), 0, [], [], Notes()):
            raise KeyError("above")
