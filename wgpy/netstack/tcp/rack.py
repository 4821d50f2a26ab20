"""RACK-TLP: a segment is lost when one sent clearly later arrived; and a probe when nothing arrives at all.

    Delivered stretches -> update -> what was sent last among all that arrived (xmit, end)
    runs sent before that, by more than the reordering window -> lost

The reordering window starts at a quarter of the smallest RTT and is zero while no reordering was ever seen and three
segments were SACKed, so that classic fast retransmit is as fast as ever; it widens when DSACKs say that we were wrong.

Source: RFC 8985 sections 6 and 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wgpy.netstack.constants import (
    CLOCK_GRANULARITY,
    DUP_THRESHOLD,
    NEVER,
    REORDER_STEPS_MAX,
    REORDER_WINDOW_SHARE,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wgpy.netstack.tcp.rtt import RoundTrip
    from wgpy.netstack.tcp.scoreboard import Delivered, Scoreboard

__all__ = ["Rack"]


class Rack:
    """State of one connection.

    Attributes:
        xmit: when the most recently sent of all delivered segments was sent.
        end: its end.
        rtt: how long it took.
        highest: end of the highest delivered octet (RACK.fack).
        is_reordering_seen: something never retransmitted arrived below `highest`.
    """

    __slots__ = ("_dsack_round", "_persist", "_steps", "end", "highest", "is_reordering_seen", "rtt", "xmit")

    def __init__(self) -> None:
        """Nothing was delivered."""
        self.xmit = -NEVER
        self.end = 0
        self.rtt = 0.0
        self.highest = 0
        self.is_reordering_seen = False
        self._steps = 1
        self._persist = REORDER_STEPS_MAX
        self._dsack_round = -1

    def update(self, arrived: Iterable[Delivered], now: float, trip: RoundTrip, *, echoed_after: float) -> None:
        """Steps 1 to 3 of section 6.2.

        Args:
            arrived: what the ACK newly delivered.
            now: the time.
            trip: for its smallest RTT.
            echoed_after: when the segment was sent whose timestamp the ACK echoes; NEVER without timestamps. A
                retransmission sent after that is not what arrived.
        """
        for one in sorted(arrived, key=_end):
            if not one.is_retransmitted and one.end < self.highest:
                self.is_reordering_seen = True
            self.highest = max(self.highest, one.end)
            rtt = now - one.sent_at
            if one.is_retransmitted and (
                one.sent_at > echoed_after + CLOCK_GRANULARITY or (trip.smallest < NEVER and rtt < trip.smallest)
            ):
                continue
            if (one.sent_at, one.end) > (self.xmit, self.end):
                self.xmit = one.sent_at
                self.end = one.end
            self.rtt = now - self.xmit

    def note_dsack(self, una: int, nxt: int) -> None:
        """A DSACK: we sent something twice for nothing, so wait longer from now on; once per round trip."""
        if una >= self._dsack_round:
            self._steps = min(self._steps + 1, REORDER_STEPS_MAX * REORDER_WINDOW_SHARE)
            self._persist = REORDER_STEPS_MAX
            self._dsack_round = nxt

    def note_recovery_end(self) -> None:
        """After 16 recoveries without a DSACK the window starts small again."""
        self._persist -= 1
        if self._persist <= 0:
            self._steps = 1

    def window(self, trip: RoundTrip, board: Scoreboard, *, in_recovery: bool) -> float:
        """How much later something must have been sent before we call a segment lost, seconds."""
        if not self.is_reordering_seen and (in_recovery or board.has_sacked(DUP_THRESHOLD)):
            return 0.0
        smallest = trip.smallest if trip.smallest < NEVER else 0.0
        window = max(self._steps * smallest / REORDER_WINDOW_SHARE, CLOCK_GRANULARITY)
        return min(window, max(trip.smoothed, CLOCK_GRANULARITY))

    def detect(self, board: Scoreboard, now: float, window: float) -> tuple[int, float]:
        """Mark what is lost (section 6.2 step 5).

        Returns:
            Octets newly lost, and after how many seconds to look again; 0.0 when there is nothing to wait for.
        """
        lost = 0
        wait = 0.0
        if not board.sacked and not board.retransmitted:
            # In order and sent once: whatever is left was sent after all that arrived.
            return 0, 0.0
        in_order = not board.retransmitted
        latest = self.xmit, self.end
        for run in board.runs:
            if (run.sent_at, run.end) >= latest:
                if in_order:
                    break
                continue
            if run.is_sacked or run.is_lost:
                continue
            remaining = run.sent_at + self.rtt + window - now
            if remaining <= 1e-9:
                board.mark_lost(run)
                lost += run.end - run.start
            else:
                wait = max(wait, remaining)
        return lost, wait


def _end(one: Delivered) -> int:
    return one.end
