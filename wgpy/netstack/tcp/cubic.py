"""How much may be in flight: slow start, CUBIC, and what a loss, a timeout or idleness do to it.

Windows are octets; the formulas of the RFC count segments, so they are divided by the MSS where they are used.

Source: RFC 9438, RFC 5681, RFC 6928, RFC 9406; validation of the window while the application sends less: RFC 5681 4.1
and the cap of RFC 7661's idea, twice of what was in flight.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from wgpy.netstack.constants import CUBIC_BETA, CUBIC_C, INITIAL_WINDOW, MINIMUM_WINDOW
from wgpy.netstack.tcp.hystart import HyStart

__all__ = ["Cubic"]

_UNLIMITED: Final = 1 << 40
# RFC 9438 4.3: the share that makes the Reno-friendly region as fast as Reno.
_ALPHA: Final = 3 * (1 - CUBIC_BETA) / (1 + CUBIC_BETA)


class _Before(NamedTuple):
    cwnd: int
    ssthresh: int
    w_max: float
    prior: float
    epoch: float | None
    k: float
    w_est: float


class Cubic:
    """The congestion window of one connection.

    Attributes:
        mss: octets of a full segment's payload.
        cwnd: octets.
        ssthresh: octets.
    """

    __slots__ = (
        "_before",
        "_epoch",
        "_fraction",
        "_k",
        "_prior",
        "_w_est",
        "_w_max",
        "cwnd",
        "hystart",
        "mss",
        "ssthresh",
    )

    def __init__(self, mss: int) -> None:
        """Begin with the initial window of RFC 6928."""
        self.mss = mss
        self.cwnd = initial_window(mss)
        self.ssthresh = _UNLIMITED
        self.hystart: HyStart | None = HyStart()
        self._w_max = 0.0
        self._prior = 0.0
        self._epoch: float | None = None
        self._k = 0.0
        self._w_est = 0.0
        self._fraction = 0.0
        self._before: _Before | None = None

    @property
    def is_slow_start(self) -> bool:
        """Whether the window still doubles."""
        return self.cwnd < self.ssthresh

    def acknowledged(
        self, octets: int, now: float, *, srtt: float, una: int, nxt: int, is_limited: bool, rtt: float | None
    ) -> None:
        """Grow for octets that were acknowledged outside of recovery.

        Args:
            octets: newly acknowledged.
            now: the time.
            srtt: smoothed RTT.
            una: SND.UNA after the ACK.
            nxt: SND.NXT.
            is_limited: the window was what held us back; one that is not used does not grow (RFC 7661's concern).
            rtt: the sample of this ACK, if it gave one.
        """
        is_first_slow_start = self.ssthresh >= _UNLIMITED
        if is_first_slow_start and self.hystart is not None and self.hystart.acknowledged(una, nxt, rtt):
            self.ssthresh = self.cwnd
        if not is_limited:
            # RFC 9438 5.8: time in which the window was not used does not count.
            self._epoch = None
            return
        if self.cwnd < self.ssthresh:
            growth = octets
            if is_first_slow_start and self.hystart is not None:
                growth = self.hystart.growth(octets)
            room = self.ssthresh - self.cwnd
            self.cwnd += min(growth, room)
            if growth <= room:
                return
            octets = growth - room
        self._avoid(octets, now, srtt)

    def _avoid(self, octets: int, now: float, srtt: float) -> None:
        mss = self.mss
        cwnd = self.cwnd / mss
        acked = octets / mss
        if self._epoch is None:
            self._epoch = now
            self._w_est = cwnd
            if self._w_max > cwnd:
                self._k = ((self._w_max - cwnd) / CUBIC_C) ** (1 / 3)
            else:
                self._w_max = cwnd
                self._k = 0.0
        t = now - self._epoch
        # RFC 9438 4.3: Reno's window, at Reno's own speed once it has what it had before.
        alpha = 1.0 if self._w_est >= self._prior else _ALPHA
        self._w_est += alpha * acked / cwnd
        here = CUBIC_C * (t - self._k) ** 3 + self._w_max
        if here < self._w_est:
            target = self._w_est
            growth = target - cwnd
        else:
            target = CUBIC_C * (t + srtt - self._k) ** 3 + self._w_max
            target = min(max(target, cwnd), 1.5 * cwnd)
            growth = (target - cwnd) * min(1.0, acked / cwnd)
        self._fraction += max(growth, 0.0) * mss
        whole = int(self._fraction)
        self._fraction -= whole
        self.cwnd += whole

    def congested(self, flight: int) -> None:
        """A loss or a congestion mark: a new epoch, and ssthresh; the window itself follows by PRR (RFC 9438 4.6)."""
        self._remember()
        cwnd = self.cwnd / self.mss
        # RFC 9438 4.7, fast convergence: a window that shrinks twice leaves room for newcomers.
        self._w_max = cwnd * (1 + CUBIC_BETA) / 2 if cwnd < self._w_max else cwnd
        self._prior = cwnd
        # The flight, not the window: what was never in flight says nothing about the path.
        self.ssthresh = max(int(min(flight, self.cwnd) * CUBIC_BETA), MINIMUM_WINDOW * self.mss)
        self._epoch = None
        self.hystart = None

    def timed_out(self, flight: int, *, is_first: bool) -> None:
        """A retransmission timeout: one segment, and slow start up to ssthresh (RFC 9438 4.8, RFC 5681 3.1)."""
        if is_first:
            self.congested(flight)
        self.cwnd = self.mss

    def recovered(self) -> None:
        """Fast recovery is over."""
        self.cwnd = max(self.ssthresh, MINIMUM_WINDOW * self.mss)

    def undo(self) -> None:
        """The reduction was wrong: take it back (RFC 9438 4.9)."""
        if self._before is None:
            return
        before = self._before
        self.cwnd = max(self.cwnd, before.cwnd)
        self.ssthresh = max(self.ssthresh, before.ssthresh)
        self._w_max, self._prior, self._epoch, self._k, self._w_est = before[2:]
        self._before = None

    def restart_after_idle(self) -> None:
        """Nothing was sent for an RTO: what was known about the path is stale (RFC 5681 4.1)."""
        if self.cwnd > initial_window(self.mss):
            # What slow start may return to, as Linux keeps three quarters of the old window.
            self.ssthresh = max(self.ssthresh if self.ssthresh < _UNLIMITED else 0, self.cwnd * 3 // 4)
            self.cwnd = initial_window(self.mss)
        self._epoch = None

    def set_mss(self, mss: int) -> None:
        """Segments have another size from now on; what may be in flight stays (RFC 5681 3.1 counts octets)."""
        self.mss = mss
        self.cwnd = max(self.cwnd, mss)

    def _remember(self) -> None:
        self._before = _Before(self.cwnd, self.ssthresh, self._w_max, self._prior, self._epoch, self._k, self._w_est)


def initial_window(mss: int) -> int:
    """RFC 6928: ten segments, fewer of large ones but never less than two."""
    return min(INITIAL_WINDOW * mss, max(2 * mss, 14600))
