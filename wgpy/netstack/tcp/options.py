"""What the two sides of a connection agree on with their SYNs, and the door between 32 bits and absolute numbers.

Source: RFC 9293 3.7.1, RFC 6691, RFC 7323 sections 2 and 3, RFC 2018 section 2.
"""

from __future__ import annotations

from wgpy.netstack.constants import DEFAULT_MSS_IPV4, DEFAULT_MSS_IPV6, MINIMUM_MSS, WINDOW_SCALE_MAX
from wgpy.wire import ip, tcp

__all__ = ["effective_mss", "mss_for_mtu", "scale_for", "unwrapped"]

_HALF = 1 << 31


def unwrapped(number: int, reference: int) -> int:
    """The absolute number next to `reference` that is `number` on the wire."""
    return reference + ((number - reference + _HALF) & 0xFFFFFFFF) - _HALF


def mss_for_mtu(mtu: int, *, is_v4: bool) -> int:
    """The MSS to announce: options are paid for by whoever sends them (RFC 6691)."""
    return mtu - tcp.HEADER_SIZE - (ip.IPV4_HEADER_SIZE if is_v4 else ip.IPV6_HEADER_SIZE)


def effective_mss(announced: int | None, mtu: int, *, is_v4: bool) -> int:
    """How large a segment may be that we send, options included: what the peer takes and what our MTU carries."""
    if announced is None:
        announced = DEFAULT_MSS_IPV4 if is_v4 else DEFAULT_MSS_IPV6
    return min(max(announced, MINIMUM_MSS), mss_for_mtu(mtu, is_v4=is_v4))


def scale_for(limit: int) -> int:
    """The smallest shift with which a window of `limit` octets can be said."""
    scale = 0
    while scale < WINDOW_SCALE_MAX and 0xFFFF << scale < limit:
        scale += 1
    return scale
