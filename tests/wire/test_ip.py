"""Addresses, lengths and traffic classes as scapy writes them; B26, S17. And the shared strategies, judged by scapy."""

from __future__ import annotations

import ipaddress
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.strategies import TCP, UDP, PacketShape, packet_shapes
from wgpy.wire import ip

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP
    from scapy.layers.inet import TCP as ScapyTCP
    from scapy.layers.inet import UDP as ScapyUDP
    from scapy.layers.inet6 import IPv6


def parsed(packet: bytes) -> IP | IPv6:
    return IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)


@given(packet_shapes)
def test_scapy_reads_the_same(shape: PacketShape) -> None:
    packet = shape.build()
    layer = parsed(packet)
    assert ipaddress.ip_address(ip.source(packet)) == ipaddress.ip_address(layer.src)
    assert ipaddress.ip_address(ip.destination(packet)) == ipaddress.ip_address(layer.dst)
    assert ip.traffic_class(packet) == (layer.tos if shape.version == 4 else layer.tc)
    length = layer.len if shape.version == 4 else layer.plen + 40
    assert ip.true_length_untrusted(packet) == length == len(packet)


@given(packet_shapes)
def test_the_strategies_make_packets_as_scapy_does(shape: PacketShape) -> None:
    """Lengths and checksums, computed anew by scapy from the other fields."""
    packet = shape.build()
    layer = parsed(packet)
    names = {"len", "chksum", "plen"}
    for kind in (type(layer), ScapyTCP, ScapyUDP):
        if kind in layer:
            for name in names & set(layer[kind].fields):
                delattr(layer[kind], name)
    again = bytes(layer)
    # RFC 768: a computed zero is sent as all ones; scapy does that too.
    assert again == packet
    assert shape.protocol not in (TCP, UDP) or len(packet) == shape.header_length + len(shape.payload)


@given(packet_shapes, st.integers(0, 100))
def test_padding_is_not_part_of_the_packet(shape: PacketShape, padding: int) -> None:
    packet = shape.build()
    assert ip.true_length_untrusted(packet + bytes(padding)) == len(packet)
    assert ip.true_length_untrusted(memoryview(packet)[:-1]) == 0


@given(st.binary(max_size=80))
def test_b26_any_octets_give_a_length_that_fits_or_none(octets: bytes) -> None:
    length = ip.true_length_untrusted(octets)
    assert length == 0 or 20 <= length <= len(octets)
    assert length == 0 or octets[0] >> 4 in (4, 6)
    assert length == 0 or octets[0] >> 4 == 4 or length >= 40


@pytest.mark.parametrize("payload_length", [0xFFD8, 0xFFE0, 0xFFFF])
def test_s17_a_payload_length_does_not_wrap_at_16_bits(payload_length: int) -> None:
    header = b"\x60\0\0\0" + payload_length.to_bytes(2) + bytes(34)
    assert ip.true_length_untrusted(header + bytes(65000)) == 0
