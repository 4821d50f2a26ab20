"""How far a datagram inside a datagram may go."""

from __future__ import annotations

import pytest

from tests.property.strategies import TCP, UDP, PacketShape
from wgpy.constants import NESTED_HOPS
from wgpy.dataplane.nesting import NO_HOPS_LEFT, hop_limit_of_nested
from wgpy.dataplane.slab import Slab

DATA = b"\4\0\0\0" + bytes(28)
FAMILIES = pytest.mark.parametrize("version", [4, 6])


def hops(shape: PacketShape, version: int) -> int:
    return hop_limit_of_nested(Slab.of_packet((shape if version == 4 else shape.six()).build(), 1420))


@FAMILIES
@pytest.mark.parametrize(
    ("ttl", "expected"),
    [
        (255, 255 - NESTED_HOPS),
        (64, 64 - NESTED_HOPS),
        (NESTED_HOPS + 1, 1),
        (NESTED_HOPS, NO_HOPS_LEFT),
        (1, NO_HOPS_LEFT),
    ],
)
def test_transport_data_hands_its_hop_limit_on(version: int, ttl: int, expected: int) -> None:
    assert hops(PacketShape(protocol=UDP, payload=DATA, ttl=ttl), version) == expected


@FAMILIES
@pytest.mark.parametrize(
    "shape",
    [
        PacketShape(protocol=UDP, payload=b"\4\0\0\1" + bytes(28), ttl=1),
        PacketShape(protocol=UDP, payload=b"\1\0\0\0" + bytes(144), ttl=1),
        PacketShape(protocol=UDP, payload=DATA[:-1], ttl=1),
        PacketShape(protocol=UDP, payload=b"", ttl=1),
        PacketShape(protocol=TCP, payload=bytes(20) + DATA, ttl=1),
    ],
    ids=["reserved octets", "initiation", "too short", "empty", "TCP"],
)
def test_everything_else_leaves_as_the_system_likes_it(version: int, shape: PacketShape) -> None:
    assert hops(shape, version) == 0


def test_later_fragments_and_keepalives_say_nothing() -> None:
    assert hops(PacketShape(protocol=UDP, payload=DATA, ttl=1, fragment=0x2000), 4) == NO_HOPS_LEFT
    assert hops(PacketShape(protocol=UDP, payload=DATA, ttl=1, fragment=0x0010), 4) == 0
    assert hops(PacketShape(protocol=UDP, payload=DATA, ttl=1, fragment=0x0100), 4) == 0
    assert hop_limit_of_nested(Slab.of_packet(b"", 1420)) == 0


@pytest.mark.parametrize(("place", "expected"), [(0x0001, NO_HOPS_LEFT), (0x0008, 0), (0x0100, 0)])
def test_of_an_ipv6_packet_in_fragments_the_first_one_tells(place: int, expected: int) -> None:
    whole = PacketShape(protocol=UDP, payload=DATA, ttl=1).six().build()
    fragment = bytes([UDP, 0]) + place.to_bytes(2) + bytes(4)
    length = len(whole) - 40 + len(fragment)
    octets = whole[:4] + length.to_bytes(2) + bytes([44]) + whole[7:40] + fragment + whole[40:]
    assert hop_limit_of_nested(Slab.of_packet(octets, 1420)) == expected
