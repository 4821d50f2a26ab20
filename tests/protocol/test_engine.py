"""The engine's own verbs: reconfiguration, limits, and what it must not do; the rest of it is in tests/behaviours.

B18, B32, B62, B65, S1, S12, S19, T14, T15, T21, R14, R15, R18, R20.
"""

from __future__ import annotations

import random

import pytest

from tests.property.strategies import UDP, PacketShape
from wgpy.config import Endpoint, InterfaceConfig, PeerConfig, Prefix
from wgpy.constants import ICMP_ERRORS_PER_SECOND, MAX_PEERS
from wgpy.errors import ConfigError, DropReason, LocalProtocolError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.noise import tai64n
from wgpy.protocol.datagrams import DatagramBatch
from wgpy.protocol.engine import Engine
from wgpy.protocol.events import EndpointChanged, UnknownPeer
from wgpy.testing.pair import A4, B4, Pair, packet
from wgpy.uapi import DeviceUpdate, PeerUpdate
from wgpy.wire import ip

KEY, OTHER = PrivateKey(b"\x11" * 32), PrivateKey(b"\x22" * 32)
THIRD = PublicKey(b"\x33" * 32)
BACK = packet("10.0.0.2", "10.0.0.1")


def engine_of(*peers: PeerConfig, **more: object) -> Engine:
    return Engine(
        InterfaceConfig(KEY, peers=peers),
        random=random.Random(1).randbytes,
        wall_clock=lambda: 1e9,
        **more,  # type: ignore[arg-type]
    )


def update(*peers: PeerUpdate, **more: object) -> DeviceUpdate:
    return DeviceUpdate(peers=peers, **more)  # type: ignore[arg-type]


# --- reconfiguration -------------------------------------------------------------------------------------------------


def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    engine = engine_of(
        PeerConfig(THIRD, allowed_ips=["10.0.0.3/32"], endpoint=Endpoint("192.0.2.3", 3), persistent_keepalive=9)
    )
    engine.apply(update(PeerUpdate(THIRD, allowed_ips=[(True, Prefix.parse("10.3.0.0/16"))]), fwmark=5), 0.0)
    (peer,) = engine.state().peers
    assert [str(prefix) for prefix in peer.allowed_ips] == ["10.0.0.3/32", "10.3.0.0/16"]
    assert (peer.endpoint, peer.persistent_keepalive, engine.fwmark) == (Endpoint("192.0.2.3", 3), 9, 5)
    psk = PresharedKey(b"\x05" * 32)
    changes = [(False, Prefix.parse("10.3.0.0/16")), (True, Prefix.parse("::/0"))]
    engine.apply(update(PeerUpdate(THIRD, preshared_key=psk, allowed_ips=changes), listen_port=7), 1.0)
    (peer,) = engine.state().peers
    assert [str(prefix) for prefix in peer.allowed_ips] == ["10.0.0.3/32", "::/0"]
    assert (peer.preshared_key, engine.listen_port) == (psk, 7)
    engine.apply(update(PeerUpdate(THIRD, replace_allowed_ips=True, persistent_keepalive=0)), 2.0)
    (peer,) = engine.state().peers
    assert (peer.allowed_ips, peer.persistent_keepalive) == ((), 0)


def test_peers_are_applied_in_order_and_a_prefix_belongs_to_the_last() -> None:
    prefix = (True, Prefix.parse("10.0.0.0/8"))
    engine = engine_of()
    engine.apply(
        update(PeerUpdate(THIRD, allowed_ips=[prefix]), PeerUpdate(OTHER.public_key, allowed_ips=[prefix])), 0.0
    )
    assert [len(peer.allowed_ips) for peer in engine.state().peers] == [0, 1]


def test_update_only_remove_and_replace_peers() -> None:
    engine = engine_of()
    engine.apply(update(PeerUpdate(THIRD, update_only=True), PeerUpdate(OTHER.public_key, remove=True)), 0.0)
    assert engine.state().peers == []
    engine.apply(update(PeerUpdate(THIRD), PeerUpdate(OTHER.public_key)), 0.0)
    engine.apply(update(PeerUpdate(THIRD, remove=True, allowed_ips=[(True, Prefix.parse("::/0"))])), 0.0)
    assert [peer.public_key for peer in engine.state().peers] == [OTHER.public_key]
    engine.apply(update(PeerUpdate(THIRD), replace_peers=True), 0.0)
    assert [peer.public_key for peer in engine.state().peers] == [THIRD]


