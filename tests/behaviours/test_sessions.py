"""B11 to B16: which session carries data, for how long, and which counters it takes."""

from __future__ import annotations

import random

import pytest

from tests.behaviours.forge import Initiator
from wgpy.constants import REJECT_AFTER_MESSAGES
from wgpy.errors import DropReason
from wgpy.testing.network import Datagram, Network
from wgpy.testing.pair import A4, B4, Pair, packet

BACK = packet("10.0.0.2", "10.0.0.1")


def test_b11_the_responder_waits_for_a_packet_on_the_new_session() -> None:
    pair = Pair(b_knows_a=True)
    pair.shake_hands()
    start = pair.network.now
    old = pair.network.sent_by(pair.b, 4)[-1:] or pair.network.sent_by(pair.a, 4)[-1:]
    assert old
    # The response arrives, but nothing that the initiator sends on the new session does.
    pair.network.run(121)
    new_index: list[bytes] = []

    def drop(datagram: Datagram) -> bool:
        if datagram.kind == 2:
            new_index.append(datagram.octets[4:8])
        return datagram.kind == 4 and bool(new_index) and datagram.octets[4:8] == new_index[-1]

    pair.network.drop = drop
    pair.a.send(packet())
    pair.network.run(1)
    assert pair.network.sent_by(pair.a, 1, since=start)
    assert new_index, "no second handshake began"
    answered = pair.network.now
    for _ in range(5):
        pair.b.send(BACK)
        pair.network.run(0.1)
    assert pair.a.received.count(BACK) == 5, "the old session carries on"
    (initiation,) = pair.network.sent_by(pair.a, 1, since=start)
    spoken = pair.network.sent_by(pair.b, 4, since=answered)
    assert all(one.octets[4:8] != initiation.octets[4:8] for one in spoken)


def test_b12_the_initiator_confirms_with_the_staged_packets() -> None:
    """B12: in their order, and with nothing else."""
    pair = Pair()
    pair.a.send(packet(payload=b"one"), packet(payload=b"two"))
    pair.network.run(1)
    assert len(pair.network.sent_by(pair.a, 4)) == 2
    assert pair.b.received == [packet(payload=b"one"), packet(payload=b"two")]


def test_b12_the_initiator_confirms_with_one_keepalive_where_nothing_is_staged() -> None:
    """B12: an empty packet, which nobody answers."""
    pair = Pair(keepalive=25)
    pair.a.do(pair.a.engine.handle_timer)
    assert len(pair.network.sent_by(pair.a)) == 1
    pair.network.run(1)
    assert [len(one.octets) for one in pair.network.sent_by(pair.a, 4)] == [32]


def test_b13_a_session_is_accepted_until_it_is_180_s_old() -> None:
    pair = Pair()
    forger = Initiator(pair.a_key, pair.b_key.public_key, pair.network.random.randbytes)
    pair.network.inject(forger.initiation(pair.network.wall_clock()), A4, B4)
    forger.accept(pair.network.sent_by(pair.b, 2)[-1].octets)
    start = pair.network.now
    pair.network.inject(forger.transport(0, packet()), A4, B4)
    # A second session; the first one is the previous one now.
    pair.network.run(100)
    later = Initiator(pair.a_key, pair.b_key.public_key, pair.network.random.randbytes, index=8)
    pair.network.inject(later.initiation(pair.network.wall_clock()), A4, B4)
    later.accept(pair.network.sent_by(pair.b, 2)[-1].octets)
    pair.network.inject(later.transport(0, packet()), A4, B4)
    pair.network.run(start + 179.9 - pair.network.now)
    pair.network.inject(forger.transport(1, packet()), A4, B4)
    assert len(pair.b.received) == 3
    pair.network.run(start + 180.1 - pair.network.now)
    pair.network.inject(forger.transport(2, packet()), A4, B4)
    assert len(pair.b.received) == 3
    pair.network.inject(later.transport(1, packet()), A4, B4)
    assert len(pair.b.received) == 4, "the newer one is younger"
    pair.network.run(start + 280.1 - pair.network.now)
    pair.network.inject(later.transport(2, packet()), A4, B4)
    assert len(pair.b.received) == 4


def test_b13_nothing_is_sent_on_a_session_of_180_s() -> None:
    pair = Pair()
    pair.shake_hands()
    pair.network.drop = lambda datagram: datagram.kind in (1, 2)
    pair.network.run(180)
    start = pair.network.now
    pair.a.send(packet())
    pair.network.run(20)
    assert not pair.network.sent_by(pair.a, 4, since=start)
    assert pair.network.sent_by(pair.a, 1, since=start)


def test_b14_simultaneous_initiation_with_a_session_loses_nothing() -> None:
    """B14: the old session carries what is sent until both agree on a new one."""
    pair = Pair(b_knows_a=True)
    pair.shake_hands()
    pair.network.run(120.5)
    for _ in range(20):
        pair.a.send(packet())
        pair.b.send(BACK)
        pair.network.run(0.005)
    assert len({one.source for one in pair.network.tap if one.kind == 1 and one.time > 1100}) >= 1
    pair.network.run(20)
    assert pair.b.received.count(packet()) == 20
    assert pair.a.received.count(BACK) == 20
    assert pair.exchange()


