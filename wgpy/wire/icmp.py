"""ICMP and ICMPv6: the unreachable error that a tunnel answers with when nobody is there.

Source: RFC 792, RFC 1122 3.2.2, RFC 4443.
"""

from __future__ import annotations

import struct
from typing import Final

from wgpy.wire import ip
from wgpy.wire.checksum import checksum, pseudo_header_sum

__all__ = ["host_unreachable"]

_ICMP: Final = 1
_ICMPV6: Final = 58
# RFC 792, RFC 4443 section 2.1: of ICMP, the errors; of ICMPv6, everything below 128.
_ICMP_ERRORS: Final = frozenset((3, 4, 5, 11, 12))
_HOP_LIMIT: Final = 64
# RFC 792: the header and 64 bits; RFC 4443 2.4: as much as fits into the minimum MTU.
_QUOTED_V6: Final = 1280 - ip.IPV6_HEADER_SIZE - 8


def host_unreachable(packet: bytes) -> bytes | None:
    """The error for a packet that can go nowhere, from the address that cannot be reached.

    That address is the only one that a strict reverse path filter accepts on the way back out of the tunnel.

    Args:
        packet: IPv4 or IPv6, whole, perhaps padded.

    Returns:
        A packet; or None where no error may be sent: for multicast, broadcast, errors and later fragments.
    """
    length = ip.true_length_untrusted(packet)
    if not length:
        return None
    packet = packet[:length]
    return _answer_v4(packet) if packet[0] >> 4 == 4 else _answer_v6(packet)


def _answer_v4(packet: bytes) -> bytes | None:
    header = (packet[0] & 0x0F) * 4
    source, destination = packet[12:16], packet[16:20]
    is_later_fragment = (packet[6] << 8 | packet[7]) & 0x1FFF
    if (
        header < ip.IPV4_HEADER_SIZE
        or is_later_fragment
        or source[0] in (0, 127)
        or source[0] >= 224
        or destination[0] >= 224
        or (packet[9] == _ICMP and (len(packet) <= header or packet[header] in _ICMP_ERRORS))
    ):
        return None
    body = struct.pack("!BBHI", 3, 1, 0, 0) + packet[: header + 8]
    body = body[:2] + checksum(body).to_bytes(2) + body[4:]
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0xC0, ip.IPV4_HEADER_SIZE + len(body), 0, 0, _HOP_LIMIT, _ICMP, 0, destination, source
    )
    return head[:10] + checksum(head).to_bytes(2) + head[12:] + body


def _answer_v6(packet: bytes) -> bytes | None:
    source, destination = packet[8:24], packet[24:40]
    kind, at = packet[6], ip.IPV6_HEADER_SIZE
    # Hop-by-hop, routing and destination options may stand before what tells whether this is an error.
    while kind in (0, 43, 60) and at + 8 <= len(packet):
        kind, at = packet[at], at + 8 + packet[at + 1] * 8
    if kind == 44 and at + 8 <= len(packet):
        if (packet[at + 2] << 8 | packet[at + 3]) >> 3:
            return None
        kind, at = packet[at], at + 8
    if (
        source[0] == 0xFF
        or source == bytes(16)
        or destination[0] == 0xFF
        or (kind == _ICMPV6 and (at >= len(packet) or packet[at] < 128))
    ):
        return None
    body = struct.pack("!BBHI", 1, 3, 0, 0) + packet[:_QUOTED_V6]
    total = checksum(body, pseudo_header_sum(destination, source, _ICMPV6, len(body)))
    body = body[:2] + total.to_bytes(2) + body[4:]
    head = struct.pack("!IHBB16s16s", 6 << 28, len(body), _ICMPV6, _HOP_LIMIT, destination, source)
    return head + body
