"""IPv4 and IPv6 headers: addresses, traffic class and true length of a packet; the whole header for the stack.

    IPv4    0 version 4, header words | 1 TOS | 2 length | 4 identification | 6 flags 3, fragment offset 13
            8 TTL | 9 protocol | 10 checksum | 12 source 4 | 16 destination 4 | 20 options
    IPv6    0 version 4, traffic class 8, flow label 20 | 4 payload length | 6 next header | 7 hop limit
            8 source 16 | 24 destination 16 | 40 extension headers
    one     0 next header | 1 length in 8 octets, without the first 8 | 2 content
    fragment header, 8      0 next header | 1 reserved | 2 offset 13, reserved 2, more 1 | 4 identification 4

The tunnel needs `source`, `destination`, `traffic_class` and `true_length_untrusted` only; the userspace stack takes a
packet apart with `decode_untrusted` where it does not look at a whole slab at once.

Source: RFC 791, RFC 1122 3.2.1, RFC 8200, RFC 5722, RFC 6946, RFC 7112.
"""

from __future__ import annotations

import functools
import ipaddress
import struct
from typing import Final, NamedTuple, TypeAlias

from wgpy.errors import BadPacket, DropReason
from wgpy.wire.checksum import checksum

__all__ = [
    "DEFAULT_HOP_LIMIT",
    "ICMP",
    "ICMPV6",
    "IPV4_HEADER_SIZE",
    "IPV6_HEADER_SIZE",
    "IPV6_MINIMUM_MTU",
    "TCP",
    "UDP",
    "Fragment",
    "IpHeader",
    "Problem",
    "decode_untrusted",
    "destination",
    "encode_header",
    "from_text",
    "header_size",
    "source",
    "to_text",
    "traffic_class",
    "true_length_untrusted",
]

IPV4_HEADER_SIZE: Final = 20
IPV6_HEADER_SIZE: Final = 40
IPV6_MINIMUM_MTU: Final = 1280
DEFAULT_HOP_LIMIT: Final = 64  # RFC 1700; what hosts use today

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58

_HOP_BY_HOP: Final = 0
_ROUTING: Final = 43
_FRAGMENT: Final = 44
_NO_NEXT_HEADER: Final = 59
_DESTINATION_OPTIONS: Final = 60

_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_DONT_FRAGMENT: Final = 0x4000

Packet: TypeAlias = bytes | bytearray | memoryview


class Fragment(NamedTuple):
    """Which part of a packet this is.

    Attributes:
        identification: 16 bits of IPv4, 32 of IPv6.
        offset: octets of the fragmentable part before it.
        is_last: nothing follows.
    """

    identification: int
    offset: int
    is_last: bool


class Problem(NamedTuple):
    """Why an ICMPv6 parameter problem is due (RFC 8200 4, RFC 4443 3.4).

    Attributes:
        code: 0 erroneous field, 1 unknown next header, 2 unknown option, 3 first fragment without all headers.
        pointer: offset of the octet that is wrong.
        even_to_multicast: answered although the packet was sent to many (RFC 4443 2.4 e.3).
    """

    code: int
    pointer: int
    even_to_multicast: bool = False


class IpHeader(NamedTuple):
    """An IP header and the extension headers after it.

    Attributes:
        version: 4 or 6.
        source: 4 or 16 octets.
        destination: likewise.
        protocol: of what begins at `payload_at`.
        payload_at: octets before the transport header, or before the data of a fragment.
        length: octets of the whole packet, without padding.
        hop_limit: hop limit or TTL.
        traffic_class: traffic class or TOS.
        fragment: None for a whole packet, also for an atomic fragment (RFC 6946).
        protocol_at: where the octet stands that names `protocol`.
        unfragmentable: octets before the fragment header; `payload_at` where there is none.
        problem: None, or what must be answered instead of delivering the packet.
    """

    version: int
    source: bytes
    destination: bytes
    protocol: int
    payload_at: int
    length: int
    hop_limit: int
    traffic_class: int
    fragment: Fragment | None
    protocol_at: int
    unfragmentable: int
    problem: Problem | None = None


