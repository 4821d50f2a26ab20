"""SYN cookies: a handshake without memory, for listeners whose queue of half-open connections is full.

    our initial sequence number     31..27 minute | 26..24 index of the MSS | 23..0 keyed hash
    low bits of our timestamp       5 ECN | 4 SACK permitted | 3..0 window scale, 15 for none

What the SYN said comes back with the last ACK of the handshake: in our own sequence number, and, where the peer uses
timestamps, in the echo of ours. Without timestamps the connection has neither scale nor SACK.

Source: RFC 4987 section 3.6; the layout is that of D. J. Bernstein (1996), the timestamp bits an idea of Linux.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from wgpy.wire.tcp import Segment

if TYPE_CHECKING:
    from wgpy.netstack.ports import Secret

__all__ = ["COOKIE_LIFETIME", "initial_sequence", "restore", "timestamp"]

_MINUTE: Final = 64.0
_MINUTES_VALID: Final = 2
# How long after the last cookie an ACK is worth a look.
COOKIE_LIFETIME: Final = _MINUTE * (_MINUTES_VALID + 1)
_HASH_BITS: Final = 24
# What people announce, from below (L: msstab has four of IPv4 and four of IPv6).
_MSS: Final = (216, 536, 1220, 1300, 1360, 1380, 1440, 8960)
_NO_SCALE: Final = 15
_OPTION_BITS: Final = 6
_SACK_BIT: Final = 16
_ECN_BIT: Final = 32


def initial_sequence(secret: Secret, flow: bytes, syn: Segment, now: float) -> int:
    """The sequence number of the SYN-ACK: it remembers the MSS, and only the holder of the secret can make it."""
    minute = int(now / _MINUTE) & 31
    mss = syn.mss or 536
    index = max((place for place, size in enumerate(_MSS) if size <= mss), default=0)
    return minute << 27 | index << _HASH_BITS | _hash(secret, flow, syn.sequence, minute << 3 | index)


def timestamp(clock: int, syn: Segment, *, is_ecn: bool) -> int:
    """Our timestamp with the options of the SYN in its low bits; never ahead of the clock."""
    scale = _NO_SCALE if syn.scale is None else syn.scale
    bits = scale | (_SACK_BIT if syn.sack_permitted else 0) | (_ECN_BIT if is_ecn else 0)
    value = clock >> _OPTION_BITS << _OPTION_BITS | bits
    return (value if value <= clock else value - (1 << _OPTION_BITS)) & 0xFFFFFFFF


def restore(secret: Secret, flow: bytes, ack: Segment, now: float) -> tuple[int, Segment, bool] | None:
    """What the SYN said, from the ACK that completes the handshake; None where it answers no cookie of ours.

    Returns:
        Our initial sequence number, the SYN as far as it is remembered, and whether ECN was agreed.
    """
    cookie = (ack.acknowledgement - 1) & 0xFFFFFFFF
    syn_sequence = (ack.sequence - 1) & 0xFFFFFFFF
    minute, index = cookie >> 27, cookie >> _HASH_BITS & 7
    if (int(now / _MINUTE) - minute) & 31 > _MINUTES_VALID:
        return None
    if cookie & (1 << _HASH_BITS) - 1 != _hash(secret, flow, syn_sequence, minute << 3 | index):
        return None
    scale, has_sack, is_ecn = None, False, False
    if ack.timestamps is not None:
        echo = ack.timestamps[1]
        scale = echo & 15 if echo & 15 != _NO_SCALE else None
        has_sack, is_ecn = bool(echo & _SACK_BIT), bool(echo & _ECN_BIT)
    syn = Segment(
        ack.source_port,
        ack.destination_port,
        syn_sequence,
        0,
        0,
        ack.window,
        mss=_MSS[index],
        scale=scale,
        timestamps=ack.timestamps,
        sack_permitted=has_sack,
    )
    return cookie, syn, is_ecn


def _hash(secret: Secret, flow: bytes, sequence: int, more: int) -> int:
    return secret.number(b"cookie", flow + sequence.to_bytes(4) + more.to_bytes(1), _HASH_BITS // 8)