def test_b65_our_own_key_is_ignored_alone_and_among_others() -> None:
    engine = engine_of()
    engine.apply(update(PeerUpdate(KEY.public_key), PeerUpdate(THIRD)), 0.0)
    assert [peer.public_key for peer in engine.state().peers] == [THIRD]
    engine.apply(update(PeerUpdate(OTHER.public_key), private_key=OTHER), 0.0)
    assert [peer.public_key for peer in engine.state().peers] == [THIRD], "the key as it is after this request"


def test_b63_without_a_private_key_nothing_is_sent_or_answered() -> None:
    pair = Pair()
    pair.shake_hands()
    engine = pair.a.engine
    engine.apply(DeviceUpdate(clear_private_key=True), pair.network.now)
    assert engine.state().private_key is None
    pair.a.send(packet())
    pair.b.send(BACK)
    pair.network.run(30)
    assert pair.a.received == []
    assert engine.statistics().drops[DropReason.INTERFACE_DOWN] >= 2
    assert not pair.network.sent_by(pair.a, since=pair.network.now - 30)


def test_names_and_too_many_peers_are_refused_before_anything_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(PeerConfig(THIRD))
    with pytest.raises(ConfigError, match="is a name"):
        engine.apply(update(PeerUpdate(THIRD, endpoint=Endpoint("name.example", 1)), fwmark=9), 0.0)
    assert engine.fwmark == 0
    assert MAX_PEERS == 2**16
    monkeypatch.setattr("wgpy.protocol.engine.MAX_PEERS", 3)
    many = [PeerUpdate(PublicKey(bytes([n]) * 32)) for n in range(3)]
    with pytest.raises(ConfigError, match="4 peers are more than the 3"):
        engine.apply(update(*many, fwmark=9), 0.0)
    assert (len(engine.state().peers), engine.fwmark) == (1, 0)
    engine.apply(update(*many, replace_peers=True), 0.0)
    engine.apply(update(*many, PeerUpdate(THIRD, update_only=True), PeerUpdate(THIRD, remove=True)), 0.0)
    assert len(engine.state().peers) == 3


def test_verbs_used_against_their_contract() -> None:
    engine = engine_of(PeerConfig(THIRD))
    for wrong in (
        lambda: engine.add_peer(PeerConfig(THIRD), 0.0),
        lambda: engine.update_peer(PeerConfig(OTHER.public_key), 0.0),
        lambda: engine.remove_peer(OTHER.public_key, 0.0),
    ):
        with pytest.raises(LocalProtocolError, match="peer"):
            wrong()
    engine.handle_timer(10.0)
    with pytest.raises(LocalProtocolError, match="backwards"):
        engine.handle_timer(9.0)


def test_a_pinned_endpoint_does_not_move() -> None:
    """Protocol notes 1.10: `pin_endpoint`."""
    pair = Pair(b_knows_a=True)
    key = pair.a_key.public_key
    pair.b.engine.update_peer(
        PeerConfig(key, allowed_ips=["10.0.0.1/32"], endpoint=A4, pin_endpoint=True), pair.network.now
    )
    pair.shake_hands()
    pair.b.events.clear()
    pair.a.move(Endpoint("198.51.100.7", 7))
    pair.a.send(packet())
    pair.network.run(1)
    assert pair.b.received == [packet()]
    assert pair.b.engine.statistics().peers[key].endpoint == A4
    assert not any(isinstance(event, EndpointChanged) for event in pair.b.events)


# --- sending ---------------------------------------------------------------------------------------------------------