def true_length_untrusted(packet: Packet) -> int:
    """Octets of the packet at the beginning of a plaintext that may be padded; 0 when there is no whole one.

    Args:
        packet: the plaintext.
    """
    size = len(packet)
    if size >= IPV4_HEADER_SIZE:
        version = packet[0] >> 4
        if version == 4:
            length = packet[2] << 8 | packet[3]
            return length if IPV4_HEADER_SIZE <= length <= size else 0
        if version == 6 and size >= IPV6_HEADER_SIZE:
            # No wrap at 16 bits: 0xFFD8 and above are longer than any plaintext (lesson S17).
            length = (packet[4] << 8 | packet[5]) + IPV6_HEADER_SIZE
            return length if length <= size else 0
    return 0


def source(packet: Packet) -> bytes:
    """The source address, 4 or 16 octets, of a packet that is whole."""
    return bytes(packet[12:16] if packet[0] >> 4 == 4 else packet[8:24])


def destination(packet: Packet) -> bytes:
    """The destination address, 4 or 16 octets, of a packet that is whole."""
    return bytes(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])


def traffic_class(packet: Packet) -> int:
    """TOS or traffic class, 8 bits, of a packet that is whole."""
    if packet[0] >> 4 == 4:
        return packet[1]
    return (packet[0] & 0x0F) << 4 | packet[1] >> 4


@functools.lru_cache(4096)
@functools.lru_cache(4096)
def from_text(address: str) -> bytes:
    """The octets of an address in text form.

    Raises:
        ValueError: it is none.
        TypeError: it is no text. (`ipaddress` would take numbers and packed octets for addresses.)
    """
    if not isinstance(address, str):
        raise TypeError(f"an address is text, such as '10.0.0.1', not {address!r}")
    return ipaddress.ip_address(address).packed


@functools.lru_cache(4096)
def to_text(address: bytes) -> str:
    """The text form of an address of 4 or 16 octets."""
    return str(ipaddress.ip_address(address))


def header_size(address: bytes) -> int:
    """Octets of the header that we put before a payload for this address."""
    return IPV4_HEADER_SIZE if len(address) == 4 else IPV6_HEADER_SIZE


# --- the whole header ------------------------------------------------------------------------------------------------


def decode_untrusted(packet: Packet) -> IpHeader:
    """Take the headers before the transport apart.

    Args:
        packet: perhaps padded.

    Raises:
        BadPacket: not whole, or with a header that a host drops without an answer.
    """
    length = true_length_untrusted(packet)
    if not length:
        raise BadPacket(DropReason.INNER_MALFORMED)
    return _decode_v4(packet, length) if packet[0] >> 4 == 4 else _decode_v6(packet, length)


def _decode_v4(packet: Packet, length: int) -> IpHeader:
    first, tos, _, identification, flags, ttl, protocol, _, source, destination = _IPV4.unpack_from(packet)
    size = (first & 0x0F) * 4
    if not IPV4_HEADER_SIZE <= size <= length or checksum(packet[:size]):
        raise BadPacket(DropReason.IP_HEADER)
    fragment = None
    if flags & 0x3FFF:
        offset, is_last = (flags & 0x1FFF) * 8, not flags & 0x2000
        if not is_last and (length - size) % 8:
            raise BadPacket(DropReason.FRAGMENT_MALFORMED)
        fragment = Fragment(identification, offset, is_last)
        _check_extent(offset, length - size, 65535 - size)
    return IpHeader(4, source, destination, protocol, size, length, ttl, tos, fragment, 9, size)


def _check_extent(offset: int, size: int, most: int) -> None:
    """Refuse a fragment without data, or one that ends where no packet does (the "ping of death")."""
    if not size or offset + size > most:
        raise BadPacket(DropReason.FRAGMENT_MALFORMED)


