"""Realms of the engine: one key, one port, networks with the same addresses, and nothing that crosses."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from wgpy.config import Endpoint, InterfaceConfig, PeerConfig
from wgpy.constants import REKEY_TIMEOUT
from wgpy.dataplane.slab import Slab
from wgpy.errors import ConfigError, DropReason, LocalProtocolError
from wgpy.keys import PrivateKey
from wgpy.protocol.engine import Engine
from wgpy.protocol.events import EndpointChanged, Event, HandshakeCompleted, InitiationReceived
from wgpy.protocol.realm import Realm
from wgpy.testing.pair import packet

HUB_KEY, HUB_AT = PrivateKey(b"\x11" * 32), Endpoint("192.0.2.1", 51820)
HUB, EDGE, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"


@dataclass
class Edge:
    """A peer of the hub, with the address that every edge has."""

    number: int
    key: PrivateKey = field(init=False)
    at: Endpoint = field(init=False)
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.key = PrivateKey(bytes([self.number]) * 32)
        self.at = Endpoint("198.51.100.1", 1000 + self.number)
        hub = PeerConfig(HUB_KEY.public_key, allowed_ips=[f"{HUB}/32"], endpoint=HUB_AT)
        self.engine = engine_of(self.key, self.number, hub)

    @property
    def config(self) -> PeerConfig:
        return PeerConfig(self.key.public_key, allowed_ips=[f"{EDGE}/32"])


def engine_of(key: PrivateKey, seed: int, *peers: PeerConfig) -> Engine:
    return Engine(InterfaceConfig(key, peers=peers), random=random.Random(seed).randbytes, wall_clock=lambda: 1e9)


def exchange(hub: Engine, edge: Edge, now: float) -> None:
    """Carry what both have to say until neither has more; what is for others is lost."""
    for _ in range(4):
        for batch in edge.engine.datagrams_to_send():
            hub.receive_datagrams(batch.arriving_from(edge.at), now)
        for batch in hub.datagrams_to_send():
            if batch.remote == edge.at:
                edge.engine.receive_datagrams(batch.arriving_from(HUB_AT), now)


def received(engine: Engine, realm: Realm | None = None) -> list[bytes]:
    return [bytes(row)[: len(packet())] for slab in engine.packets_to_deliver(realm) for row in slab]


def joined() -> tuple[Engine, list[Edge], list[Realm]]:
    """A hub and two edges with the same address in two realms, sessions up."""
    hub, edges, realms = engine_of(HUB_KEY, 0), [Edge(1), Edge(2)], [Realm(), Realm()]
    for edge, realm in zip(edges, realms, strict=True):
        hub.add_peer(edge.config, 0.0, realm)
        edge.engine.send_packet(packet(EDGE, HUB), 0.0)
        exchange(hub, edge, 0.0)
    return hub, edges, realms


def test_equal_addresses_in_two_realms_are_two_peers_both_ways() -> None:
    hub, edges, realms = joined()
    assert hub.realms_to_deliver() == realms
    assert hub.realms_to_deliver() == [], "handed out once"
    assert received(hub) == [], "nothing for the interface's own door"
    assert [received(hub, realm) for realm in realms] == [[packet(EDGE, HUB)], [packet(EDGE, HUB)]]
    for edge, realm in zip(edges, realms, strict=True):
        payload = b"for %d" % edge.number
        hub.send_slabs([Slab.of_packet(packet(HUB, EDGE, payload), 1420)], 0.1, realm)
        [batch] = hub.datagrams_to_send()
        assert batch.remote == edge.at
        edge.engine.receive_datagrams(batch.arriving_from(HUB_AT), 0.1)
        [slab] = edge.engine.packets_to_deliver()
        assert payload in bytes(next(iter(slab)))


def test_a_source_that_belongs_to_another_peer_or_to_nobody_is_dropped() -> None:
    """A59: neither an address of the same realm nor of another one may be borrowed."""
    hub, edges, realms = joined()
    [received(hub, realm) for realm in realms]
    third = Edge(3)
    hub.add_peer(PeerConfig(third.key.public_key, allowed_ips=[f"{OTHER}/32"]), 0.1, realms[0])
    for source in (OTHER, HUB, "10.9.9.9"):
        edges[0].engine.send_packet(packet(source, HUB), 0.2)
    exchange(hub, edges[0], 0.2)
    assert hub.realms_to_deliver() == realms, "of the first packets"
    assert [received(hub, realm) for realm in realms] == [[], []]
    assert hub.statistics().drops[DropReason.DISALLOWED_SOURCE] == 3


def test_a_realm_does_not_lead_to_the_addresses_of_another() -> None:
    hub, _, realms = joined()
    assert hub.refusal(bytes([10, 0, 0, 2]), realms[1]) is None
    assert hub.refusal(bytes([10, 0, 0, 2]), Realm()) is DropReason.NO_PEER_FOR_DESTINATION
    assert hub.refusal(bytes([10, 0, 0, 2])) is DropReason.NO_PEER_FOR_DESTINATION
    assert hub.may_send(bytes([10, 0, 0, 2]), 0.1, realms[0])


def test_a_key_is_in_one_realm_only_and_is_updated_there() -> None:
    hub, [edge, _], realms = joined()
    with pytest.raises(LocalProtocolError, match="already"):
        hub.add_peer(edge.config, 0.1, realms[1])
    hub.update_peer(PeerConfig(edge.key.public_key, allowed_ips=[f"{OTHER}/32"]), 0.1)
    assert hub.refusal(bytes([10, 0, 0, 3]), realms[0]) is None
    assert hub.refusal(bytes([10, 0, 0, 2]), realms[0]) is DropReason.NO_PEER_FOR_DESTINATION
    assert hub.refusal(bytes([10, 0, 0, 2]), realms[1]) is None


def test_a_realm_goes_with_its_peers_and_the_others_stay() -> None:
    hub, edges, realms = joined()
    hub.remove_realm(realms[0], 0.1)
    assert list(hub.statistics().peers) == [edges[1].key.public_key]
    assert hub.realms_to_deliver() == [realms[1]]
    assert hub.realm_of(edges[0].key.public_key) is None
    assert hub.realm_of(edges[1].key.public_key) is realms[1]


def test_events_tell_an_initiation_from_a_confirmed_key() -> None:
    hub, edge = engine_of(HUB_KEY, 0), Edge(1)
    hub.add_peer(edge.config, 0.0, Realm())
    edge.engine.send_packet(packet(EDGE, HUB), 0.0)
    [initiation] = edge.engine.datagrams_to_send()
    hub.receive_datagrams(initiation.arriving_from(edge.at), 0.0)
    seen: list[Event] = [
        EndpointChanged(edge.key.public_key, edge.at),
        InitiationReceived(edge.key.public_key, edge.at),
    ]
    assert hub.events() == seen
    [response] = hub.datagrams_to_send()
    edge.engine.receive_datagrams(response.arriving_from(HUB_AT), 0.0)
    exchange(hub, edge, 0.0)
    assert hub.events() == [HandshakeCompleted(edge.key.public_key, edge.at, is_initiator=False)]


def test_a_handshake_is_started_on_demand_once_per_rekey_timeout() -> None:
    hub, [edge, _], _ = joined()
    edge.engine.start_handshake(HUB_KEY.public_key, 1.0)
    assert edge.engine.datagrams_to_send() == [], "one left less than REKEY_TIMEOUT ago"
    now = REKEY_TIMEOUT + 1.0
    hub.start_handshake(edge.key.public_key, now)
    assert [batch.length for batch in hub.datagrams_to_send()] == [148], "from the hub, to where the edge was"
    edge.engine.start_handshake(HUB_KEY.public_key, now)
    hub.events()
    exchange(hub, edge, now)
    assert HandshakeCompleted(edge.key.public_key, edge.at, is_initiator=False) in hub.events()
    with pytest.raises(LocalProtocolError, match="no peer"):
        hub.start_handshake(PrivateKey(b"\x77" * 32).public_key, now)


def test_another_place_of_a_peer_is_tried_at_once() -> None:
    _, [edge, _], _ = joined()
    elsewhere = Endpoint("2001:db8::1", 51820)
    edge.engine.start_handshake(HUB_KEY.public_key, 1.0, at=elsewhere)
    [initiation] = edge.engine.datagrams_to_send()
    assert (initiation.remote, initiation.length) == (elsewhere, 148)
    edge.engine.start_handshake(HUB_KEY.public_key, 1.5, at=elsewhere)
    assert edge.engine.datagrams_to_send() == [], "the same place waits for REKEY_TIMEOUT"
    edge.engine.start_handshake(HUB_KEY.public_key, 1.5, at=HUB_AT)
    assert [batch.remote for batch in edge.engine.datagrams_to_send()] == [HUB_AT]
    with pytest.raises(ConfigError, match="resolve it first"):
        edge.engine.start_handshake(HUB_KEY.public_key, 2.0, at=Endpoint("hub.example", 51820))


def test_one_peer_is_looked_at_alone() -> None:
    hub, [edge, _], _ = joined()
    statistics = hub.peer_statistics(edge.key.public_key, 7.0)
    assert statistics.silent_for == pytest.approx(7.0)
    assert statistics.endpoint == edge.at
    assert statistics.rx_bytes > 0
