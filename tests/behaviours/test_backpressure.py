"""What the engine tells a sender that can wait: who would be refused, and who should hold back."""

from __future__ import annotations

import ipaddress

from wgpy.errors import DropReason
from wgpy.testing.network import Network
from wgpy.testing.pair import Pair, packet


def octets(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def test_a_destination_without_a_peer_or_an_endpoint_is_refused_by_name() -> None:
    pair = Pair()
    assert pair.a.engine.refusal(octets("10.0.0.2")) is None
    assert pair.a.engine.refusal(octets("10.9.9.9")) is DropReason.NO_PEER_FOR_DESTINATION
    assert pair.b.engine.refusal(octets("fd00::1")) is DropReason.NO_ENDPOINT
    pair.a.engine.set_up(False, pair.network.now)
    assert pair.a.engine.refusal(octets("10.0.0.2")) is DropReason.INTERFACE_DOWN


def test_only_the_first_packets_may_wait_for_a_session() -> None:
    pair = Pair()
    there = octets("10.0.0.2")
    assert pair.a.engine.may_send(there)
    pair.a.send(packet())
    assert not pair.a.engine.may_send(there)
    assert pair.a.engine.may_send(octets("10.9.9.9"))
    pair.network.run(1)
    assert pair.b.received == [packet()]
    assert pair.a.engine.may_send(there)


def test_when_the_handshake_is_given_up_the_next_packet_may_ask_again() -> None:
    pair = Pair(Network(loss=1.0))
    pair.a.send(packet())
    pair.network.run(120)
    assert pair.a.engine.may_send(octets("10.0.0.2"))