def _decode_v6(packet: Packet, length: int) -> IpHeader:
    first, _, protocol, hop_limit, source, destination = _IPV6.unpack_from(packet)
    at, protocol_at = IPV6_HEADER_SIZE, 6
    unfragmentable = 0
    fragment: Fragment | None = None
    problem: Problem | None = None
    while problem is None and protocol in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION_OPTIONS):
        if at + 8 > length:
            raise BadPacket(DropReason.EXTENSION_HEADER)
        if protocol == _FRAGMENT:
            if unfragmentable:
                raise BadPacket(DropReason.FRAGMENT_MALFORMED)
            unfragmentable = at
            word = packet[at + 2] << 8 | packet[at + 3]
            offset, is_last = word & 0xFFF8, not word & 1
            identification = int.from_bytes(packet[at + 4 : at + 8])
            protocol, protocol_at, at = packet[at], at, at + 8
            if not offset and is_last:
                continue  # RFC 6946: an atomic fragment is a whole packet with a useless header
            fragment = Fragment(identification, offset, is_last)
            if not is_last and (length - at) % 8:
                problem = Problem(0, 4)
            elif offset + length - at > 65535 - (unfragmentable - IPV6_HEADER_SIZE):
                problem = Problem(0, unfragmentable + 2)
            elif at == length:
                raise BadPacket(DropReason.FRAGMENT_MALFORMED)
            elif not offset and not _shows_transport(packet, protocol, at, length):
                problem = Problem(3, 0)  # RFC 7112 section 5
            break
        size = 8 + packet[at + 1] * 8
        if at + size > length:
            raise BadPacket(DropReason.EXTENSION_HEADER)
        if protocol == _ROUTING:
            # RFC 8200 4.4: passed over when it leads nowhere else, whatever its type; type 0 is dead (RFC 5095).
            if packet[at + 3]:
                problem = Problem(0, at + 2)
        elif protocol == _HOP_BY_HOP and at != IPV6_HEADER_SIZE:
            problem = Problem(1, protocol_at)
        else:
            problem = _options_problem(packet, at + 2, at + size)
        protocol, protocol_at, at = packet[at], at, at + size
    if protocol == _NO_NEXT_HEADER and problem is None:
        raise BadPacket(DropReason.UNKNOWN_PROTOCOL)
    traffic_class = first >> 20 & 0xFF
    return IpHeader(
        6,
        source,
        destination,
        protocol,
        at,
        length,
        hop_limit,
        traffic_class,
        fragment,
        protocol_at,
        unfragmentable or at,
        problem,
    )


def _options_problem(packet: Packet, at: int, end: int) -> Problem | None:
    """Look for options that we do not know; the two highest bits of the type say what to do then (RFC 8200 4.2)."""
    while at < end:
        kind = packet[at]
        if kind == 0:  # Pad1
            at += 1
            continue
        if at + 2 > end or at + 2 + packet[at + 1] > end:
            raise BadPacket(DropReason.EXTENSION_HEADER)
        if kind >> 6 == 1:
            raise BadPacket(DropReason.EXTENSION_HEADER)
        if kind >> 6:
            return Problem(2, at, even_to_multicast=kind >> 6 == 2)
        at += 2 + packet[at + 1]
    return None


def _shows_transport(packet: Packet, protocol: int, at: int, length: int) -> bool:
    """Whether a first fragment holds all headers up to the transport's (RFC 7112)."""
    while protocol in (_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS):
        if at + 8 > length:
            return False
        protocol, at = packet[at], at + 8 + packet[at + 1] * 8
    return length - at >= {TCP: 20, UDP: 8, ICMPV6: 8}.get(protocol, 1)


def encode_header(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload_length: int,
    *,
    hop_limit: int = DEFAULT_HOP_LIMIT,
    traffic_class: int = 0,
    identification: int = 0,
    may_fragment: bool = False,
    fragment: Fragment | None = None,
) -> bytes:
    """The headers before a payload, as a host writes them; of IPv6, a fragment header where one is needed.

    Args:
        source: 4 or 16 octets.
        destination: as many.
        protocol: of the transport.
        payload_length: octets that follow.
        hop_limit: hop limit or TTL.
        traffic_class: traffic class or TOS.
        identification: of IPv4; an unfragmented packet may carry any (RFC 6864).
        may_fragment: routers may cut an IPv4 packet.
        fragment: which part of a larger packet it is.
    """
    if len(source) == 4:
        flags = 0 if may_fragment else _DONT_FRAGMENT
        if fragment is not None:
            identification = fragment.identification
            flags = fragment.offset >> 3 | (0 if fragment.is_last else 0x2000)
        head = _IPV4.pack(
            0x45,
            traffic_class,
            IPV4_HEADER_SIZE + payload_length,
            identification,
            flags,
            hop_limit,
            protocol,
            0,
            source,
            destination,
        )
        return head[:10] + checksum(head).to_bytes(2) + head[12:]
    extension = b""
    if fragment is not None:
        word = fragment.offset | (not fragment.is_last)
        extension = struct.pack("!BBHI", protocol, 0, word, fragment.identification)
        protocol = _FRAGMENT
    return (
        _IPV6.pack(
            6 << 28 | traffic_class << 20, len(extension) + payload_length, protocol, hop_limit, source, destination
        )
        + extension
    )
