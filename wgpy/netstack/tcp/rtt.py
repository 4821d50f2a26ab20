"""How long a round trip takes, and how long to wait before sending again.

Source: RFC 6298; the floor and the smallest RTT of the last minutes as Linux has them.
"""

from __future__ import annotations

from typing import Final

from wgpy.netstack.constants import CLOCK_GRANULARITY, NEVER, RTO_INITIAL, RTO_MAX, RTO_MIN

__all__ = ["RoundTrip"]

_MIN_RTT_AGE: Final = 300.0  # L: tcp_min_rtt_wlen


class RoundTrip:
    """Estimates of one connection.

    Attributes:
        smoothed: SRTT, seconds; 0 before the first sample.
        variation: RTTVAR.
        smallest: of the last minutes; NEVER before the first sample.
        latest: the last sample.
        backoff: how often the timer was doubled (RFC 6298 5.5).
    """

    __slots__ = ("_smallest_at", "backoff", "initial", "latest", "smallest", "smoothed", "variation")

    def __init__(self) -> None:
        """Know nothing."""
        self.smoothed = 0.0
        self.variation = 0.0
        self.smallest = NEVER
        self.latest = 0.0
        self.backoff = 0
        self.initial = RTO_INITIAL
        self._smallest_at = 0.0

    def sample(self, seconds: float, now: float) -> None:
        """Take one measurement of a segment that was sent once (Karn), or by its timestamp (RFC 7323 4)."""
        # A clock that stands still for a batch measures zero: no path is that short (RFC 6298 section 4).
        rtt = max(seconds, 1e-6)
        self.latest = rtt
        if rtt <= self.smallest or now - self._smallest_at > _MIN_RTT_AGE:
            self.smallest = rtt
            self._smallest_at = now
        if not self.smoothed:
            self.smoothed = rtt
            self.variation = rtt / 2
        else:
            # RFC 6298 2.3: the variation first, from the old SRTT.
            self.variation += (abs(self.smoothed - rtt) - self.variation) / 4
            self.smoothed += (rtt - self.smoothed) / 8
        self.backoff = 0

    @property
    def timeout(self) -> float:
        """RTO with its backoff, seconds."""
        if self.smoothed:
            base = max(RTO_MIN, self.smoothed + max(CLOCK_GRANULARITY, 4 * self.variation))
        else:
            base = self.initial
        return min(RTO_MAX, base * 2.0 ** min(self.backoff, 10))