def test_b28_what_the_system_refused_is_taken_off_the_counters() -> None:
    pair = Pair()
    pair.shake_hands()
    engine, key = pair.a.engine, pair.b_key.public_key
    before = engine.statistics().peers[key].tx_bytes
    engine.send_packet(packet(), pair.network.now)
    (batch,) = engine.datagrams_to_send()
    assert engine.statistics().peers[key].tx_bytes == before + batch.length
    engine.send_failed(batch)
    assert engine.statistics().peers[key].tx_bytes == before
    assert engine.statistics().peers[key].drops == {DropReason.SEND_FAILED: 1}
    engine.send_failed(DatagramBatch(b"cookie reply", 12, B4), DropReason.NO_SOCKET_FOR_FAMILY)
    assert engine.statistics().drops[DropReason.NO_SOCKET_FOR_FAMILY] == 1
    engine.count_drop(DropReason.TUN_WRITE_FAILED, 3)
    assert engine.statistics().drops[DropReason.TUN_WRITE_FAILED] == 3


def test_b30_a_source_that_failed_is_forgotten_until_the_next_authentic_datagram() -> None:
    pair = Pair()
    pair.shake_hands()
    assert pair.exchange()
    engine = pair.b.engine

    def source() -> object:
        engine.send_packet(BACK, pair.network.now)
        return engine.datagrams_to_send()[-1].local

    assert source() == B4
    engine.send_packet(BACK, pair.network.now)
    engine.source_failed(engine.datagrams_to_send()[-1])
    assert source() is None
    pair.a.send(packet())
    pair.network.run(1)
    assert source() == B4
    engine.forget_sources(pair.network.now)
    assert source() is None
    engine.source_failed(DatagramBatch(b"", 0, A4))


@pytest.mark.parametrize("target", ["10.7.7.7", "fd07::7"])
def test_b62_unreachable_comes_without_the_padding_of_a_datagram(target: str) -> None:
    pair = Pair()
    source = "10.0.0.1" if "." in target else "fd00::1"
    pair.a.send(packet(source, target, payload=b"odd"))
    pair.network.run(0.1)
    (answer,) = pair.a.received
    assert ip.true_length_untrusted(answer) == len(answer)


def test_a_pinned_peer_without_an_endpoint_is_pinned_where_it_first_shows_itself() -> None:
    pair = Pair()
    engine = pair.b.engine
    pinned = PeerConfig(pair.a_key.public_key, allowed_ips=["10.0.0.1/32", "fd00::1/128"], pin_endpoint=True)
    engine.update_peer(pinned, pair.network.now)
    pair.shake_hands()
    first = engine.state().peers[0].endpoint
    assert first == A4
    pair.a.move(Endpoint("192.0.2.9", 51820))
    pair.a.send(packet())
    pair.network.run(0.5)
    assert pair.b.received == [packet()]
    assert engine.state().peers[0].endpoint == first


def test_b62_unreachable_at_most_ten_times_a_second() -> None:
    engine = engine_of(PeerConfig(THIRD, allowed_ips=["10.0.0.3/32"]))
    shape = PacketShape(protocol=UDP, payload=b"?")
    for number in range(50):
        engine.send_packet(shape.but(target=bytes([10, 0, 0, 3 + number % 2])).build(), 0.0)
    answers = engine.packets_to_deliver()
    assert len(answers) == ICMP_ERRORS_PER_SECOND
    engine.send_packet(shape.build(), 0.05)
    assert engine.packets_to_deliver() == []
    engine.send_packet(shape.build(), 0.1001)
    assert len(engine.packets_to_deliver()) == 1
    assert engine.statistics().drops == {DropReason.NO_ENDPOINT: 25, DropReason.NO_PEER_FOR_DESTINATION: 27}


def test_neighbours_for_several_peers_and_none_in_one_call() -> None:
    """The batch is split, not refused."""
    pair = Pair()
    pair.shake_hands()
    engine = pair.a.engine
    from wgpy.dataplane.slab import Slab

    targets = ["10.0.0.2", "10.9.9.9", "10.9.9.8", "10.0.0.2", "10.0.0.2"]
    slabs = [Slab.of_packet(packet(target=target, payload=bytes([n])), 1420) for n, target in enumerate(targets)]
    engine.send_slabs(slabs, pair.network.now)
    pair.network.flush(pair.a)
    pair.network.run(1)
    assert [one[28] for one in pair.b.received] == [0, 3, 4]
    assert engine.statistics().drops[DropReason.NO_PEER_FOR_DESTINATION] == 2
    assert len(pair.a.received) == 2, "B62"


