"""What Linux does with offload headers, written from its documentation and not from our code: the judge of both ways.

superpacket -> segments       net/ipv4/tcp_offload.c tcp_gso_segment, udp_offload.c __udp_gso_segment
shape       -> superpacket    a packet as a TUN device with TSO or USO hands it over
"""

from __future__ import annotations

import struct

from tests.property.strategies import FIN, PSH, TCP, UDP, PacketShape, internet_sum

_FORMAT = "=BBHHHH"
NEEDS_CSUM, TCPV4, TCPV6, UDP_L4 = 1, 1, 4, 5


def parse(packet: bytes) -> PacketShape:
    """A packet taken apart; its checksums are not kept."""
    if packet[0] >> 4 == 4:
        length = (packet[0] & 15) * 4
        shape = PacketShape(
            version=4, protocol=packet[9], source=packet[12:16], target=packet[16:20], tos=packet[1], ttl=packet[8],
            identification=int.from_bytes(packet[4:6]), fragment=int.from_bytes(packet[6:8]),
            ip_options=packet[20:length],
        )  # fmt: skip
    else:
        length, first = 40, int.from_bytes(packet[:4])
        shape = PacketShape(
            version=6, protocol=packet[6], source=packet[8:24], target=packet[24:40], tos=first >> 20 & 0xFF,
            ttl=packet[7], flow_label=first & 0xFFFFF, identification=0, fragment=0,
        )  # fmt: skip
    body = packet[length:]
    if shape.protocol == TCP:
        here, there, sequence, acknowledgement, offset, flags, window, _, urgent = struct.unpack_from(
            "!HHIIBBHHH", body
        )
        offset = (offset >> 4) * 4
        return shape.but(
            source_port=here, target_port=there, sequence=sequence, acknowledgement=acknowledgement, flags=flags,
            window=window, urgent=urgent, options=body[20:offset], payload=body[offset:],
        )  # fmt: skip
    if shape.protocol == UDP:
        here, there = struct.unpack_from("!HH", body)
        return shape.but(source_port=here, target_port=there, payload=body[8:])
    return shape.but(payload=body)


def pseudo_checksum(shape: PacketShape, length: int) -> int:
    """What the checksum field holds while the device has still to finish it: the folded sum of the pseudo header."""
    return 0xFFFF - internet_sum(shape.source + shape.target + struct.pack("!II", length, shape.protocol))


def superpacket(shape: PacketShape, size: int) -> tuple[bytes, bytes]:
    """Offload header and packet, as a TUN device gives them, to be cut into segments of `size` octets of payload."""
    packet = bytearray(shape.build())
    start = 20 + len(shape.ip_options) if shape.version == 4 else 40
    place = 16 if shape.protocol == TCP else 6
    packet[start + place : start + place + 2] = pseudo_checksum(shape, len(packet) - start).to_bytes(2)
    kind = UDP_L4 if shape.protocol == UDP else TCPV4 if shape.version == 4 else TCPV6
    header = struct.pack(_FORMAT, NEEDS_CSUM, kind, shape.header_length, size, start, place)
    return header, bytes(packet)


def segments(shape: PacketShape, size: int) -> list[PacketShape]:
    """The packets that a superpacket stands for."""
    if not shape.payload:
        return [shape]
    cut = []
    for number, at in enumerate(range(0, len(shape.payload), size)):
        is_last = at + size >= len(shape.payload)
        part = shape.but(payload=shape.payload[at : at + size])
        if shape.version == 4:
            part = part.but(identification=(shape.identification + number) & 0xFFFF)
        if shape.protocol == TCP:
            flags = shape.flags if is_last else shape.flags & ~(FIN | PSH)
            part = part.but(sequence=(shape.sequence + at) & 0xFFFFFFFF, flags=flags)
        cut.append(part)
    return cut


def written(octets: bytes) -> list[PacketShape]:
    """What the kernel makes of one write to a TUN device; asserts that it would take it."""
    flags, kind, hdr_len, size, start, place = struct.unpack_from(_FORMAT, octets)
    packet = octets[10:]
    if not kind:
        assert (flags, hdr_len, size, start, place) == (0, 0, 0, 0, 0), "a packet of its own gets a zeroed header"
        return [parse(packet)]
    shape = parse(packet)
    expected_kind = UDP_L4 if shape.protocol == UDP else TCPV4 if shape.version == 4 else TCPV6
    assert (flags, kind) == (NEEDS_CSUM, expected_kind)
    assert hdr_len == shape.header_length
    assert start == shape.header_length - (8 if shape.protocol == UDP else 20 + len(shape.options))
    assert place == (6 if shape.protocol == UDP else 16)
    assert len(packet) <= 65535
    assert size < len(shape.payload), "a superpacket is more than one segment"
    expected = bytearray(shape.build())
    expected[start + place : start + place + 2] = pseudo_checksum(shape, len(packet) - start).to_bytes(2)
    assert packet == bytes(expected), "lengths, IPv4 checksum, and the pseudo header in the checksum field"
    return segments(shape, size)
