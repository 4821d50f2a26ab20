"""ICMP and ICMPv6: echo, and the errors; a message is decoded and encoded with its checksum, errors are made whole.

    0 type | 1 code | 2 checksum u16 | 4 rest of header 4 | 8 body: echo data, or the packet that an error quotes

Which errors may be sent at all is decided here, once, for the tunnel (`host_unreachable`) and for the stack (`error`).

Source: RFC 792, RFC 1122 3.2.2, RFC 1191, RFC 4443, RFC 8201.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from wgpy.errors import BadPacket, DropReason
from wgpy.wire import ip
from wgpy.wire.checksum import checksum, pseudo_header_sum

__all__ = [
    "ICMP_HEADER_SIZE",
    "IcmpMessage",
    "Types",
    "decode_untrusted",
    "encode",
    "error",
    "host_unreachable",
    "types",
]

ICMP_HEADER_SIZE: Final = 8

# RFC 792, RFC 4443 section 2.1: of ICMP, the errors; of ICMPv6, everything below 128.
_ICMP_ERRORS: Final = frozenset((3, 4, 5, 11, 12))
# RFC 792: the header and 64 bits; RFC 4443 2.4: as much as fits into the minimum MTU.
_QUOTED_V6: Final = ip.IPV6_MINIMUM_MTU - ip.IPV6_HEADER_SIZE - ICMP_HEADER_SIZE
_MESSAGE: Final = struct.Struct("!BBHI")


class Types(NamedTuple):
    """The numbers of one family for what both have.

    Attributes:
        protocol: of the IP header.
        echo_request: type.
        echo_reply: type.
        unreachable: type.
        host_unreachable: its code for an address that cannot be reached.
        port_unreachable: its code for a UDP port without a socket.
        time_exceeded: type; code 1 for a packet that was not reassembled in time.
        parameter_problem: type.
    """

    protocol: int
    echo_request: int
    echo_reply: int
    unreachable: int
    host_unreachable: int
    port_unreachable: int
    time_exceeded: int
    parameter_problem: int


_V4: Final = Types(ip.ICMP, 8, 0, 3, 1, 3, 11, 12)
_V6: Final = Types(ip.ICMPV6, 128, 129, 1, 3, 4, 3, 4)


class IcmpMessage(NamedTuple):
    """A message without its checksum.

    Attributes:
        kind: type.
        code: of the type.
        rest: 32 bits whose meaning the type decides: identifier and sequence number, or an MTU.
        body: what follows.
    """

    kind: int
    code: int
    rest: int
    body: ip.Packet


def types(version: int) -> Types:
    """The numbers of ICMP (4) or ICMPv6 (6)."""
    return _V4 if version == 4 else _V6


def decode_untrusted(message: ip.Packet, source: bytes, destination: bytes) -> IcmpMessage:
    """Take a message apart and verify its checksum.

    Args:
        message: what follows the IP headers, to the end of the packet.
        source: address, 4 or 16 octets; tells ICMP from ICMPv6.
        destination: as many.

    Raises:
        BadPacket: cut short, or a wrong checksum.
    """
    if len(message) < ICMP_HEADER_SIZE:
        raise BadPacket(DropReason.TRANSPORT_HEADER)
    if checksum(message, _pseudo(source, destination, len(message))):
        raise BadPacket(DropReason.TRANSPORT_CHECKSUM)
    kind, code, _, rest = _MESSAGE.unpack_from(message)
    return IcmpMessage(kind, code, rest, message[ICMP_HEADER_SIZE:])


def encode(source: bytes, destination: bytes, message: IcmpMessage) -> bytes:
    """A message with its checksum.

    Args:
        source: address, 4 or 16 octets; tells ICMP from ICMPv6.
        destination: as many.
        message: what it says.
    """
    octets = b"".join((_MESSAGE.pack(message.kind, message.code, 0, message.rest), message.body))
    field = checksum(octets, _pseudo(source, destination, len(octets)))
    return octets[:2] + field.to_bytes(2) + octets[4:]


def _pseudo(source: bytes, destination: bytes, length: int) -> int:
    # RFC 4443 2.3: ICMPv6 covers a pseudo header, ICMP does not.
    return pseudo_header_sum(source, destination, ip.ICMPV6, length) if len(source) == 16 else 0


# --- errors ----------------------------------------------------------------------------------------------------------


def host_unreachable(packet: bytes) -> bytes | None:
    """The error for a packet that can go nowhere, from the address that cannot be reached.

    That address is the only one that a strict reverse path filter accepts on the way back out of the tunnel.

    Args:
        packet: IPv4 or IPv6, whole, perhaps padded.

    Returns:
        A packet; or None where no error may be sent: for multicast, broadcast, errors and later fragments.
    """
    numbers = types(packet[0] >> 4) if packet else _V4
    return error(packet, numbers.unreachable, numbers.host_unreachable)


def error(
    packet: bytes,
    kind: int,
    code: int,
    rest: int = 0,
    *,
    source: bytes | None = None,
    even_to_multicast: bool = False,
) -> bytes | None:
    """The packet that tells the sender of `packet` what became of it.

    Args:
        packet: IPv4 or IPv6, whole, perhaps padded.
        kind: type of the error.
        code: of the type.
        rest: 32 bits: an MTU or a pointer.
        source: the address that answers, where it is not the destination of `packet`.
        even_to_multicast: for the errors that RFC 4443 2.4 e.3 excepts.

    Returns:
        A packet; or None where no error may be sent: for multicast, broadcast, errors and later fragments.
    """
    length = ip.true_length_untrusted(packet)
    if not length:
        return None
    packet = packet[:length]
    if packet[0] >> 4 == 4:
        header = (packet[0] & 0x0F) * 4
        if not _may_answer_v4(packet, header):
            return None
        target, quoted = packet[12:16], packet[: header + 8]
        source = packet[16:20] if source is None else source
    else:
        if not _may_answer_v6(packet, even_to_multicast=even_to_multicast):
            return None
        target, quoted = packet[8:24], packet[:_QUOTED_V6]
        source = packet[24:40] if source is None else source
    message = encode(source, target, IcmpMessage(kind, code, rest, quoted))
    # RFC 1812 4.3.2.5: ICMP errors go with precedence 6, so that congestion does not silence them.
    tos = 0xC0 if len(target) == 4 else 0
    protocol = types(packet[0] >> 4).protocol
    return ip.encode_header(source, target, protocol, len(message), traffic_class=tos, may_fragment=True) + message


def _may_answer_v4(packet: bytes, header: int) -> bool:
    source, destination = packet[12:16], packet[16:20]
    is_later_fragment = (packet[6] << 8 | packet[7]) & 0x1FFF
    return not (
        header < ip.IPV4_HEADER_SIZE
        or is_later_fragment
        or source[0] in (0, 127)
        or source[0] >= 224
        or destination[0] >= 224
        or (packet[9] == ip.ICMP and (len(packet) <= header or packet[header] in _ICMP_ERRORS))
    )


def _may_answer_v6(packet: bytes, *, even_to_multicast: bool) -> bool:
    source, destination = packet[8:24], packet[24:40]
    kind, at = packet[6], ip.IPV6_HEADER_SIZE
    # Hop-by-hop, routing and destination options may stand before what tells whether this is an error.
    while kind in (0, 43, 60) and at + 8 <= len(packet):
        kind, at = packet[at], at + 8 + packet[at + 1] * 8
    if kind == 44 and at + 8 <= len(packet):
        if (packet[at + 2] << 8 | packet[at + 3]) >> 3:
            return False
        kind, at = packet[at], at + 8
    return not (
        source[0] == 0xFF
        or source == bytes(16)
        or (destination[0] == 0xFF and not even_to_multicast)
        or (kind == ip.ICMPV6 and (at >= len(packet) or packet[at] < 128))
    )
