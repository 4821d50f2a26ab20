"""The UDP header.

    0 source port u16 | 2 destination port u16 | 4 length u16, header included | 6 checksum u16

Source: RFC 768, RFC 1122 4.1.3, RFC 8200 8.1.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from wgpy.errors import BadPacket, DropReason
from wgpy.wire import ip
from wgpy.wire.checksum import checksum, partial_sum, pseudo_header_sum

__all__ = ["UDP_HEADER_SIZE", "UdpHeader", "decode_untrusted", "encode"]

UDP_HEADER_SIZE: Final = 8

_HEADER: Final = struct.Struct("!HHHH")


class UdpHeader(NamedTuple):
    """A UDP header.

    Attributes:
        source_port: 0 when no answer is expected.
        destination_port: of the socket.
        length: octets of header and payload; the payload ends there, whatever follows.
    """

    source_port: int
    destination_port: int
    length: int


def decode_untrusted(datagram: ip.Packet, source: bytes, destination: bytes) -> UdpHeader:
    """Take the header of a datagram apart and verify its checksum.

    Args:
        datagram: what follows the IP headers, to the end of the packet.
        source: address, 4 or 16 octets.
        destination: as many.

    Raises:
        BadPacket: cut short, a wrong checksum, or none at all over IPv6.
    """
    if len(datagram) < UDP_HEADER_SIZE:
        raise BadPacket(DropReason.TRANSPORT_HEADER)
    source_port, destination_port, length, field = _HEADER.unpack_from(datagram)
    if not UDP_HEADER_SIZE <= length <= len(datagram):
        raise BadPacket(DropReason.TRANSPORT_HEADER)
    if field:
        if checksum(datagram[:length], pseudo_header_sum(source, destination, ip.UDP, length)):
            raise BadPacket(DropReason.TRANSPORT_CHECKSUM)
    elif len(source) == 16:
        # RFC 8200 8.1: over IPv6 nothing else protects the addresses.
        raise BadPacket(DropReason.TRANSPORT_CHECKSUM)
    return UdpHeader(source_port, destination_port, length)


def encode(source: bytes, destination: bytes, source_port: int, destination_port: int, payload: ip.Packet) -> bytes:
    """A datagram with its checksum.

    Args:
        source: address, 4 or 16 octets.
        destination: as many.
        source_port: ours.
        destination_port: theirs.
        payload: up to 65,527 octets; over IPv4, 65,507.
    """
    length = UDP_HEADER_SIZE + len(payload)
    head = _HEADER.pack(source_port, destination_port, length, 0)
    total = pseudo_header_sum(source, destination, ip.UDP, length) + partial_sum(head)
    # RFC 768: a sum of zero is sent as all ones; zero would mean that there is none.
    value = checksum(payload, total) or 0xFFFF
    return b"".join((head[:6], value.to_bytes(2), payload))