@pytest.mark.parametrize("copies", [True, False])
def test_marks_cross_the_tunnel_unless_switched_off(copies: bool) -> None:
    """Protocol notes 1.2, ECN/DSCP: AF41 for handshakes, no DSCP and the inner ECN bits for data."""
    pair = Pair(copies_ecn=copies)
    engine = pair.a.engine
    inner = PacketShape(protocol=UDP, tos=0xBA, payload=b"x").build()
    engine.send_packet(inner, pair.network.now)
    (initiation,) = engine.datagrams_to_send()
    assert initiation.tos == (0x88 if copies else 0)
    pair.b.engine.receive_datagrams(initiation.arriving_from(A4), pair.network.now)
    (response,) = pair.b.engine.datagrams_to_send()
    assert response.tos == (0x88 if copies else 0)
    engine.receive_datagrams(response.arriving_from(B4), pair.network.now)
    (data,) = engine.datagrams_to_send()
    assert data.tos == (0b10 if copies else 0)
    congested = data.arriving_from(A4)
    congested.tos = 0b11
    pair.b.engine.receive_datagrams(congested, pair.network.now)
    (delivered,) = [bytes(row) for slab in pair.b.engine.packets_to_deliver() for row in slab]
    assert delivered[1] == (0xBB if copies else 0xBA)


# --- handshakes ------------------------------------------------------------------------------------------------------


def test_t15_an_answer_counts_as_an_attempt_of_our_own() -> None:
    pair = Pair(b_knows_a=True)
    pair.network.drop = lambda datagram: datagram.kind in (2, 4)
    pair.a.send(packet())
    pair.network.run(0.1)
    pair.b.send(BACK)
    assert len(pair.network.sent_by(pair.b, 2)) == 1
    assert not pair.network.sent_by(pair.b, 1), "not within 5 s of an answer"
    pair.network.run(20)
    first, *more = pair.network.sent_by(pair.b)
    assert more
    assert all(later.time - first.time >= 5 for later in more if later.kind == 1)


def test_a_retry_that_meets_the_gate_is_sent_when_it_opens() -> None:
    """Protocol notes 1.8: the kernel would leave the timer off."""
    pair = Pair(b_knows_a=True)
    pair.network.drop = lambda datagram: datagram.source == B4
    pair.b.send(BACK)
    pair.network.run(4)  # a second before its retry, b answers somebody, and may not initiate for another five
    pair.a.send(packet())
    pair.network.run(12)
    times = [one.time for one in pair.network.sent_by(pair.b) if one.kind in (1, 2)]
    assert len(times) >= 3
    kinds = [one.kind for one in pair.network.sent_by(pair.b)]
    assert kinds[:2] == [1, 2]
    assert 1 in kinds[2:], "it did not stay silent for ever"


def test_t21_a_persistent_keepalive_without_a_session_starts_a_handshake() -> None:
    pair = Pair(keepalive=25)
    pair.network.run(0.1)
    assert [one.kind for one in pair.network.sent_by(pair.a)][:1] == [1]


def test_s1_a_stored_timestamp_keeps_handshakes_going_after_the_clock_went_back() -> None:
    pair = Pair()
    pair.shake_hands()
    stored = pair.a.engine.greatest_timestamp
    assert len(stored) == 12
    to_b = PeerConfig(pair.b_key.public_key, allowed_ips=["10.0.0.2/32"], endpoint=B4)
    again = Engine(
        InterfaceConfig(pair.a_key, peers=[to_b]),
        random=pair.network.random.randbytes,
        wall_clock=lambda: 1000.0,
        last_timestamp=stored,
    )
    assert tai64n.timestamp(1000.0) < stored
    again.send_packet(packet(), pair.network.now)
    (initiation,) = again.datagrams_to_send()
    pair.network.run(1)
    pair.b.engine.receive_datagrams(initiation.arriving_from(A4), pair.network.now)
    assert [batch.segment_size for batch in pair.b.engine.datagrams_to_send()] == [92]


