"""The ten octets in front of every packet of a TUN device with IFF_VNET_HDR.

The header says how the kernel joined a packet (which segmentation it left to us) and which checksum it left unfinished;
on the way back we say the same to the kernel. Only the codec and the sanity check live here: cutting a superpacket is
`dataplane/split`, joining one is `dataplane/merge`.

    octet  0      1         2        4         6           8
           flags  gso_type  hdr_len  gso_size  csum_start  csum_offset      all numbers in host byte order

Source: Linux include/uapi/linux/virtio_net.h, struct virtio_net_hdr.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from wgpy.errors import BadPacket, DropReason

__all__ = [
    "DATA_VALID",
    "ECN",
    "GSO_NONE",
    "GSO_TCPV4",
    "GSO_TCPV6",
    "GSO_UDP_L4",
    "HEADER",
    "HEADER_SIZE",
    "NEEDS_CSUM",
    "PLAIN",
    "WHOLE",
    "Offload",
    "VirtioHeader",
    "offload_untrusted",
]

HEADER: Final = struct.Struct("=BBHHHH")
HEADER_SIZE: Final = HEADER.size

NEEDS_CSUM: Final = 1
DATA_VALID: Final = 2

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
ECN: Final = 0x80  # a bit beside the type; never asked for, so a packet that carries it is refused

PLAIN: Final = bytes(HEADER_SIZE)  # a whole packet: nothing joined, nothing unfinished

TCP_CSUM_OFFSET: Final = 16
UDP_CSUM_OFFSET: Final = 6


class VirtioHeader(NamedTuple):
    """The header's six fields as numbers; `gso_size` counts the payload octets of one segment."""

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    @classmethod
    def decode_untrusted(cls, data: bytes | bytearray | memoryview) -> VirtioHeader:
        """Read the first ten octets of `data`.

        Raises:
            BadPacket: fewer than ten octets.
        """
        if len(data) < HEADER_SIZE:
            raise BadPacket(DropReason.BAD_OFFLOAD_HEADER)
        return cls._make(HEADER.unpack_from(data))

    def encode(self) -> bytes:
        """The ten octets."""
        return HEADER.pack(*self)


class Offload(NamedTuple):
    """What there is to do with one packet, after every field was checked against the packet itself.

    Attributes:
        header_length: octets in front of the payload, IP and transport header together; for a packet that was not
            joined, the offset of its transport header (or 0 when no checksum is left to finish).
        gso_size: payload octets per segment; 0 when the packet is a single one.
        csum_start: where the transport header begins; 0 when no checksum is left to finish.
        csum_offset: where in it the checksum lies.
        is_udp: UDP segmentation; else TCP.
    """

    header_length: int
    gso_size: int
    csum_start: int
    csum_offset: int
    is_udp: bool


WHOLE: Final = Offload(0, 0, 0, 0, False)


def offload_untrusted(header: bytes | bytearray | memoryview, packet: bytes | bytearray | memoryview) -> Offload:
    """Check the header against the packet's first octets and say how to cut it.

    `hdr_len` is not looked at: on forwarded packets it can cover the whole first segment. The length of the headers
    follows from csum_start and the transport header instead.

    Args:
        header: ten octets.
        packet: the whole packet behind it.

    Raises:
        BadPacket: BAD_OFFLOAD_HEADER for a type we never asked for, or for fields that point outside of the packet.
    """
    flags, gso_type, _, gso_size, csum_start, csum_offset = VirtioHeader.decode_untrusted(header)
    length = len(packet)
    if gso_type == GSO_NONE:
        if not flags & NEEDS_CSUM:
            return WHOLE
        if csum_start + csum_offset + 2 > length:
            raise BadPacket(DropReason.BAD_OFFLOAD_HEADER)
        return Offload(csum_start, 0, csum_start, csum_offset, False)
    if length < 20:
        raise BadPacket(DropReason.BAD_OFFLOAD_HEADER)
    version = packet[0] >> 4
    is_udp = gso_type == GSO_UDP_L4
    if version == 4:
        if gso_type not in (GSO_TCPV4, GSO_UDP_L4) or csum_start != (packet[0] & 15) * 4 or csum_start < 20:
            raise BadPacket(DropReason.BAD_OFFLOAD_HEADER)
        protocol = packet[9]
    elif version == 6:
        if gso_type not in (GSO_TCPV6, GSO_UDP_L4) or csum_start < 40:
            raise BadPacket(DropReason.BAD_OFFLOAD_HEADER)
        # Behind extension headers the next-header field does not name the transport; csum_start says where it begins.
        protocol = packet[6] if csum_start == 40 and length >= 40 else (17 if is_udp else 6)
    else:
        raise BadPacket(DropReason.BAD_OFFLOAD_HEADER)
    if not flags & NEEDS_CSUM or gso_size == 0:
        raise BadPacket(DropReason.BAD_OFFLOAD_HEADER)
    if is_udp:
        header_length = csum_start + 8
        fits = csum_offset == UDP_CSUM_OFFSET and protocol == 17
    else:
        if csum_start + 20 > length:
            raise BadPacket(DropReason.BAD_OFFLOAD_HEADER)
        transport = packet[csum_start + 12] >> 4
        header_length = csum_start + transport * 4
        fits = csum_offset == TCP_CSUM_OFFSET and transport >= 5 and protocol == 6
    if not fits or header_length > length:
        raise BadPacket(DropReason.BAD_OFFLOAD_HEADER)
    return Offload(header_length, gso_size, csum_start, csum_offset, is_udp)
