"""B72: a flood of handshakes with right mac1 from random sources, and a tunnel that lives through it.

5,000 initiations a second of virtual time. Throughput under attack is a matter of measurement, not of these tests.
"""

from __future__ import annotations

import random

import pytest

from tests.behaviours.forge import Initiator, with_macs
from wgpy.config import Endpoint
from wgpy.constants import HANDSHAKE_QUEUE_SIZE, RATELIMIT_MAX_SOURCES
from wgpy.errors import DropReason
from wgpy.keys import PrivateKey
from wgpy.protocol.datagrams import DatagramBatch
from wgpy.testing.pair import B4, Pair, packet

PER_SECOND = 5000
# What one turn of the event loop finds when it comes late; on virtual time a Diffie-Hellman takes none.
TICK = 0.05


class Flood:
    """Somebody who knows our public key and the addresses of half the world."""

    def __init__(self, pair: Pair, seed: int = 72) -> None:
        self.pair = pair
        self.random = random.Random(seed)
        self.message = with_macs(b"\1\0\0\0" + self.random.randbytes(112), pair.b_key.public_key)

    def source(self) -> Endpoint:
        number = self.random.getrandbits(32)
        host = f"{1 + (number >> 24) % 223}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        return Endpoint(host, self.random.randint(1, 65535))

    def run(self, seconds: float) -> None:
        """Let time pass, with the flood in it."""
        pair, end = self.pair, self.pair.network.now + seconds
        while pair.network.now < end:
            batches = [
                DatagramBatch(bytearray(self.message), len(self.message), self.source(), local=B4)
                for _ in range(int(PER_SECOND * TICK))
            ]
            pair.b.engine.receive_batches(batches, pair.network.now)
            pair.network.flush(pair.b)
            pair.network.tap.clear()
            pair.network.run(TICK)


@pytest.fixture
def pair() -> Pair:
    made = Pair(b_knows_a=True)
    made.shake_hands()
    return made


def test_b72_an_established_tunnel_carries_its_packets_through_a_flood(pair: Pair) -> None:
    flood = Flood(pair)
    for number in range(20):
        payload = number.to_bytes(4)
        pair.a.send(packet(payload=payload))
        pair.b.send(packet("10.0.0.2", "10.0.0.1", payload))
        flood.run(0.1)
    assert [one[28:32] for one in pair.b.received] == [number.to_bytes(4) for number in range(20)]
    assert len(pair.a.received) == 20


def test_b72_an_established_peer_shakes_hands_again_by_cookie_and_mac2(pair: Pair) -> None:
    flood = Flood(pair)
    pair.network.run(121)  # old enough for a new session
    flood.run(1)
    assert pair.b.engine.statistics().is_under_load
    pair.a.received.clear()
    pair.b.received.clear()
    before = pair.a.engine.state().peers[0].last_handshake_time
    kinds: list[tuple[int, bool]] = []
    send = pair.network._send

    def watched(source: Endpoint, target: Endpoint, octets: bytes) -> None:
        if source in pair.a.endpoints and octets[0] == 1:
            kinds.append((octets[0], octets[-16:] != bytes(16)))
        send(source, target, octets)

    pair.network._send = watched  # type: ignore[method-assign]
    pair.a.send(packet())
    flood.run(6)
    assert kinds == [(1, False), (1, True)], "the second initiation shows the cookie"
    assert pair.a.engine.state().peers[0].last_handshake_time > before
    assert pair.b.received == [packet()], "and the old session carried on meanwhile"


def test_b72_memory_is_bounded(pair: Pair) -> None:
    flood = Flood(pair)
    before = pair.b.engine.statistics()
    flood.run(4)
    state = pair.b.engine.statistics()
    assert state.sessions == before.sessions, "no state before authentication (S12)"
    assert state.handshake_queue <= HANDSHAKE_QUEUE_SIZE
    assert state.drops[DropReason.INVALID_MAC2] > 1000
    assert len(pair.b.engine._door._limiter) == 0, "S7: who shows no cookie has no bucket"
    assert len(pair.b.engine._door._limiter) <= RATELIMIT_MAX_SOURCES
    assert not pair.b.engine.datagrams_to_send()
    pair.network.run(5)
    pair.b.engine.handle_timer(pair.network.now)
    assert not pair.b.engine.statistics().is_under_load
    assert pair.exchange()


def test_b72_one_call_works_off_a_bounded_number_of_handshakes(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """T23: whatever waits, transport gets its turn after a few milliseconds."""
    exchanges = []
    original = pair.b_key.secret.exchange
    monkeypatch.setattr(
        type(pair.b_key.secret), "exchange", lambda secret, public: exchanges.append(public) or original(public)
    )
    strangers = [
        Initiator(PrivateKey.generate(), pair.b_key.public_key, random.Random(n).randbytes) for n in range(100)
    ]
    messages = [stranger.initiation(pair.network.wall_clock()) for stranger in strangers]
    exchanges.clear()
    batches = [
        DatagramBatch(bytearray(message), 148, Endpoint("203.0.113.1", 1 + n)) for n, message in enumerate(messages)
    ]
    pair.b.engine.receive_batches(batches, pair.network.now)
    assert 0 < len(exchanges) <= 8
    deadline = pair.b.engine.next_deadline()
    assert deadline is not None
    assert deadline <= pair.network.now, "the rest is due at once"
