"""B17 to B23: keepalives, silence, idleness, giving up, wiping and staging."""

from __future__ import annotations

import gc

import pytest

from tests.behaviours.forge import Initiator
from wgpy.config import Endpoint, PeerConfig
from wgpy.constants import MAX_STAGED_PACKETS, MAX_STAGED_PER_DEVICE
from wgpy.errors import DropReason
from wgpy.keys import PrivateKey
from wgpy.noise.keypair import Keypair
from wgpy.protocol.events import HandshakeGaveUp, SessionExpired
from wgpy.testing.network import Network
from wgpy.testing.pair import A4, B4, Pair, packet

BACK = packet("10.0.0.2", "10.0.0.1")


@pytest.fixture
def pair() -> Pair:
    made = Pair()
    made.shake_hands()
    made.network.run(30)  # every keepalive of the handshake has left
    return made


def test_b17_data_received_and_nothing_sent_asks_for_a_keepalive_after_10_s(pair: Pair) -> None:
    start = pair.network.now
    pair.a.send(packet())
    pair.network.run(40)
    (keepalive,) = pair.network.sent_by(pair.b, since=start)
    assert len(keepalive.octets) == 32
    assert keepalive.time == pytest.approx(start + 10.01)
    assert len(pair.network.sent_by(pair.a, since=start)) == 1, "a keepalive answered a keepalive"


def test_b17_a_second_keepalive_only_if_more_data_came(pair: Pair) -> None:
    start = pair.network.now
    pair.a.send(packet())
    pair.network.run(5)
    pair.a.send(packet())
    pair.network.run(40)
    assert [round(one.time - start) for one in pair.network.sent_by(pair.b, since=start)] == [10, 20]


def test_b17_data_sent_takes_the_place_of_the_keepalive(pair: Pair) -> None:
    start = pair.network.now
    pair.a.send(packet())
    pair.network.run(5)
    pair.b.send(BACK)
    pair.network.run(40)
    (data,) = pair.network.sent_by(pair.b, since=start)
    assert len(data.octets) > 32


def test_b18_a_persistent_keepalive_begins_at_once_and_starts_a_handshake() -> None:
    pair = Pair(keepalive=20)
    pair.network.run(100)
    kinds = [one.kind for one in pair.network.sent_by(pair.a)]
    assert kinds[:2] == [1, 4]
    times = [one.time - 1000 for one in pair.network.sent_by(pair.a, 4)]
    assert times == pytest.approx([0.02 + 20 * number for number in range(len(times))], abs=0.1)
    assert len(times) == 5


def test_b18_none_while_traffic_flows_in_either_direction(pair: Pair) -> None:
    def set_keepalive(seconds: int) -> None:
        config = PeerConfig(
            pair.b_key.public_key, allowed_ips=["10.0.0.2/32"], endpoint=B4, persistent_keepalive=seconds
        )
        pair.a.do(pair.a.engine.update_peer, config)

    start = pair.network.now
    set_keepalive(5)
    assert len(pair.network.sent_by(pair.a, since=start)) == 1, "one at once when it is switched on"
    for sender, data in ((pair.a, packet()), (pair.b, BACK)):
        pair.network.run(0.1)
        start = pair.network.now
        for _ in range(10):
            sender.send(data)
            pair.network.run(2)
        keepalives = [one for one in pair.network.sent_by(pair.a, since=start) if len(one.octets) == 32]
        passive = [one for one in keepalives if sender is pair.b]
        assert len(keepalives) == len(passive) <= 2
    set_keepalive(0)
    pair.network.run(20)
    start = pair.network.now
    pair.network.run(100)
    assert not pair.network.sent_by(pair.a, since=start)


def test_b18_one_at_once_when_the_interface_comes_up() -> None:
    pair = Pair(keepalive=20)
    pair.a.do(pair.a.engine.set_up, False)
    pair.network.run(60)
    assert not pair.network.tap
    start = pair.network.now
    pair.a.do(pair.a.engine.set_up, True)
    assert [one.time for one in pair.network.sent_by(pair.a, 1)] == [start]


def test_b19_silence_after_data_starts_a_handshake_counted_from_the_first_packet(pair: Pair) -> None:
    """B19: what is sent later does not put it off."""
    pair.network.drop = lambda datagram: True
    start = pair.network.now
    for _ in range(7):
        pair.a.send(packet())
        pair.network.run(2)
    pair.network.run(10)
    (first, *_) = pair.network.sent_by(pair.a, 1, since=start)
    assert 15 <= first.time - start <= 15.34


def test_b19_a_keepalive_that_was_sent_arms_nothing(pair: Pair) -> None:
    """B19: nobody owes an answer to a keepalive."""
    start = pair.network.now
    pair.b.send(BACK)
    pair.network.run(0.1)
    pair.network.drop = lambda datagram: datagram.source == B4
    pair.network.run(60)
    assert [len(one.octets) for one in pair.network.sent_by(pair.a, since=start)] == [32]


