"""The timestamp of an initiation: TAI64N, big-endian, rounded down so that it tells little about our clock.

Source: WireGuard whitepaper, section 5.4.2 and 5.1; base and granularity as in the Linux driver.
"""

from __future__ import annotations

from typing import Final

from wgpy.constants import TAI64_BASE, TIMESTAMP_GRANULARITY_NS

__all__ = ["next_after", "timestamp"]

_SECOND: Final = 10**9


def timestamp(unix_seconds: float) -> bytes:
    """The 12 octets for a moment of the wall clock; compare them as octets."""
    seconds, nanoseconds = divmod(int(unix_seconds * _SECOND), _SECOND)
    return _encode(seconds + TAI64_BASE, nanoseconds - nanoseconds % TIMESTAMP_GRANULARITY_NS)


def next_after(previous: bytes, unix_seconds: float) -> bytes:
    """The timestamp of now, or one step above `previous` where that is later.

    Two initiations within one step would carry equal timestamps, and the responder would drop the second (trap T14).
    """
    seconds, nanoseconds = int.from_bytes(previous[:8]), int.from_bytes(previous[8:])
    nanoseconds += TIMESTAMP_GRANULARITY_NS
    if nanoseconds >= _SECOND:
        seconds, nanoseconds = seconds + 1, 0
    return max(timestamp(unix_seconds), _encode(seconds, nanoseconds))


def _encode(seconds: int, nanoseconds: int) -> bytes:
    return seconds.to_bytes(8) + nanoseconds.to_bytes(4)
