"""B29, B32, B33, B35, B36 and a lossy network: what changes while the tunnel works."""

from __future__ import annotations

import gc

import pytest

from tests.behaviours.forge import Initiator
from wgpy.config import Endpoint, PeerConfig
from wgpy.keys import PresharedKey, PrivateKey
from wgpy.testing.network import Network
from wgpy.testing.pair import A4, A6, B4, B6, Pair, packet

AWAY4, AWAY6 = Endpoint("198.51.100.7", 777), Endpoint("2001:db8:7::7", 777)
BACK = packet("10.0.0.2", "10.0.0.1")


@pytest.fixture
def pair() -> Pair:
    made = Pair()
    made.shake_hands()
    return made


@pytest.mark.parametrize("away", [[AWAY4], [Endpoint(A4.host, 9)], [AWAY6]], ids=["address", "port", "family"])
def test_b29_an_authenticated_packet_moves_the_endpoint(pair: Pair, away: list[Endpoint]) -> None:
    pair.a.move(*away)
    if away[0].version == 6:
        to_b = PeerConfig(pair.b_key.public_key, allowed_ips=["10.0.0.2/32"], endpoint=B6)
        pair.a.do(pair.a.engine.update_peer, to_b)
    pair.a.send(packet())
    pair.network.run(0.1)
    assert pair.b.received == [packet()]
    assert pair.b.engine.statistics().peers[pair.a_key.public_key].endpoint == away[0]
    pair.b.send(BACK)
    pair.network.run(0.1)
    assert pair.a.received == [BACK]


def test_b29_initiation_and_response_move_it_too(pair: Pair) -> None:
    pair.network.run(121)
    pair.a.move(AWAY4)
    pair.network.drop = lambda datagram: datagram.kind == 4
    pair.a.send(packet())
    pair.network.run(0.005 + pair.network.delay)
    assert pair.b.engine.statistics().peers[pair.a_key.public_key].endpoint == AWAY4


def test_b29_replays_forgeries_and_cookies_do_not_move_it(pair: Pair) -> None:
    pair.a.send(packet())
    pair.network.run(0.1)
    good = pair.network.sent_by(pair.a, 4)[-1].octets
    initiation = pair.network.sent_by(pair.a, 1)[-1].octets
    forged = bytearray(good)
    forged[8] += 1
    for octets in (good, bytes(forged), initiation, b"\3" + bytes(63)):
        pair.network.inject(octets, AWAY4, B4)
    assert pair.b.engine.statistics().peers[pair.a_key.public_key].endpoint == A4


def test_b29_answers_come_from_the_address_that_was_hit() -> None:
    pair = Pair()
    second = Endpoint("192.0.2.22", 51820)
    pair.b.move(B4, second, B6)
    to_b = PeerConfig(pair.b_key.public_key, allowed_ips=["10.0.0.2/32"], endpoint=second)
    pair.a.do(pair.a.engine.update_peer, to_b)
    pair.a.send(packet())
    pair.network.run(1)
    pair.b.send(BACK)
    assert {one.source for one in pair.network.sent_by(pair.b)} == {second}


def test_b32_a_new_private_key_means_a_new_handshake_at_once(pair: Pair) -> None:
    new = PrivateKey.generate()
    pair.a.do(pair.a.engine.set_private_key, pair.a_key)
    start = pair.network.now
    assert pair.exchange()
    assert not pair.network.sent_by(pair.a, 1, since=start), "the same key again changes nothing"
    pair.a.do(pair.a.engine.set_private_key, new)
    pair.b.do(pair.b.engine.remove_peer, pair.a_key.public_key)
    pair.b.do(pair.b.engine.add_peer, PeerConfig(new.public_key, allowed_ips=["10.0.0.1/32"]))
    start = pair.network.now
    pair.a.send(packet(payload=b"new"))
    assert len(pair.network.sent_by(pair.a, 1, since=start)) == 1
    pair.network.run(0.5)
    assert pair.b.received[-1] == packet(payload=b"new")


def test_b32_a_peer_that_turns_out_to_be_ourselves_disappears(pair: Pair) -> None:
    pair.a.do(pair.a.engine.set_private_key, pair.b_key)
    assert pair.b_key.public_key not in pair.a.engine.statistics().peers


def test_b33_a_new_preshared_key_counts_from_the_next_handshake(pair: Pair) -> None:
    psk = PresharedKey.generate()
    to_b = PeerConfig(pair.b_key.public_key, allowed_ips=["10.0.0.2/32"], endpoint=B4, preshared_key=psk)
    to_a = PeerConfig(pair.a_key.public_key, allowed_ips=["10.0.0.1/32"], preshared_key=psk)
    start = pair.network.now
    pair.a.do(pair.a.engine.update_peer, to_b)
    assert pair.exchange()
    assert not pair.network.sent_by(pair.a, 1, since=start)
    pair.network.run(125)
    pair.a.send(packet())
    pair.network.run(1)
    handshakes = len(pair.network.sent_by(pair.a, 1, since=start))
    assert handshakes == 1
    assert pair.exchange(), "a mismatch fails that handshake only"
    pair.b.do(pair.b.engine.update_peer, to_a)
    pair.network.run(6)
    pair.a.send(packet())
    pair.network.run(60)
    assert pair.exchange()


