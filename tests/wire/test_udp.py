"""The UDP header against scapy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from wgpy.errors import BadPacket, DropReason
from wgpy.wire import ip, udp

A, B = ip.from_text("10.0.0.1"), ip.from_text("10.0.0.2")
A6, B6 = ip.from_text("fd00::1"), ip.from_text("fd00::2")


@pytest.mark.parametrize("payload", [b"", b"x", b"hello", bytes(1400), b"\xff" * 1401])
def test_datagrams_are_those_of_scapy(payload: bytes) -> None:
    inner = UDP(sport=1000, dport=53) / Raw(payload)
    expected = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / inner)[20:]
    assert udp.encode(A, B, 1000, 53, payload) == expected
    expected = bytes(IPv6(src="fd00::1", dst="fd00::2") / inner)[40:]
    assert udp.encode(A6, B6, 1000, 53, payload) == expected


@given(st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=200), st.sampled_from([(A, B), (A6, B6)]))
def test_decoding_inverts_encoding(source: int, target: int, payload: bytes, ends: tuple[bytes, bytes]) -> None:
    datagram = udp.encode(*ends, source, target, payload)
    header = udp.decode_untrusted(datagram + bytes(5), *ends)
    assert header == (source, target, 8 + len(payload))
    assert datagram[6:8] != bytes(2), "zero means that there is no checksum"


def test_a_checksum_that_comes_out_as_zero_is_sent_as_all_ones() -> None:
    payload = next(
        payload
        for payload in (number.to_bytes(2) for number in range(65536))
        if udp.encode(A, B, 7, 7, payload)[6:8] == b"\xff\xff"
    )
    assert udp.decode_untrusted(udp.encode(A, B, 7, 7, payload), A, B).length == 10


@given(st.binary(max_size=40))
def test_hostile_bytes_raise_only_bad_packet(octets: bytes) -> None:
    try:
        header = udp.decode_untrusted(octets, A6, B6)
    except BadPacket:
        return
    assert 8 <= header.length <= len(octets)


def test_every_flipped_bit_is_noticed() -> None:
    datagram = udp.encode(A6, B6, 1000, 53, b"hello, world")
    for bit in range(len(datagram) * 8):
        damaged = bytearray(datagram)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadPacket):
            udp.decode_untrusted(damaged, A6, B6)


def test_no_checksum_is_allowed_over_ipv4_only() -> None:
    datagram = bytearray(udp.encode(A, B, 1, 2, b"hello"))
    datagram[6:8] = bytes(2)
    assert udp.decode_untrusted(datagram, A, B).length == 13
    with pytest.raises(BadPacket) as bad:
        udp.decode_untrusted(datagram, A6, B6)
    assert bad.value.reason is DropReason.TRANSPORT_CHECKSUM