def test_s1_a_peer_that_comes_back_is_sent_a_newer_timestamp() -> None:
    """As `wg setconf` removes and adds them all, perhaps with a clock that was set back."""
    pair = Pair()
    pair.shake_hands()
    pair.network.wall_clock = lambda: 1_750_000_000.0 - 3600  # type: ignore[method-assign]
    key = pair.b_key.public_key
    for _ in range(3):
        pair.network.run(1)
        start = pair.network.now
        again = PeerUpdate(key, endpoint=B4, allowed_ips=[(True, Prefix.parse("10.0.0.2/32"))])
        pair.a.engine.apply(update(again, replace_peers=True), start)
        assert pair.exchange()
        assert len(pair.network.sent_by(pair.a, 1, since=start)) == 1, "the first one was taken"


def test_r15_an_unknown_peer_is_told_of_and_costs_nothing() -> None:
    """S12: no state before authentication."""
    pair = Pair()
    stranger = Engine(
        InterfaceConfig(OTHER, peers=[PeerConfig(pair.b_key.public_key, allowed_ips=["0.0.0.0/0"], endpoint=B4)]),
        random=random.Random(3).randbytes,
        wall_clock=pair.network.wall_clock,
    )
    before = pair.b.engine.statistics()
    stranger.send_packet(packet(), 0.0)
    for batch in stranger.datagrams_to_send():
        pair.network.inject(bytes(batch.data), A4, B4)
    assert pair.b.events == [UnknownPeer(OTHER.public_key, A4)]
    after = pair.b.engine.statistics()
    assert (after.sessions, after.peers) == (before.sessions, before.peers)
    assert not pair.network.sent_by(pair.b)


def test_whoever_only_receives_renews_its_session_too() -> None:
    """Whitepaper 6.2, protocol notes 1.8: 165 s, once."""
    pair = Pair()
    pair.shake_hands()
    start = pair.network.now
    pair.network.drop = lambda datagram: datagram.kind == 4 and datagram.source == A4
    pair.network.run(164 - 0.5)
    pair.b.send(BACK)
    pair.network.run(0.2)
    assert not pair.network.sent_by(pair.a, 1, since=start)
    pair.network.run(1)
    pair.network.drop = lambda datagram: datagram.kind == 2
    for _ in range(3):
        pair.b.send(BACK)
        pair.network.run(0.5)
    assert len(pair.network.sent_by(pair.a, 1, since=start)) == 1


# --- life ------------------------------------------------------------------------------------------------------------


def test_s19_a_suspended_engine_forgets_its_sessions_and_is_silent() -> None:
    pair = Pair(keepalive=25)
    pair.shake_hands()
    engine = pair.a.engine
    engine.suspend(pair.network.now)
    assert engine.statistics().sessions == 0
    start = pair.network.now
    pair.a.send(packet())
    pair.network.run(100)
    assert not pair.network.sent_by(pair.a, since=start)
    pair.a.do(engine.resume)
    pair.network.run(1)
    assert [one.kind for one in pair.network.sent_by(pair.a, since=start)][:1] == [1], "shakes hands anew"
    assert pair.exchange()


def test_r20_the_time_of_the_last_authentic_datagram_is_a_sign_of_life() -> None:
    pair = Pair()
    key = pair.b_key.public_key
    assert pair.a.engine.statistics().peers[key].last_received_at is None
    pair.shake_hands()
    pair.network.run(30)
    pair.b.send(BACK)
    pair.network.run(pair.network.delay)
    now = pair.network.now
    pair.network.run(5)
    assert pair.a.engine.statistics().peers[key].last_received_at == pytest.approx(now)


def test_a_great_many_peers_due_at_once_are_spread_over_calls() -> None:
    """T23: ten thousand handshakes in one call would stall transport for a second."""
    peers = [
        PeerConfig(
            PublicKey(random.Random(n).randbytes(32)), endpoint=Endpoint("192.0.2.1", 1 + n), persistent_keepalive=5
        )
        for n in range(1, 200)
    ]
    engine = engine_of(*peers)
    calls = sent = 0
    while (deadline := engine.next_deadline()) is not None and deadline <= 0.0:
        engine.handle_timer(0.0)
        batch = len(engine.datagrams_to_send())
        assert batch <= 64
        sent += batch
        calls += 1
    assert (sent, calls) == (199, 4)


# --- traps and lessons that have no behaviour of their own -----------------------------------------------------------


