"""IP headers against scapy, and against bytes that nobody should send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.packet import Raw

from wgpy.errors import BadPacket, DropReason
from wgpy.wire import ip

A, B = ip.from_text("10.0.0.1"), ip.from_text("10.0.0.2")
A6, B6 = ip.from_text("fd00::1"), ip.from_text("fd00::2")

addresses = st.one_of(
    st.tuples(st.binary(min_size=4, max_size=4), st.binary(min_size=4, max_size=4)),
    st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16)),
)


@given(addresses, st.integers(1, 255), st.integers(0, 255), st.binary(max_size=100))
def test_decoding_inverts_encoding(ends: tuple[bytes, bytes], hop_limit: int, tos: int, payload: bytes) -> None:
    head = ip.encode_header(*ends, ip.UDP, len(payload), hop_limit=hop_limit, traffic_class=tos)
    header = ip.decode_untrusted(head + payload + bytes(7))
    assert (header.source, header.destination, header.protocol) == (*ends, ip.UDP)
    assert (header.hop_limit, header.traffic_class) == (hop_limit, tos)
    assert (header.payload_at, header.length, header.fragment) == (len(head), len(head) + len(payload), None)


def test_headers_are_those_of_scapy() -> None:
    expected = bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=17, flags="DF", id=5, tos=2, ttl=64) / Raw(b"hello"))
    assert ip.encode_header(A, B, 17, 5, identification=5, traffic_class=2) + b"hello" == expected
    expected = bytes(IPv6(src="fd00::1", dst="fd00::2", nh=17, tc=2, hlim=64) / Raw(b"hello"))
    assert ip.encode_header(A6, B6, 17, 5, traffic_class=2) + b"hello" == expected
    fragment = ip.Fragment(0x12345678, 1448, False)
    expected = bytes(
        IPv6(src="fd00::1", dst="fd00::2", hlim=64)
        / IPv6ExtHdrFragment(nh=17, id=0x12345678, offset=181, m=1)
        / Raw(b"12345678")
    )
    assert ip.encode_header(A6, B6, 17, 8, fragment=fragment) + b"12345678" == expected
    assert ip.decode_untrusted(expected).fragment == fragment


@given(st.binary(max_size=120), st.sampled_from([b"\x45", b"\x46", b"\x60", b""]))
def test_hostile_bytes_raise_only_bad_packet(octets: bytes, first: bytes) -> None:
    try:
        header = ip.decode_untrusted(first + octets)
    except BadPacket:
        return
    assert header.payload_at <= header.length <= len(first + octets)


@given(st.binary(min_size=8, max_size=80), st.sampled_from([0, 43, 44, 60]))
def test_hostile_extension_headers_raise_only_bad_packet(octets: bytes, first: int) -> None:
    packet = ip.encode_header(A6, B6, first, len(octets)) + octets
    try:
        header = ip.decode_untrusted(packet)
    except BadPacket:
        return
    assert header.payload_at <= header.length


def test_a_wrong_header_checksum_is_refused() -> None:
    packet = bytearray(ip.encode_header(A, B, 17, 0))
    packet[8] ^= 1
    with pytest.raises(BadPacket) as bad:
        ip.decode_untrusted(packet)
    assert bad.value.reason is DropReason.IP_HEADER


def test_a_fragment_that_ends_beyond_every_packet_is_refused() -> None:
    """The "ping of death"."""
    packet = bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=1, frag=8189) / Raw(bytes(1000)))
    with pytest.raises(BadPacket) as bad:
        ip.decode_untrusted(packet)
    assert bad.value.reason is DropReason.FRAGMENT_MALFORMED


# --- IPv6 extension headers ------------------------------------------------------------------------------------------


def v6(*headers: object) -> bytes:
    packet = IPv6(src="fd00::1", dst="fd00::2")
    for header in headers:
        packet = packet / header
    return bytes(packet)


UDP_HELLO = UDP(sport=1, dport=2) / Raw(b"hello")


def test_known_headers_are_passed_over() -> None:
    packet = v6(IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(segleft=0), UDP_HELLO)
    header = ip.decode_untrusted(packet)
    assert (header.protocol, header.problem) == (ip.UDP, None)
    assert packet[header.payload_at + 8 :] == b"hello"


def test_an_atomic_fragment_is_a_whole_packet() -> None:
    header = ip.decode_untrusted(v6(IPv6ExtHdrFragment(id=7), UDP_HELLO))
    assert (header.protocol, header.fragment) == (ip.UDP, None)


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        # RFC 8200 4.4: segments left, and no way to follow them.
        ([IPv6ExtHdrRouting(segleft=1, addresses=["fd00::9"])], ip.Problem(0, 42)),
        # RFC 8200 4.1: hop-by-hop only right after the header.
        ([IPv6ExtHdrDestOpt(), IPv6ExtHdrHopByHop()], ip.Problem(1, 40)),
        # RFC 8200 4.5: not a multiple of eight octets.
        ([IPv6ExtHdrFragment(m=1, offset=10), Raw(bytes(13))], ip.Problem(0, 4)),
        # RFC 8200 4.5: reassembled it would be longer than any packet.
        ([IPv6ExtHdrFragment(m=0, offset=8191), Raw(bytes(16))], ip.Problem(0, 42)),
        # RFC 7112: the first fragment must show the ports.
        ([IPv6ExtHdrFragment(nh=60, m=1), IPv6ExtHdrDestOpt(nh=17)], ip.Problem(3, 0)),
    ],
)
def test_what_must_be_answered_is_named(headers: list[object], problem: ip.Problem) -> None:
    tail = [] if any(isinstance(one, Raw | IPv6ExtHdrFragment) for one in headers) else [UDP_HELLO]
    assert ip.decode_untrusted(v6(*headers, *tail)).problem == problem


@pytest.mark.parametrize(
    ("kind", "problem"),
    [(0x1E, None), (0x5E, "drop"), (0x9E, ip.Problem(2, 42, True)), (0xDE, ip.Problem(2, 42, False))],
)
def test_the_highest_bits_of_an_unknown_option_say_what_to_do(kind: int, problem: object) -> None:
    extension = bytes([17, 0, kind, 4, 0, 0, 0, 0])
    packet = ip.encode_header(A6, B6, 60, 16) + extension + bytes(8)
    if problem == "drop":
        with pytest.raises(BadPacket) as bad:
            ip.decode_untrusted(packet)
        assert bad.value.reason is DropReason.EXTENSION_HEADER
    else:
        assert ip.decode_untrusted(packet).problem == problem


def test_no_next_header_holds_nothing_for_us() -> None:
    with pytest.raises(BadPacket) as bad:
        ip.decode_untrusted(ip.encode_header(A6, B6, 59, 4) + bytes(4))
    assert bad.value.reason is DropReason.UNKNOWN_PROTOCOL
