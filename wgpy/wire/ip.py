"""IPv4 and IPv6 headers: source, destination, traffic class and true length of a packet.

Source: RFC 791, RFC 8200.
"""

from __future__ import annotations

from typing import Final, TypeAlias

__all__ = ["IPV4_HEADER_SIZE", "IPV6_HEADER_SIZE", "destination", "source", "traffic_class", "true_length_untrusted"]

IPV4_HEADER_SIZE: Final = 20
IPV6_HEADER_SIZE: Final = 40

Packet: TypeAlias = bytes | bytearray | memoryview


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
