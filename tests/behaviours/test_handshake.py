"""B1 to B5, B9, B10: what a responder and an initiator do with good, bad, repeated and stray handshake messages."""

from __future__ import annotations

import itertools

import pytest

from tests.behaviours.forge import Initiator, with_macs
from wgpy.config import Endpoint
from wgpy.crypto import dh
from wgpy.errors import DropReason
from wgpy.testing.network import Network
from wgpy.testing.pair import A4, B4, Pair, packet

STRANGER = Endpoint("198.51.100.9", 9999)
LOW_ORDER = (
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
)


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture
def forger(pair: Pair) -> Initiator:
    """Somebody who holds the key of `a` and speaks to `b`."""
    return Initiator(pair.a_key, pair.b_key.public_key, pair.network.random.randbytes)


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every public key that a Diffie-Hellman is computed with."""
    seen: list[bytes] = []
    original = dh.Secret.exchange

    def exchange(self: dh.Secret, public: bytes) -> bytes:
        seen.append(public)
        return original(self, public)

    monkeypatch.setattr(dh.Secret, "exchange", exchange)
    return seen


def garbage() -> list[bytes]:
    lengths = [0, 1, 3, 31, 147, 149, 91, 93, 63, 65, 65507]
    heads = [bytes([kind, *reserved]) for kind in (0, 5, 255) for reserved in ((0, 0, 0),)]
    heads += [bytes([kind, *reserved]) for kind in (1, 2, 3, 4) for reserved in ((1, 0, 0), (0, 0, 1), (0, 0, 0))]
    made = [(head + bytes(65507))[:length] for head in heads for length in lengths]
    return [*made, *((head + bytes(200))[:148] for head in heads)]


def test_b1_garbage_is_met_with_silence_and_the_next_handshake_works(pair: Pair) -> None:
    before = len(pair.network.tap)
    for octets in garbage():
        pair.network.inject(octets, STRANGER, B4)
        pair.network.inject(octets, B4, A4)
    assert len(pair.network.tap) == before
    pair.shake_hands()
    assert pair.exchange()


def test_b2_a_replayed_initiation_gets_no_second_answer(pair: Pair, forger: Initiator) -> None:
    """B2: the same again, another with its timestamp, one with an older timestamp; a newer one is answered."""
    now = pair.network.wall_clock()
    first = forger.initiation(now)
    pair.network.inject(first, A4, B4)
    assert len(pair.network.sent_by(pair.b, 2)) == 1
    pair.network.run(1)
    pair.network.inject(first, A4, B4)
    pair.network.inject(forger.initiation(now), A4, B4)
    pair.network.inject(forger.initiation(now - 1), A4, B4)
    assert len(pair.network.sent_by(pair.b, 2)) == 1
    assert pair.b.engine.statistics().drops[DropReason.REPLAYED_TIMESTAMP] == 3
    pair.network.inject(forger.initiation(now + 1), A4, B4)
    assert len(pair.network.sent_by(pair.b, 2)) == 2


@pytest.mark.parametrize(("apart", "answers"), [(0.019, 1), (0.021, 2)])
def test_b3_initiations_within_20_ms_get_one_answer(pair: Pair, forger: Initiator, apart: float, answers: int) -> None:
    """B3: however new the second is."""
    now = pair.network.wall_clock()
    pair.network.inject(forger.initiation(now), A4, B4)
    pair.network.run(apart)
    pair.network.inject(forger.initiation(now + 1), A4, B4)
    assert len(pair.network.sent_by(pair.b, 2)) == answers


def test_b4_every_retransmission_is_a_new_initiation() -> None:
    pair = Pair(Network(drop=lambda datagram: True))
    pair.a.send(packet())
    pair.network.run(60)
    sent = pair.network.sent_by(pair.a, 1)
    assert len(sent) >= 11
    for field in (slice(4, 8), slice(8, 40), slice(88, 116)):  # sender index, ephemeral, timestamp
        assert len({one.octets[field] for one in sent}) == len(sent)
    gaps = [later.time - earlier.time for earlier, later in itertools.pairwise(sent)]
    assert all(5.0 <= gap <= 5.334 for gap in gaps)
    assert len({round(gap, 6) for gap in gaps}) > 1, "there is no jitter"


def test_b4_timestamps_of_retransmissions_grow(pair: Pair) -> None:
    timestamps: list[bytes] = []

    def drop_and_note(datagram: object) -> bool:
        timestamps.append(pair.a.engine.greatest_timestamp)
        return True

    pair.network.drop = drop_and_note
    pair.a.send(packet())
    pair.network.run(60)
    assert timestamps == sorted(set(timestamps))


@pytest.mark.parametrize("kind", [1, 2])
def test_b5_a_wrong_mac1_costs_no_curve_operation(pair: Pair, exchanges: list[bytes], kind: int) -> None:
    pair.network.drop = lambda datagram: datagram.kind == kind
    pair.a.send(packet())
    pair.network.run(0.1)
    good = next(one for one in pair.network.tap if one.kind == kind)
    exchanges.clear()
    before = len(pair.network.tap)
    for position in [*range(4, len(good.octets) - 16, 7), len(good.octets) - 17]:
        for bit in (0, 7):
            bad = bytearray(good.octets)
            bad[position] ^= 1 << bit
            pair.network.inject(bytes(bad), good.source, good.target)
    assert exchanges == []
    assert len(pair.network.tap) == before
    host = pair.b if kind == 1 else pair.a
    assert host.engine.statistics().drops[DropReason.INVALID_MAC1] > 10
    pair.network.drop = None
    pair.network.inject(good.octets, good.source, good.target)
    assert exchanges, "the untouched message is not refused"


def test_b9_stray_responses_are_ignored(pair: Pair) -> None:
    pair.network.drop = lambda datagram: datagram.kind == 2
    pair.a.send(packet())
    pair.network.run(0.1)
    first = pair.network.sent_by(pair.b, 2)[0].octets
    unknown = with_macs(first[:8] + b"\x99\x99\x99\x99" + first[12:60], pair.a_key.public_key)
    pair.network.inject(unknown, B4, A4)
    assert not pair.network.sent_by(pair.a, 4)
    pair.network.run(5.4)  # a newer initiation replaces the first
    assert len(pair.network.sent_by(pair.a, 1)) == 2
    pair.network.inject(first, B4, A4)
    assert not pair.network.sent_by(pair.a, 4)
    second = pair.network.sent_by(pair.b, 2)[1].octets
    pair.network.inject(second, B4, A4)
    confirmations = len(pair.network.sent_by(pair.a, 4))
    assert confirmations == 1
    pair.network.inject(second, B4, A4)
    pair.network.inject(first, B4, A4)
    assert len(pair.network.sent_by(pair.a, 4)) == confirmations
    assert pair.a.engine.statistics().drops[DropReason.NO_SUCH_HANDSHAKE] == 4


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
def test_b10_low_order_points_in_an_initiation_are_refused(pair: Pair, forger: Initiator, point: bytes) -> None:
    now = pair.network.wall_clock()
    before = pair.b.engine.statistics()
    pair.network.inject(forger.initiation(now, ephemeral_public=point), A4, B4)
    pair.network.inject(forger.initiation(now, static=point), A4, B4)
    assert not pair.network.tap
    after = pair.b.engine.statistics()
    assert after.peers == before.peers
    assert after.sessions == before.sessions
    pair.network.inject(forger.initiation(now), A4, B4)
    assert len(pair.network.sent_by(pair.b, 2)) == 1


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
def test_b10_a_low_order_point_in_a_response_is_refused(pair: Pair, point: bytes) -> None:
    pair.network.drop = lambda datagram: datagram.kind == 2
    pair.a.send(packet())
    pair.network.run(0.1)
    good = pair.network.sent_by(pair.b, 2)[0].octets
    pair.network.inject(with_macs(good[:12] + point + good[44:60], pair.a_key.public_key), B4, A4)
    assert not pair.network.sent_by(pair.a, 4)
    pair.network.inject(good, B4, A4)
    assert len(pair.network.sent_by(pair.a, 4)) == 1, "the handshake that waits is untouched"


def test_an_initiator_written_from_the_whitepaper_gets_a_session(pair: Pair, forger: Initiator) -> None:
    pair.network.inject(forger.initiation(pair.network.wall_clock()), A4, B4)
    forger.accept(pair.network.sent_by(pair.b, 2)[0].octets)
    pair.network.inject(forger.transport(0, packet()), A4, B4)
    assert pair.b.received == [packet()]
    pair.b.send(packet("10.0.0.2", "10.0.0.1"))
    (answer,) = pair.network.sent_by(pair.b, 4)
    assert forger.read(answer.octets).rstrip(b"\0") == packet("10.0.0.2", "10.0.0.1").rstrip(b"\0")
