"""B62: what is said about a packet that can go nowhere, and when nothing may be said; read by scapy."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.strategies import ICMP, ICMPV6, UDP, PacketShape, packet_shapes
from wgpy.wire import ip
from wgpy.wire.icmp import host_unreachable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import ICMP as ScapyICMP
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6

PLAIN = PacketShape(protocol=UDP, payload=b"hello")


def test_ipv4_host_unreachable_from_the_address_that_cannot_be_reached() -> None:
    packet = PLAIN.build()
    answer = IP(host_unreachable(packet))
    assert (answer.src, answer.dst) == ("10.0.0.2", "10.0.0.1")
    assert (answer[ScapyICMP].type, answer[ScapyICMP].code) == (3, 1)
    assert bytes(answer[ScapyICMP].payload) == packet[:28], "RFC 792: the header and 64 bits"
    assert recomputed(answer) == bytes(answer)


def test_ipv6_address_unreachable() -> None:
    packet = PLAIN.six().but(payload=bytes(1400)).build()
    octets = host_unreachable(packet)
    answer = IPv6(octets)
    assert (answer.src, answer.dst) == ("fd00::a00:2", "fd00::a00:1")
    assert (answer[ICMPv6DestUnreach].type, answer[ICMPv6DestUnreach].code) == (1, 3)
    assert octets[48:] == packet[: 1280 - 48], "RFC 4443 2.4: as much as fits into the minimum MTU"
    assert recomputed(answer) == octets


def recomputed(answer: IP | IPv6) -> bytes:
    layer = answer.copy()
    for name in ("len", "chksum", "plen"):
        if name in layer.fields:
            delattr(layer, name)
    inner = layer.getlayer(ScapyICMP) or layer.getlayer(ICMPv6DestUnreach)
    for name in ("chksum", "cksum"):
        if name in inner.fields:
            delattr(inner, name)
    return bytes(layer)


def icmp(kind: int) -> PacketShape:
    return PLAIN.but(protocol=ICMP, payload=bytes([kind]) + bytes(15))


def icmpv6(kind: int) -> PacketShape:
    return PLAIN.six().but(protocol=ICMPV6, payload=bytes([kind]) + bytes(15))


def six(address: str) -> bytes:
    import ipaddress

    return ipaddress.IPv6Address(address).packed


UNANSWERED = {
    "to multicast": PLAIN.but(target=b"\xe0\0\0\1"),
    "to broadcast": PLAIN.but(target=b"\xff\xff\xff\xff"),
    "from multicast": PLAIN.but(source=b"\xe0\0\0\1"),
    "from nowhere": PLAIN.but(source=bytes(4)),
    "from loopback": PLAIN.but(source=b"\x7f\0\0\1"),
    "later fragment": PLAIN.but(fragment=0x2001),
    "an error": icmp(3),
    "time exceeded": icmp(11),
    "no transport": PLAIN.but(protocol=ICMP, payload=b""),
    "to multicast, IPv6": PLAIN.six().but(target=six("ff02::1")),
    "from multicast, IPv6": PLAIN.six().but(source=six("ff02::1")),
    "from nowhere, IPv6": PLAIN.six().but(source=bytes(16)),
    "an error, IPv6": icmpv6(1),
    "packet too big": icmpv6(2),
    "no transport, IPv6": PLAIN.six().but(protocol=ICMPV6, payload=b""),
    "later fragment, IPv6": PLAIN.six().but(protocol=44, payload=bytes([17, 0, 0, 8]) + bytes(12)),
    "an error behind options": PLAIN.six().but(protocol=0, payload=bytes([58, 0]) + bytes(6) + b"\1" + bytes(7)),
}


@pytest.mark.parametrize("shape", UNANSWERED.values(), ids=UNANSWERED)
def test_no_error_about(shape: PacketShape) -> None:
    """RFC 1122 3.2.2, RFC 4443 2.4."""
    assert host_unreachable(shape.build()) is None


ANSWERED = {
    "echo": icmp(8),
    "echo, IPv6": icmpv6(128),
    "first fragment": PLAIN.but(fragment=0x2000),
    "first fragment, IPv6": PLAIN.six().but(protocol=44, payload=bytes([17, 0, 0, 1]) + bytes(12)),
    "behind options": PLAIN.six().but(protocol=0, payload=bytes([17, 0]) + bytes(14)),
}


@pytest.mark.parametrize("shape", ANSWERED.values(), ids=ANSWERED)
def test_an_error_about(shape: PacketShape) -> None:
    assert host_unreachable(shape.build()) is not None


@given(st.binary(max_size=120) | packet_shapes.map(PacketShape.build))
def test_any_octets_give_a_whole_packet_or_nothing(octets: bytes) -> None:
    answer = host_unreachable(octets)
    assert answer is None or ip.true_length_untrusted(answer) == len(answer)
    assert answer is None or len(answer) <= 1280
