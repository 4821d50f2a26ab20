"""ICMP messages against scapy, and which errors may be sent."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ParamProblem, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Raw

from wgpy.errors import BadPacket
from wgpy.wire import icmp, ip
from wgpy.wire.icmp import IcmpMessage

A, B = ip.from_text("10.0.0.1"), ip.from_text("10.0.0.2")
A6, B6 = ip.from_text("fd00::1"), ip.from_text("fd00::2")
V4, V6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
PORTS = UDP(sport=1, dport=2)


def test_echo_is_that_of_scapy() -> None:
    rest = 7 << 16 | 9
    expected = bytes(V4 / ICMP(type=8, id=7, seq=9) / Raw(b"hello"))[20:]
    assert icmp.encode(A, B, IcmpMessage(8, 0, rest, b"hello")) == expected
    expected = bytes(V6 / ICMPv6EchoRequest(id=7, seq=9, data=b"hello"))[40:]
    assert icmp.encode(A6, B6, IcmpMessage(128, 0, rest, b"hello")) == expected


@given(
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=99),
    st.sampled_from([(A, B), (A6, B6)]),
)
def test_decoding_inverts_encoding(kind: int, code: int, rest: int, body: bytes, ends: tuple[bytes, bytes]) -> None:
    message = IcmpMessage(kind, code, rest, body)
    octets = icmp.encode(*ends, message)
    assert icmp.decode_untrusted(octets, *ends) == message
    with pytest.raises(BadPacket):
        icmp.decode_untrusted(octets[:-1] + bytes([octets[-1] ^ 1]), *ends)


@given(st.binary(max_size=60))
def test_hostile_bytes_raise_only_bad_packet(octets: bytes) -> None:
    with contextlib.suppress(BadPacket):
        icmp.decode_untrusted(octets, A, B)


@given(st.binary(max_size=80), st.sampled_from([b"\x45\0\0\x30", b"\x60\0\0\0\0\x10", b""]))
def test_an_error_about_hostile_bytes_is_a_packet_or_nothing(octets: bytes, first: bytes) -> None:
    answer = icmp.host_unreachable(first + octets)
    assert answer is None or ip.decode_untrusted(answer).length == len(answer)


def test_errors_are_those_of_scapy() -> None:
    packet = bytes(V4 / PORTS / Raw(bytes(100)))
    answer = IP(icmp.error(packet, 3, 3))
    assert (answer.src, answer.dst, answer[ICMP].type, answer[ICMP].code) == ("10.0.0.2", "10.0.0.1", 3, 3)
    assert bytes(answer[ICMP].payload) == packet[:28]
    packet = bytes(V6 / PORTS / Raw(bytes(1400)))
    octets = icmp.error(packet, 4, 1, 40)
    assert octets is not None
    assert len(octets) == 1280
    problem = IPv6(octets)[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr, bytes(problem.payload)) == (1, 40, packet[: 1280 - 48])


@pytest.mark.parametrize(
    "packet",
    [
        V4 / ICMP(type=3),
        V4 / ICMP(type=11),
        IP(src="10.0.0.1", dst="224.0.0.1") / PORTS,
        IP(src="10.0.0.1", dst="255.255.255.255") / PORTS,
        IP(src="0.0.0.0", dst="10.0.0.2") / PORTS,
        IP(src="127.0.0.1", dst="10.0.0.2") / PORTS,
        IP(src="224.0.0.1", dst="10.0.0.2") / PORTS,
        IP(src="10.0.0.1", dst="10.0.0.2", frag=100) / Raw(bytes(8)),
        V6 / ICMPv6ParamProblem(),
        V6 / IPv6ExtHdrDestOpt() / ICMPv6ParamProblem(),
        V6 / IPv6ExtHdrFragment(offset=100) / Raw(bytes(8)),
        IPv6(src="fd00::1", dst="ff02::1") / PORTS,
        IPv6(src="::", dst="fd00::2") / PORTS,
        IPv6(src="ff02::1", dst="fd00::2") / PORTS,
    ],
    ids=lambda packet: packet.summary(),
)
def test_no_error_about_errors_many_nobody_or_later_fragments(packet: IP) -> None:
    assert icmp.host_unreachable(bytes(packet)) is None


def test_some_errors_answer_even_a_packet_to_many() -> None:
    packet = bytes(IPv6(src="fd00::1", dst="ff02::1") / PORTS)
    assert icmp.error(packet, 4, 2, 42, source=B6) is None
    assert icmp.error(packet, 4, 2, 42, source=B6, even_to_multicast=True) is not None
