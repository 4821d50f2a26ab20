"""B6 to B8: under load the responder asks for proof of address before it computes anything."""

from __future__ import annotations

import pytest

from tests.behaviours.forge import Initiator, cookie_of, with_macs
from wgpy.config import Endpoint
from wgpy.constants import UNDER_LOAD_QUEUE
from wgpy.errors import DropReason
from wgpy.keys import PrivateKey
from wgpy.protocol.datagrams import DatagramBatch
from wgpy.testing.pair import A4, A6, B4, B6, Pair, packet

OTHER_PORT = Endpoint("192.0.2.1", 40000)
OTHER_HOST = Endpoint("198.51.100.9", 51820)


def put_under_load(pair: Pair, at: Endpoint = B4) -> None:
    """Fill an eighth of the queue in one call with initiations whose mac1 is right; that holds for a second."""
    host = pair.b if at in (B4, B6) else pair.a
    key = pair.b_key if host is pair.b else pair.a_key
    junk = with_macs(b"\1\0\0\0" + bytes(112), key.public_key)
    batches = [
        DatagramBatch(bytearray(junk), len(junk), Endpoint("203.0.113.1", 1000 + number), local=at)
        for number in range(UNDER_LOAD_QUEUE + 1)
    ]
    host.engine.receive_batches(batches, pair.network.now)
    host.engine.datagrams_to_send()
    while host.engine.statistics().handshake_queue:
        host.engine.handle_timer(pair.network.now)
        host.engine.datagrams_to_send()
    assert host.engine.statistics().is_under_load


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture
def forger(pair: Pair) -> Initiator:
    return Initiator(pair.a_key, pair.b_key.public_key, pair.network.random.randbytes)


@pytest.mark.parametrize(("source", "target"), [(A4, B4), (A6, B6)], ids=["IPv4", "IPv6"])
def test_b6_under_load_an_initiation_without_mac2_gets_a_cookie_reply(
    pair: Pair, forger: Initiator, source: Endpoint, target: Endpoint
) -> None:
    put_under_load(pair)
    before = pair.b.engine.statistics()
    message = forger.initiation(pair.network.wall_clock())
    pair.network.inject(message, source, target)
    (reply,) = pair.network.sent_by(pair.b)
    assert (reply.kind, len(reply.octets)) == (3, 64)
    assert (reply.source, reply.target) == (target, source)
    assert reply.octets[4:8] == message[4:8], "the receiver index is the sender index of the initiation"
    after = pair.b.engine.statistics()
    assert after.peers == before.peers
    assert after.sessions == before.sessions


def test_b6_a_wrong_mac2_gets_a_cookie_reply(pair: Pair, forger: Initiator) -> None:
    put_under_load(pair)
    forger.cookie = bytes(range(16))
    pair.network.inject(forger.initiation(pair.network.wall_clock()), A4, B4)
    assert [one.kind for one in pair.network.sent_by(pair.b)] == [3]


def test_b6_a_response_under_load_gets_a_cookie_reply_too(pair: Pair) -> None:
    pair.network.drop = lambda datagram: datagram.kind == 2
    pair.a.send(packet())
    pair.network.run(0.1)
    response = pair.network.sent_by(pair.b, 2)[0].octets
    put_under_load(pair, A4)
    pair.network.inject(response, B4, A4)
    assert [one.kind for one in pair.network.sent_by(pair.a)] == [1, 3]
    assert not pair.a.engine.statistics().peers[pair.b_key.public_key].has_session


def with_cookie(pair: Pair, forger: Initiator, source: Endpoint = A4) -> None:
    """Let the forger get a cookie for its address."""
    message = forger.initiation(pair.network.wall_clock())
    pair.network.inject(message, source, B4)
    reply = pair.network.sent_by(pair.b, 3)[-1].octets
    forger.cookie = cookie_of(reply, forger.responder, message[-32:-16])


def test_b7_a_cookie_from_the_right_source_completes_the_handshake(pair: Pair, forger: Initiator) -> None:
    put_under_load(pair)
    with_cookie(pair, forger)
    pair.network.inject(forger.initiation(pair.network.wall_clock() + 1), A4, B4)
    assert len(pair.network.sent_by(pair.b, 2)) == 1