def test_b35_removing_a_peer_in_mid_handshake_leaves_nothing() -> None:
    pair = Pair(Network(drop=lambda datagram: True))
    pair.a.send(packet())
    pair.a.do(pair.a.engine.remove_peer, pair.b_key.public_key)
    statistics = pair.a.engine.statistics()
    assert (statistics.sessions, statistics.staged_packets) == (0, 0)
    sent = len(pair.network.tap)
    pair.network.run(200)
    assert len(pair.network.tap) == sent
    assert pair.a.engine.next_deadline() is None


def test_b35_ten_thousand_peers_come_and_go_without_a_trace(pair: Pair) -> None:
    engine, now = pair.a.engine, pair.network.now

    def churn() -> int:
        for number in range(1000):
            key = PrivateKey(number.to_bytes(32, "big")).public_key
            prefix = f"172.16.{number >> 8}.{number & 255}/32"
            engine.add_peer(PeerConfig(key, allowed_ips=[prefix], endpoint=AWAY4, persistent_keepalive=9), now)
            engine.remove_peer(key, now)
        engine.datagrams_to_send()
        engine.events()
        gc.collect()
        return len(gc.get_objects())

    churn()
    before = churn()
    for _ in range(8):
        after = churn()
    assert after - before < 100
    assert engine.statistics().sessions == 1
    assert pair.exchange()


def test_b36_a_wall_clock_set_back_does_not_stop_handshakes(pair: Pair) -> None:
    pair.network.wall_clock = lambda: 1_750_000_000.0 - 3600  # type: ignore[method-assign]
    pair.network.run(200)
    pair.a.send(packet(payload=b"after"))
    pair.network.run(1)
    assert pair.b.received == [packet(payload=b"after")]
    assert pair.a.engine.state().peers[0].last_handshake_time == 1_750_000_000.0 - 3600


def test_b36_timers_do_not_react_to_the_wall_clock(pair: Pair) -> None:
    start = pair.network.now
    pair.network.wall_clock = lambda: 9_999_999_999.0  # type: ignore[method-assign]
    assert pair.exchange()
    assert not pair.network.sent_by(pair.a, 1, since=start)


def test_b36_suspended_time_counts(pair: Pair) -> None:
    start = pair.network.now
    pair.network.now += 200  # nobody was awake to run the timers
    pair.a.engine.send_packet(packet(), pair.network.now)
    pair.network.flush(pair.a)
    assert [one.kind for one in pair.network.sent_by(pair.a, since=start + 1)] == [1]


@pytest.mark.parametrize("seed", range(10))
def test_a_lossy_network_delivers_what_it_does_not_lose_once_and_whole(seed: int) -> None:
    pair = Pair(
        Network(seed, delay=0.02, jitter=0.05, loss=0.1, repeats=0.1), b_knows_a=True, psk=PresharedKey.generate()
    )
    sent_a, sent_b = [], []
    for number in range(600):
        payload = number.to_bytes(4, "big") * (1 + number % 300)
        sent_a.append(packet(payload=payload))
        sent_b.append(packet("10.0.0.2", "10.0.0.1", payload))
        pair.a.send(sent_a[-1])
        pair.b.send(sent_b[-1])
        pair.network.run(0.6)
    pair.network.run(5)
    for sent, received in ((sent_a, pair.b.received), (sent_b, pair.a.received)):
        assert len(set(received)) == len(received), "delivered twice"
        assert set(received) <= set(sent)
        assert len(received) > 0.8 * len(sent)
    assert len(pair.network.sent_by(pair.a, 1)) + len(pair.network.sent_by(pair.b, 1)) >= 3, "no rekey happened"


def test_two_runs_of_one_seed_are_the_same_octet_by_octet() -> None:
    def run() -> list[bytes]:
        pair = Pair(Network(7, jitter=0.02, loss=0.2))
        for _ in range(50):
            pair.a.send(packet())
            pair.network.run(1)
        return [one.octets for one in pair.network.tap]

    assert run() == run()


def test_the_forger_and_the_engine_agree_on_a_preshared_key() -> None:
    psk = PresharedKey(bytes(range(32)))
    pair = Pair(psk=psk)
    forger = Initiator(pair.a_key, pair.b_key.public_key, pair.network.random.randbytes, psk=bytes(range(32)))
    pair.network.inject(forger.initiation(pair.network.wall_clock()), A4, B4)
    forger.accept(pair.network.sent_by(pair.b, 2)[0].octets)
    pair.network.inject(forger.transport(0, packet("fd00::1", "fd00::2")), A6, B6)
    assert pair.b.received == [packet("fd00::1", "fd00::2")]
