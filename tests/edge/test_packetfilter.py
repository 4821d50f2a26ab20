"""What the kernel may see of the hub in tun mode: the proxy's port, answers to what we began, and their ICMP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_RA, IPv6, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw

from edge_agent.packetfilter import PacketFilter

EDGE, HUB = "100.96.0.7", "100.96.0.1"
EDGE6, HUB6 = "fd00:96::7", "fd00:96::1"


@pytest.fixture
def rule() -> PacketFilter:
    rule = PacketFilter([EDGE, EDGE6], [HUB, HUB6], 7443)
    rule.opened(rule.tcp_ports)(40001)
    rule.opened(rule.udp_ports)(40002)
    return rule


def admits(rule: PacketFilter, packet: Packet) -> bool:
    return rule.admits(memoryview(bytes(packet)))


V4, V6 = IP(src=HUB, dst=EDGE), IPv6(src=HUB6, dst=EDGE6)
GOOD = {
    "a request of the hub": V4 / TCP(sport=50000, dport=7443, flags="S"),
    "the same by IPv6": V6 / TCP(sport=50000, dport=7443, flags="S"),
    "an answer on the control line": V4 / TCP(sport=7001, dport=40001, flags="SA"),
    "an answer to a heartbeat": V4 / UDP(sport=7000, dport=40002) / b"DH",
    "a ping": V4 / ICMP(type=8),
    "a ping by IPv6": V6 / ICMPv6EchoRequest(),
    "nobody listens": V4 / ICMP(type=3, code=3) / b"12345678",
}
BAD = {
    "another port": V4 / TCP(sport=50000, dport=8081, flags="S"),
    "another port by IPv6": V6 / TCP(sport=50000, dport=22, flags="S"),
    "a port from which nothing was sent": V4 / UDP(sport=7000, dport=53),
    "TCP to a port of UDP": V4 / TCP(sport=7001, dport=40002, flags="S"),
    "the cloud's metadata": IP(src=HUB, dst="169.254.169.254") / TCP(sport=50000, dport=7443, flags="S"),
    "another pod": IP(src=HUB, dst="10.244.0.9") / TCP(dport=7443, flags="S"),
    "somebody else's address": IP(src="100.96.0.9", dst=EDGE) / TCP(dport=7443, flags="S"),
    "families mixed": IPv6(src=HUB6, dst="::ffff:100.96.0.7") / TCP(dport=7443, flags="S"),
    "broadcast": IP(src=HUB, dst="255.255.255.255") / UDP(dport=40002),
    "a fragment": IP(src=HUB, dst=EDGE, flags="MF") / TCP(dport=7443, flags="S"),
    "a later fragment": IP(src=HUB, dst=EDGE, frag=5) / Raw(bytes(40)),
    "options": IP(src=HUB, dst=EDGE, options=[b"\x07\x07\x04\x01\x02\x03\x04"]) / TCP(dport=7443, flags="S"),
    "an extension header": V6 / IPv6ExtHdrHopByHop() / TCP(dport=7443, flags="S"),
    "a router": V6 / ICMPv6ND_RA(),
    "a redirect": V4 / ICMP(type=5, gw="10.0.0.1") / b"12345678",
    "another protocol": IP(src=HUB, dst=EDGE, proto=47) / Raw(bytes(20)),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_needed_passes(rule: PacketFilter, name: str) -> None:
    assert admits(rule, GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_everything_else_is_dropped(rule: PacketFilter, name: str) -> None:
    assert not admits(rule, BAD[name])


@given(st.binary(max_size=100), st.integers(0, 80))
def test_no_octets_make_it_raise_or_pass_what_is_cut_short(octets: bytes, length: int) -> None:
    rule = PacketFilter([EDGE, EDGE6], [HUB, HUB6], 7443)
    rule.admits(memoryview(octets))
    for packet in GOOD.values():
        whole = bytes(packet)
        cut = whole[: min(length, 27 if whole[0] == 0x45 else 47)]
        assert not rule.admits(memoryview(cut))


def test_only_the_newest_ports_are_remembered(rule: PacketFilter) -> None:
    for port in range(50000, 50020):
        rule.opened(rule.tcp_ports)(port)
    assert not admits(rule, V4 / TCP(sport=7001, dport=40001))
    assert admits(rule, V4 / TCP(sport=7001, dport=50019))