@pytest.mark.parametrize("source", [OTHER_PORT, OTHER_HOST], ids=["port", "host"])
def test_b7_a_cookie_from_another_source_gets_a_new_cookie(pair: Pair, forger: Initiator, source: Endpoint) -> None:
    put_under_load(pair)
    with_cookie(pair, forger)
    pair.network.inject(forger.initiation(pair.network.wall_clock() + 1), source, B4)
    assert not pair.network.sent_by(pair.b, 2)
    assert len(pair.network.sent_by(pair.b, 3)) == 2


def test_b7_a_cookie_dies_with_its_secret_after_120_s(pair: Pair, forger: Initiator) -> None:
    put_under_load(pair)
    with_cookie(pair, forger)
    pair.network.run(119)
    put_under_load(pair)
    pair.network.inject(forger.initiation(pair.network.wall_clock() + 1), A4, B4)
    assert len(pair.network.sent_by(pair.b, 2)) == 1
    pair.network.run(2)
    put_under_load(pair)
    pair.network.inject(forger.initiation(pair.network.wall_clock() + 2), A4, B4)
    assert len(pair.network.sent_by(pair.b, 2)) == 1
    assert len(pair.network.sent_by(pair.b, 3)) == 2


def test_b7_a_sender_uses_a_cookie_for_115_s(pair: Pair) -> None:
    put_under_load(pair)
    pair.a.send(packet())
    assert pair.network.run_until(lambda: bool(pair.network.sent_by(pair.b, 3)))
    pair.network.run(pair.network.delay)
    received = pair.network.now
    pair.network.drop = lambda datagram: True
    for _ in range(140):
        pair.network.run(1)
        pair.a.send(packet())
    initiations = pair.network.sent_by(pair.a, 1)[1:]
    assert initiations[-1].time > received + 120
    for one in initiations:
        assert (one.octets[-16:] != bytes(16)) == (one.time < received + 115), one.time - received


def test_b8_misused_cookie_replies_change_nothing(pair: Pair) -> None:
    put_under_load(pair)
    pair.network.drop = lambda datagram: datagram.kind == 3
    pair.a.send(packet())
    pair.network.run(0.1)
    (reply,) = pair.network.sent_by(pair.b, 3)
    before = pair.a.engine.statistics().peers
    deadline = pair.a.engine.next_deadline()
    stranger = Endpoint("198.51.100.9", 9999)
    damaged = [bytearray(reply.octets) for _ in range(4)]
    for position, bad in zip((9, 33, 50, 63), damaged, strict=True):
        bad[position] ^= 1
    unknown = bytearray(reply.octets)
    unknown[4] ^= 1
    for octets in [*damaged, unknown]:
        pair.network.inject(bytes(octets), stranger, A4)
    changed = pair.a.engine.statistics().peers
    key = pair.b_key.public_key
    assert changed[key].endpoint == before[key].endpoint
    assert changed[key].rx_bytes == before[key].rx_bytes
    assert pair.a.engine.next_deadline() == deadline
    pair.network.inject(reply.octets, B4, A4)
    assert len(pair.network.sent_by(pair.a, 1)) == 1, "a good cookie reply makes nobody hurry"
    assert pair.a.engine.next_deadline() == deadline
    pair.network.inject(reply.octets, B4, A4)
    assert pair.a.engine.statistics().drops[DropReason.COOKIE_UNEXPECTED] >= 2
    pair.network.run(5.4)
    first, second = pair.network.sent_by(pair.a, 1)
    assert first.octets[-16:] == bytes(16)
    assert second.octets[-16:] != bytes(16)
    assert second.time - first.time >= 5


def test_b8_a_cookie_reply_for_an_earlier_initiation_is_ignored(pair: Pair) -> None:
    put_under_load(pair)
    pair.network.drop = lambda datagram: datagram.kind in (2, 3)
    pair.a.send(packet())
    pair.network.run(5.4)
    pair.network.inject(pair.network.sent_by(pair.b, 3)[0].octets, B4, A4)
    pair.network.run(5.4)
    assert pair.network.sent_by(pair.a, 1)[-1].octets[-16:] == bytes(16)


def test_b72_one_source_cannot_use_up_the_tokens_of_another(pair: Pair) -> None:
    put_under_load(pair)
    flooder = Initiator(PrivateKey.generate(), pair.b_key.public_key, pair.network.random.randbytes)
    with_cookie(pair, flooder, OTHER_HOST)
    for _ in range(50):
        pair.network.inject(flooder.initiation(pair.network.wall_clock()), OTHER_HOST, B4)
    assert pair.b.engine.statistics().drops[DropReason.RATE_LIMITED] > 40
    pair.shake_hands()
    assert pair.exchange()
