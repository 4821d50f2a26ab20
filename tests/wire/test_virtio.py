"""The ten octets in front of a TUN packet, and what of them is believed; protocol notes 4.1 and 4.2, B73."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.strategies import UDP, PacketShape
from wgpy.errors import BadPacket, DropReason
from wgpy.wire import virtio
from wgpy.wire.virtio import Offload, VirtioHeader, offload_untrusted

TCP4 = PacketShape(payload=bytes(3000), options=bytes(12)).build()
TCP6 = PacketShape(payload=bytes(3000)).six().build()
UDP4 = PacketShape(protocol=UDP, payload=bytes(3000)).build()
UDP6 = PacketShape(protocol=UDP, payload=bytes(3000)).six().build()
OF_TCP4 = VirtioHeader(virtio.NEEDS_CSUM, virtio.GSO_TCPV4, 52, 1400, 20, 16)
OF_TCP6 = VirtioHeader(virtio.NEEDS_CSUM, virtio.GSO_TCPV6, 60, 1400, 40, 16)
OF_UDP4 = VirtioHeader(virtio.NEEDS_CSUM, virtio.GSO_UDP_L4, 28, 1400, 20, 6)
OF_UDP6 = VirtioHeader(virtio.NEEDS_CSUM, virtio.GSO_UDP_L4, 48, 1400, 40, 6)

numbers = st.integers(0, 65535)


@given(st.builds(VirtioHeader, st.integers(0, 255), st.integers(0, 255), numbers, numbers, numbers, numbers))
def test_the_codec_is_the_struct_of_the_kernel(header: VirtioHeader) -> None:
    """Linux virtio_net.h: u8, u8, then four u16 in host byte order."""
    assert header.encode() == struct.pack("=BBHHHH", *header)
    assert VirtioHeader.decode_untrusted(header.encode()) == header
    assert VirtioHeader.decode_untrusted(header.encode() + b"more") == header


@pytest.mark.parametrize("size", range(10))
def test_a_short_header_is_a_bad_packet(size: int) -> None:
    with pytest.raises(BadPacket) as raised:
        VirtioHeader.decode_untrusted(bytes(size))
    assert raised.value.reason is DropReason.BAD_OFFLOAD_HEADER


GOOD = {
    "TCP4": (OF_TCP4, TCP4, Offload(52, 1400, 20, 16, False)),
    "TCP6": (OF_TCP6, TCP6, Offload(60, 1400, 40, 16, False)),
    "UDP4": (OF_UDP4, UDP4, Offload(28, 1400, 20, 6, True)),
    "UDP6": (OF_UDP6, UDP6, Offload(48, 1400, 40, 6, True)),
    "plain": (VirtioHeader(), TCP4, virtio.WHOLE),
    "checksum": (VirtioHeader(virtio.NEEDS_CSUM, 0, 0, 0, 20, 16), TCP4, Offload(20, 0, 20, 16, False)),
    "valid": (VirtioHeader(virtio.DATA_VALID), TCP4, virtio.WHOLE),
}


@pytest.mark.parametrize(("header", "packet", "expected"), GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("hdr_len", [None, 0, 65535])
def test_the_header_length_comes_from_the_packet_never_from_hdr_len(
    header: VirtioHeader, packet: bytes, expected: Offload, hdr_len: int | None
) -> None:
    if hdr_len is not None:
        header = header._replace(hdr_len=hdr_len)
    assert offload_untrusted(header.encode(), packet) == expected


BAD = {
    "type 2": (OF_TCP4._replace(gso_type=2), TCP4),
    "ECN": (OF_TCP4._replace(gso_type=virtio.GSO_TCPV4 | virtio.ECN), TCP4),
    "TCPV6 with IPv4": (OF_TCP4._replace(gso_type=virtio.GSO_TCPV6), TCP4),
    "TCPV4 with IPv6": (OF_TCP6._replace(gso_type=virtio.GSO_TCPV4), TCP6),
    "TCP with UDP": (OF_UDP4._replace(gso_type=virtio.GSO_TCPV4, csum_offset=16), UDP4),
    "UDP with TCP": (OF_TCP4._replace(gso_type=virtio.GSO_UDP_L4, csum_offset=6), TCP4),
    "no checksum": (OF_TCP4._replace(flags=0), TCP4),
    "size 0": (OF_TCP4._replace(gso_size=0), TCP4),
    "wrong checksum place": (OF_TCP4._replace(csum_offset=6), TCP4),
    "start in the header": (OF_TCP4._replace(csum_start=16), TCP4),
    "start behind the header": (OF_TCP4._replace(csum_start=24), TCP4),
    "start in the IPv6 header": (OF_TCP6._replace(csum_start=20), TCP6),
    "start behind the end": (OF_TCP6._replace(csum_start=65000), TCP6),
    "headers longer than it": (OF_TCP4, TCP4[:40]),
    "shorter than an IP header": (OF_TCP4, TCP4[:19]),
    "neither version": (OF_TCP4, b"\x55" + TCP4[1:]),
    "TCP offset 4": (OF_TCP4, TCP4[:32] + b"\x40" + TCP4[33:]),
    "checksum outside": (VirtioHeader(virtio.NEEDS_CSUM, 0, 0, 0, 20, 16), TCP4[:36]),
}


@pytest.mark.parametrize(("header", "packet"), BAD.values(), ids=BAD)
def test_what_points_outside_of_the_packet_is_refused(header: VirtioHeader, packet: bytes) -> None:
    with pytest.raises(BadPacket) as raised:
        offload_untrusted(header.encode(), packet)
    assert raised.value.reason is DropReason.BAD_OFFLOAD_HEADER


def test_behind_extension_headers_csum_start_says_where_the_transport_is() -> None:
    """A hop-by-hop header of eight octets in front of TCP."""
    packet = TCP6[:6] + b"\0" + TCP6[7:40] + bytes([6, 0]) + bytes(6) + TCP6[40:]
    offload = offload_untrusted(OF_TCP6._replace(csum_start=48).encode(), packet)
    assert (offload.header_length, offload.csum_start) == (68, 48)


@given(st.binary(min_size=10, max_size=10), st.binary(max_size=120) | st.sampled_from([TCP4, TCP6, UDP4, UDP6]))
def test_b73_any_octets_give_an_offload_inside_the_packet_or_a_bad_packet(header: bytes, packet: bytes) -> None:
    offload = virtio.WHOLE
    with contextlib.suppress(BadPacket):
        offload = offload_untrusted(header, packet)
    assert offload.csum_start == 0 or offload.csum_start + offload.csum_offset + 2 <= len(packet)
    assert not offload.gso_size or 28 <= offload.header_length <= len(packet)
