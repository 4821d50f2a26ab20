"""Token bucket per source address, consulted under load and only after a valid mac2 (whitepaper 5.3, 5.4.7.

Lesson S7).
"""

from __future__ import annotations

from wgpy.constants import RATELIMIT_BUCKET, RATELIMIT_IDLE, RATELIMIT_MAX_SOURCES, RATELIMIT_PACKET_COST

__all__ = ["RateLimiter"]


class RateLimiter:
    """Twenty handshake messages per second and source, in bursts of five.

    A source is an IPv4 address or an IPv6 /64: whoever holds one IPv6 address usually holds the whole /64 (lesson S8).
    """

    __slots__ = ("_buckets", "_swept_at")

    def __init__(self) -> None:
        """Start with no source known."""
        self._buckets: dict[bytes, tuple[float, float]] = {}  # source -> (seconds of credit, when that was)
        self._swept_at = float("-inf")

    def allow(self, address: bytes, now: float) -> bool:
        """Take one token of the source; False when it has none left, or too many sources are known already.

        Args:
            address: 4 or 16 octets.
            now: engine time.
        """
        self.sweep(now)
        source = address if len(address) == 4 else address[:8]
        bucket = self._buckets.get(source)
        if bucket is None:
            if len(self._buckets) >= RATELIMIT_MAX_SOURCES:
                return False
            credit = RATELIMIT_BUCKET
        else:
            credit = min(RATELIMIT_BUCKET, bucket[0] + now - bucket[1])
        allowed = credit >= RATELIMIT_PACKET_COST
        self._buckets[source] = (credit - RATELIMIT_PACKET_COST if allowed else credit, now)
        return allowed

    def __len__(self) -> int:
        """How many sources are known."""
        return len(self._buckets)

    def sweep_deadline(self) -> float | None:
        """When `sweep` has something to do, None while no source is known."""
        return self._swept_at + RATELIMIT_IDLE if self._buckets else None

    def sweep(self, now: float) -> None:
        """Forget sources that were silent for a second: their buckets are full again. At most once a second."""
        if now - self._swept_at < RATELIMIT_IDLE:
            return
        self._swept_at = now
        self._buckets = {
            source: bucket for source, bucket in self._buckets.items() if now - bucket[1] <= RATELIMIT_IDLE
        }