def test_b20_an_idle_tunnel_says_nothing(pair: Pair) -> None:
    start = pair.network.now
    pair.network.run(1000)
    assert not [one for one in pair.network.tap if one.time > start]
    assert SessionExpired(pair.b_key.public_key) in pair.a.events
    pair.a.send(packet())
    pair.network.run(1)
    assert pair.b.received == [packet()]


def test_b21_an_unreachable_peer_gets_20_initiations() -> None:
    """B21: and then silence; what waited is dropped."""
    pair = Pair(Network(drop=lambda datagram: True))
    pair.a.send(packet())
    pair.network.run(300)
    sent = pair.network.sent_by(pair.a)
    assert [one.kind for one in sent] == [1] * 20
    assert sent[-1].time - 1000 >= 90
    assert HandshakeGaveUp(pair.b_key.public_key) in pair.a.events
    assert pair.a.engine.statistics().staged_packets == 0
    pair.network.drop = None
    pair.a.send(packet(payload=b"again"))
    pair.network.run(1)
    assert pair.b.received == [packet(payload=b"again")]


def test_b21_it_gives_up_within_110_s() -> None:
    """B21: and not before 90 s."""
    pair = Pair(Network(drop=lambda datagram: True))
    pair.a.send(packet())
    pair.network.run(89)
    assert not pair.a.events
    assert pair.network.run_until(lambda: HandshakeGaveUp(pair.b_key.public_key) in pair.a.events, 21)


def test_b21_a_peer_that_is_asked_now_and_then_is_not_given_up() -> None:
    """As with the Linux driver and wireguard-go: retries count since the last packet, sent or not."""
    pair = Pair(Network(drop=lambda datagram: True))
    for _ in range(20):
        pair.a.send(packet())
        pair.network.run(30.1)
    assert len(pair.network.sent_by(pair.a, 1)) > 100
    assert not pair.a.events
    assert pair.a.engine.statistics().peers[pair.b_key.public_key].handshake_attempts > 100, "but nobody answers"
    assert pair.network.run_until(lambda: HandshakeGaveUp(pair.b_key.public_key) in pair.a.events, 110)


def test_b21_each_new_packet_starts_from_zero() -> None:
    """B21: another twenty."""
    pair = Pair(Network(drop=lambda datagram: True))
    pair.a.send(packet())
    pair.network.run(200)
    pair.a.send(packet())
    pair.network.run(200)
    assert len(pair.network.sent_by(pair.a, 1)) == 40


def secrets_alive() -> int:
    gc.collect()
    return sum(isinstance(one, Keypair) for one in gc.get_objects())


def test_b22_540_s_later_every_key_is_gone() -> None:
    before = secrets_alive()
    pair = Pair()
    forger = Initiator(pair.a_key, pair.b_key.public_key, pair.network.random.randbytes)
    pair.network.inject(forger.initiation(pair.network.wall_clock()), A4, B4)
    forger.accept(pair.network.sent_by(pair.b, 2)[0].octets)
    pair.shake_hands()
    assert secrets_alive() > before
    pair.network.run(530)
    assert secrets_alive() > before
    pair.network.run(20)
    assert secrets_alive() == before
    assert pair.a.engine.statistics().sessions == pair.b.engine.statistics().sessions == 0
    pair.network.inject(forger.transport(0, packet()), A4, B4)
    assert pair.b.received == []
    assert pair.b.engine.statistics().drops[DropReason.UNKNOWN_INDEX] == 1


def test_b22_540_s_after_giving_up_the_ephemeral_is_gone() -> None:
    pair = Pair(Network(drop=lambda datagram: True))
    pair.a.send(packet())
    assert pair.network.run_until(lambda: bool(pair.a.events), 120)
    assert pair.a.engine.statistics().sessions == 1, "a late response may still be taken"
    pair.network.run(539)
    assert pair.a.engine.statistics().sessions == 1
    pair.network.run(2)
    assert pair.a.engine.statistics().sessions == 0
    assert pair.a.engine.next_deadline() is None


def test_b23_the_129th_packet_pushes_out_the_oldest() -> None:
    pair = Pair(Network(drop=lambda datagram: True))
    sent = [packet(payload=b"%d" % number) for number in range(MAX_STAGED_PACKETS + 1)]
    pair.a.send(*sent)
    pair.network.drop = None
    pair.network.run(6)
    assert pair.b.received == sent[1:]
    assert pair.a.engine.statistics().drops[DropReason.STAGING_OVERFLOW] == 1


def test_b23_silent_peers_do_not_stop_one_with_a_session(pair: Pair) -> None:
    engine, now = pair.a.engine, pair.network.now
    for number in range(60):
        engine.add_peer(
            PeerConfig(
                PrivateKey.generate().public_key,
                allowed_ips=[f"10.9.{number}.0/24"],
                endpoint=Endpoint("203.0.113.1", 1000 + number),
            ),
            now,
        )
    for number in range(60):
        pair.a.send(*(packet(target=f"10.9.{number}.1") for _ in range(MAX_STAGED_PACKETS)))
    staged = engine.statistics().staged_packets
    assert 0 < staged <= MAX_STAGED_PER_DEVICE
    assert pair.exchange()
