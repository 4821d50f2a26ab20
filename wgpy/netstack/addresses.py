"""What addresses and ports mean to a host: who may have sent a packet, and where to one can be sent.

Source: RFC 6890 and RFC 4291 section 2 (kinds of addresses), RFC 1122 3.2.1.3, RFC 4038 section 4.2.
"""

from __future__ import annotations

import errno
import operator
import os
from typing import Final

from wgpy.wire import ip

__all__ = ["failure", "is_martian", "parsed", "parsed_port", "refusal"]

# First octets of IPv4 sources that no host has: this network, loopback, multicast, reserved, broadcast.
_MARTIAN_FIRST: Final = frozenset((0, 127, *range(224, 256)))
_UNSPECIFIED_V6: Final = bytes(16)
_LOOPBACK_V6: Final = bytes(15) + b"\1"
# IPv4 addresses in the dress of IPv6 are a matter of APIs and never seen in packets.
_MAPPED: Final = bytes(10) + b"\xff\xff"
_BROADCAST: Final = b"\xff" * 4


def is_martian(source: bytes, destination: bytes) -> bool:
    """Whether no other host can have sent this packet; addresses of 4 or 16 octets."""
    if source == destination:
        return True
    if len(source) == 4:
        return source[0] in _MARTIAN_FIRST
    return source[0] == 0xFF or (not source[0] and source[:12] == _MAPPED) or source in (_UNSPECIFIED_V6, _LOOPBACK_V6)


def refusal(destination: bytes, broadcasts: frozenset[bytes], *, is_datagram: bool = False) -> OSError | None:
    """Why nothing is sent to an address that is no host's; as a kernel would refuse it.

    Args:
        destination: 4 or 16 octets.
        broadcasts: of our networks.
        is_datagram: datagrams may go to a group.
    """
    text = ip.to_text(destination)
    if destination[:12] == _MAPPED:
        return failure(errno.ENETUNREACH, f"{text}: it stands for {ip.to_text(destination[12:])}, so say that")
    if destination == _BROADCAST or destination in broadcasts:
        return failure(errno.EACCES if is_datagram else errno.ENETUNREACH, f"{text} is a broadcast address")
    is_v4 = len(destination) == 4
    if destination[0] >> 4 == 14 if is_v4 else destination[0] == 0xFF:
        return None if is_datagram else failure(errno.ENETUNREACH, f"{text} is a multicast address")
    if destination[0] in (0, 127) if is_v4 else destination in (_UNSPECIFIED_V6, _LOOPBACK_V6):
        return failure(errno.ENETUNREACH, f"{text} is no address of a host in the tunnel")
    return None


def parsed(host: str, port: int) -> tuple[bytes, int]:
    """Address in octets, and port.

    Raises:
        OSError: EINVAL for what is neither.
        TypeError: the address is no text, or the port no whole number.
    """
    try:
        octets = ip.from_text(host)
    except ValueError:
        raise failure(errno.EINVAL, f"{host!r} is no address: resolve names first") from None
    return octets, parsed_port(port)


def parsed_port(port: int) -> int:
    """The port.

    Raises:
        OSError: EINVAL, it is not from 0 to 65535.
        TypeError: it is no whole number.
    """
    number = operator.index(port)
    if not 0 <= number <= 65535:
        raise failure(errno.EINVAL, f"{number} is no port: ports are 0 to 65535")
    return number


def failure(number: int, what: str) -> OSError:
    """An OSError with an errno and its words."""
    return OSError(number, f"{os.strerror(number)}: {what}")