@pytest.mark.parametrize("seed", range(20))
def test_b14_simultaneous_initiation_without_a_session_delivers_within_a_second(seed: int) -> None:
    """B14: whichever of the two handshakes wins, and whenever the second began."""
    pair = Pair(Network(seed, delay=0.02, jitter=0.01), b_knows_a=True)
    pair.a.send(packet())
    pair.network.run(pair.network.random.random() * 0.03)
    pair.b.send(BACK)
    pair.network.run(1)
    assert pair.b.received == [packet()]
    assert pair.a.received == [BACK]


@pytest.fixture
def forged() -> tuple[Pair, Initiator]:
    """`b` in session with a forger that may use any counter."""
    pair = Pair()
    forger = Initiator(pair.a_key, pair.b_key.public_key, pair.network.random.randbytes)
    pair.network.inject(forger.initiation(pair.network.wall_clock()), A4, B4)
    forger.accept(pair.network.sent_by(pair.b, 2)[0].octets)
    return pair, forger


def accepts(pair: Pair, message: bytes) -> bool:
    before = len(pair.b.received)
    pair.network.inject(message, A4, B4)
    return len(pair.b.received) == before + 1


def test_b15_the_window_is_8128_wide(forged: tuple[Pair, Initiator]) -> None:
    pair, forger = forged
    highest = 100_000
    assert accepts(pair, forger.transport(highest, packet()))
    assert accepts(pair, forger.transport(highest - 8128, packet()))
    assert not accepts(pair, forger.transport(highest - 8129, packet()))
    assert not accepts(pair, forger.transport(highest, packet()))
    assert not accepts(pair, forger.transport(highest - 8128, packet()))
    forgery = bytearray(forger.transport(2**40, packet()))
    forgery[-1] ^= 1
    assert not accepts(pair, bytes(forgery))
    assert accepts(pair, forger.transport(highest - 8127, packet())), "the forgery moved the window"
    assert accepts(pair, forger.transport(highest + 20_000, packet()))
    assert not accepts(pair, forger.transport(highest + 1, packet()))
    assert accepts(pair, forger.transport(highest + 20_000 - 8128, packet()))


def test_b15_the_window_agrees_with_a_set(forged: tuple[Pair, Initiator]) -> None:
    pair, forger = forged
    source = random.Random(15)
    seen: set[int] = set()
    highest = 0
    for _ in range(1500):
        step = source.choice([1, 1, 1, 2, 63, 64, 65, 8127, 8128, 8129, 8192, 8193, 20_000, 0, -1, -64, -8128, -8129])
        counter = max(0, highest + step - source.choice([0, 0, 1, 5]))
        expected = counter not in seen and counter + 8128 >= highest
        assert accepts(pair, forger.transport(counter, packet())) == expected, (counter, highest)
        if expected:
            seen.add(counter)
            highest = max(highest, counter)


def test_b16_counters_at_the_end_are_refused_without_moving_the_window(forged: tuple[Pair, Initiator]) -> None:
    pair, forger = forged
    assert accepts(pair, forger.transport(5, packet()))
    for counter in (REJECT_AFTER_MESSAGES, REJECT_AFTER_MESSAGES + 1, 2**64 - 2, 2**64 - 1):
        assert not accepts(pair, forger.transport(counter, packet()))
    assert pair.b.engine.statistics().peers[pair.a_key.public_key].drops[DropReason.COUNTER_EXHAUSTED] == 4
    assert accepts(pair, forger.transport(4, packet()))
    assert accepts(pair, forger.transport(REJECT_AFTER_MESSAGES - 1, packet()))


def test_b16_a_send_counter_above_2_to_60_starts_a_handshake_and_still_sends() -> None:
    pair = Pair()
    pair.shake_hands()
    pair.network.run(5)  # two handshakes are that far apart
    keypair = pair.a.engine._peers[pair.b_key.public_key].slots.current
    assert keypair is not None
    keypair._next_counter = 2**60 + 1
    start = pair.network.now
    pair.network.run(0.1)
    pair.a.send(packet())
    assert len(pair.network.sent_by(pair.a, 4, since=start)) == 1
    assert len(pair.network.sent_by(pair.a, 1, since=start)) == 1
    pair.network.run(1)
    assert pair.b.received == [packet()]
    assert pair.exchange()


def test_b16_at_the_limit_the_packet_waits_for_a_new_session() -> None:
    pair = Pair()
    pair.shake_hands()
    pair.network.run(5)  # two handshakes are that far apart
    keypair = pair.a.engine._peers[pair.b_key.public_key].slots.current
    assert keypair is not None
    keypair._next_counter = REJECT_AFTER_MESSAGES
    start = pair.network.now
    pair.a.send(packet())
    assert not pair.network.sent_by(pair.a, 4, since=start)
    pair.network.run(6)
    assert pair.b.received == [packet()]
