"""Proportional Rate Reduction: how much each ACK lets out during fast recovery.

Source: RFC 9937 section 6.
"""

from __future__ import annotations

__all__ = ["ProportionalRate"]


class ProportionalRate:
    """State of one recovery.

    Attributes:
        recover_flight: octets in flight when it began (RecoverFS).
        delivered: octets that arrived since (prr_delivered).
        out: octets sent since (prr_out).
    """

    __slots__ = ("delivered", "out", "recover_flight")

    def __init__(self, flight: int) -> None:
        """Begin a recovery with so many octets between SND.UNA and SND.NXT that were not SACKed before."""
        self.recover_flight = max(flight, 1)
        self.delivered = 0
        self.out = 0

    def window(self, delivered: int, pipe: int, ssthresh: int, mss: int, *, is_safe: bool) -> int:
        """The congestion window after an ACK.

        Args:
            delivered: octets newly known to have arrived, cumulative and SACKed together.
            pipe: octets in flight now.
            ssthresh: where to end.
            mss: of a segment.
            is_safe: the ACK advanced SND.UNA and showed no new loss (SafeACK).
        """
        self.delivered += delivered
        if pipe > ssthresh:
            send = -(-self.delivered * ssthresh // self.recover_flight) - self.out
        else:
            # Slow start towards ssthresh while nothing more is lost, packet conservation otherwise.
            send = max(self.delivered - self.out, delivered)
            if is_safe:
                send += mss
            send = min(ssthresh - pipe, send)
        if self.out == 0 and send < mss:
            send = mss  # the fast retransmit itself goes out in any case
        return pipe + max(send, 0)
