"""The Internet checksum: of one buffer, and how to combine and update sums.

Sums here are congruent modulo 0xffff. Zero has two faces, 0x0000 and 0xffff; a folded sum of anything but zeros is
never 0x0000, so `folded` says 0xffff where the modulus says 0.

Source: RFC 1071, RFC 1624.
"""

from __future__ import annotations

from typing import TypeAlias

__all__ = ["checksum", "folded", "partial_sum", "pseudo_header_sum", "updated"]

Octets: TypeAlias = bytes | bytearray | memoryview


def partial_sum(octets: Octets) -> int:
    """Sum of the 16-bit words, network byte order, an odd last octet padded with zero; not folded."""
    number = int.from_bytes(octets)
    # 2**16 is congruent to 1, so the whole buffer as one number has the residue of the sum of its words.
    if len(octets) % 2:
        number <<= 8
    return number % 0xFFFF or (0xFFFF if number else 0)


def folded(total: int) -> int:
    """A sum brought to 16 bits by end-around carry."""
    return total % 0xFFFF or (0xFFFF if total else 0)


def checksum(octets: Octets, initial: int = 0) -> int:
    """The checksum field over a buffer, 16 bits; 0 over a buffer that holds its right checksum already.

    Args:
        octets: what is covered.
        initial: a sum of what else is covered, such as a pseudo header.
    """
    return 0xFFFF - folded(partial_sum(octets) + initial)


def pseudo_header_sum(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """Sum of the pseudo header of TCP, UDP and ICMPv6 (RFC 9293 3.1, RFC 8200 8.1).

    Args:
        source: 4 or 16 octets.
        destination: as many.
        protocol: of the transport.
        length: octets of transport header and payload.
    """
    return folded(int.from_bytes(source) + int.from_bytes(destination) + protocol + length)


def updated(field: int, old: int, new: int) -> int:
    """A checksum field after a 16-bit word that it covers changed from `old` to `new` (RFC 1624, equation 3)."""
    return 0xFFFF - folded((0xFFFF - field) + (0xFFFF - old) + new)
