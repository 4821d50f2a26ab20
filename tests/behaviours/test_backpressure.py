"""What the engine tells a sender that can wait: who would be refused, and who should hold back."""

from __future__ import annotations

import ipaddress

from wgpy.constants import REJECT_AFTER_TIME
from wgpy.errors import DropReason
from wgpy.protocol.events import HandshakeCompleted
from wgpy.testing.network import Host, Network
from wgpy.testing.pair import Pair


def octets(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def test_a_destination_without_a_peer_or_an_endpoint_is_refused_by_name() -> None:
    pair = Pair()
    assert pair.a.engine.refusal(octets("10.0.0.2")) is None
    assert pair.a.engine.refusal(octets("10.9.9.9")) is DropReason.NO_PEER_FOR_DESTINATION
    assert pair.b.engine.refusal(octets("fd00::1")) is DropReason.NO_ENDPOINT
    pair.a.engine.set_up(False, pair.network.now)
    assert pair.a.engine.refusal(octets("10.0.0.2")) is DropReason.INTERFACE_DOWN


def may_send(pair: Pair, host: Host, destination: str) -> bool:
    answer = host.engine.may_send(octets(destination), pair.network.now)
    pair.network.flush(host)
    return answer


def test_who_asks_without_a_session_starts_one_handshake() -> None:
    pair = Pair()
    for _ in range(3):
        assert not may_send(pair, pair.a, "10.0.0.2")
    assert may_send(pair, pair.a, "10.9.9.9"), "it would be refused, and need not wait for that"
    assert len(pair.network.sent_by(pair.a, 1)) == 1
    pair.network.run(1)
    assert [type(event) for event in pair.a.events] == [HandshakeCompleted]
    assert may_send(pair, pair.a, "10.0.0.2")
    assert may_send(pair, pair.b, "10.0.0.1"), "the empty keepalive has confirmed the session"
    assert pair.a.received == pair.b.received == []


def test_when_the_session_is_too_old_nothing_leaves_before_the_next_one() -> None:
    pair = Pair()
    pair.shake_hands()
    assert may_send(pair, pair.a, "10.0.0.2")
    pair.network.now += REJECT_AFTER_TIME
    assert not may_send(pair, pair.a, "10.0.0.2")
    pair.network.run(1)
    assert may_send(pair, pair.a, "10.0.0.2")


def test_a_handshake_that_was_given_up_is_tried_again_when_somebody_asks() -> None:
    pair = Pair(Network(loss=1.0))
    assert not may_send(pair, pair.a, "10.0.0.2")
    pair.network.run(120)
    tried = len(pair.network.sent_by(pair.a, 1))
    assert not may_send(pair, pair.a, "10.0.0.2")
    assert len(pair.network.sent_by(pair.a, 1)) == tried + 1