def test_t24_a_retransmission_is_a_new_initiation() -> None:
    pair = Pair()
    pair.network.drop = lambda datagram: True
    pair.a.send(packet())
    pair.network.run(17)
    sent = [one.octets for one in pair.network.sent_by(pair.a, 1)]
    assert len(sent) == 4
    for start, end in ((4, 8), (8, 40), (40, 88), (88, 116), (116, 132)):
        assert len({octets[start:end] for octets in sent}) == 4


def test_t28_the_response_that_crosses_our_answer_is_still_accepted() -> None:
    """The kernel forgets its own initiation when it answers one, and waits five seconds."""
    pair = Pair(b_knows_a=True)
    a, b, now = pair.a.engine, pair.b.engine, pair.network.now
    a.send_packet(packet(), now)
    b.send_packet(BACK, now)
    (from_a,), (from_b,) = a.datagrams_to_send(), b.datagrams_to_send()
    a.receive_datagrams(from_b.arriving_from(B4), now)
    b.receive_datagrams(from_a.arriving_from(A4), now)
    (answer_a,), (answer_b,) = a.datagrams_to_send(), b.datagrams_to_send()
    assert (answer_a.length, answer_b.length) == (92, 92)
    a.receive_datagrams(answer_b.arriving_from(B4), now)
    assert a.statistics().peers[pair.b_key.public_key].has_session
    (staged,) = a.datagrams_to_send()
    b.receive_datagrams(staged.arriving_from(A4), now)
    assert [bytes(row) for slab in b.packets_to_deliver() for row in slab] == [packet()]


def test_s6_the_source_of_a_datagram_is_no_option() -> None:
    """S6: where it can be left out, it is left out, and no cookie can be sent."""
    engine = engine_of()
    with pytest.raises(TypeError):
        engine.receive_datagram(b"", now=0.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        DatagramBatch(b"", 0)  # type: ignore[call-arg]


def test_s9_a_good_cookie_reply_from_elsewhere_moves_no_endpoint() -> None:
    from wgpy.noise.cookie import CookieChecker

    pair = Pair()
    pair.network.drop = lambda datagram: True
    pair.a.send(packet())
    (initiation,) = pair.network.sent_by(pair.a, 1)
    reply = CookieChecker(bytes(pair.b_key.public_key)).create_reply(initiation.octets, A4.packed, 0.0, bytes)
    before = pair.a.engine.next_deadline()
    pair.network.inject(reply, Endpoint("198.51.100.9", 9), A4)
    assert pair.a.engine.statistics().peers[pair.b_key.public_key].endpoint == B4
    assert pair.a.engine.next_deadline() == before
    assert pair.a.engine.statistics().drops == {}
    pair.network.run(5.4)
    assert pair.network.sent_by(pair.a, 1)[1].octets[-16:] != bytes(16), "and it was taken"


@pytest.mark.parametrize("point", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18])
def test_b67_to_a_low_order_public_key_nothing_is_ever_sent(point: int) -> None:
    """T10, and S2: it is shown like any other."""
    low = PublicKey(point.to_bytes(32, "little"))
    engine = engine_of(
        PeerConfig(low, allowed_ips=["10.0.0.0/8"], endpoint=Endpoint("192.0.2.1", 1), persistent_keepalive=5)
    )
    for now in range(0, 400, 5):
        engine.send_packet(packet(), float(now))
        engine.handle_timer(float(now))
        assert engine.datagrams_to_send() == []
    engine.set_private_key(OTHER, 400.0)
    engine.send_packet(packet(), 400.0)
    assert engine.datagrams_to_send() == []
    assert [peer.public_key for peer in engine.state().peers] == [low]


def test_an_owner_that_weighs_handshakes_against_data_lets_them_in_itself() -> None:
    pair = Pair()
    engine = pair.b.engine
    engine.holds_handshakes = True
    pair.a.send(packet())
    pair.network.run(0.5)
    assert not pair.b.received
    assert engine.waiting_handshakes == 1
    assert engine.next_deadline() is None
    engine.handle_timer(pair.network.now)
    assert engine.waiting_handshakes == 1, "time alone lets nobody in"
    engine.work_off_handshakes(pair.network.now)
    pair.network.flush(pair.b)
    pair.network.run(0.5)
    assert pair.b.received == [packet()]
