"""HyStart++: leave slow start when the RTT grows, before the queue overflows.

Rounds are measured by sequence numbers. When a round's smallest RTT is clearly above the previous one's, growth is
slowed (Conservative Slow Start); five such rounds end slow start, a falling RTT takes it back.

Source: RFC 9406 section 4.2.
"""

from __future__ import annotations

from wgpy.netstack.constants import (
    HYSTART_CSS_GROWTH_DIVISOR,
    HYSTART_CSS_ROUNDS,
    HYSTART_MAX_RTT_THRESHOLD,
    HYSTART_MIN_RTT_THRESHOLD,
    HYSTART_RTT_DIVISOR,
    HYSTART_SAMPLES,
    NEVER,
)

__all__ = ["HyStart"]


class HyStart:
    """State of one slow start."""

    __slots__ = ("baseline", "css_rounds", "current", "is_conservative", "last", "round_end", "samples")

    def __init__(self) -> None:
        """Begin with the first round."""
        self.round_end = -1
        self.last = NEVER
        self.current = NEVER
        self.samples = 0
        self.is_conservative = False
        self.baseline = NEVER
        self.css_rounds = 0

    def growth(self, acked: int) -> int:
        """Octets by which slow start may grow for so many acknowledged."""
        return acked // HYSTART_CSS_GROWTH_DIVISOR if self.is_conservative else acked

    def acknowledged(self, una: int, nxt: int, rtt: float | None) -> bool:
        """Look at one ACK; whether slow start is over."""
        is_over = False
        if una > self.round_end:
            if self.is_conservative:
                self.css_rounds += 1
                is_over = self.css_rounds >= HYSTART_CSS_ROUNDS
            self.last, self.current, self.samples = self.current, NEVER, 0
            self.round_end = nxt
        if rtt is None:
            return is_over
        self.current = min(self.current, rtt)
        self.samples += 1
        if self.samples < HYSTART_SAMPLES or self.current == NEVER or self.last == NEVER:
            return is_over
        if not self.is_conservative:
            threshold = max(HYSTART_MIN_RTT_THRESHOLD, min(self.last / HYSTART_RTT_DIVISOR, HYSTART_MAX_RTT_THRESHOLD))
            if self.current >= self.last + threshold:
                self.baseline = self.current
                self.is_conservative = True
                self.css_rounds = 0
        elif self.current < self.baseline:
            self.is_conservative = False
            self.baseline = NEVER
        return is_over
