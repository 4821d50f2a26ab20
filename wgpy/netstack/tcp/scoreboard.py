"""What is between SND.UNA and SND.NXT, as runs of segments: which arrived, which are lost, when each was sent.

A run is what one emission sent, up to 60 KB of it; it is split only where an acknowledgement, a SACK block or a
retransmission cuts it, always between segments. So a clean path costs one object per slab, not one per segment.

    pipe = NXT - UNA - sacked - lost                octets in flight, as RFC 6675 counts them

Source: RFC 2018, RFC 6675 sections 3 and 4, RFC 2883.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from wgpy.netstack.constants import MAX_PIECES

__all__ = ["Delivered", "Run", "Scoreboard"]


class Run:
    """Neighbouring segments that were sent together.

    Attributes:
        start: sequence number, absolute.
        end: of the octet after the last one.
        size: octets per segment, only the last has fewer.
        sent_at: when it was sent last.
        is_retransmitted: it was sent more than once.
        is_sacked: the peer holds it.
        is_lost: it must be sent again.
        delivered: octets that had been delivered in all when it was sent, for the delivery rate.
        delivered_at: when the last of these was.
    """

    __slots__ = (
        "delivered",
        "delivered_at",
        "end",
        "is_lost",
        "is_retransmitted",
        "is_sacked",
        "sent_at",
        "size",
        "start",
    )

    def __init__(self, start: int, end: int, size: int, sent_at: float, delivered: int, delivered_at: float) -> None:
        """A run sent just now."""
        self.start = start
        self.end = end
        self.size = size
        self.sent_at = sent_at
        self.is_retransmitted = False
        self.is_sacked = False
        self.is_lost = False
        self.delivered = delivered
        self.delivered_at = delivered_at

    def split(self, at: int) -> Run:
        """Keep what is before `at`; return the rest."""
        rest = Run(at, self.end, self.size, self.sent_at, self.delivered, self.delivered_at)
        rest.is_retransmitted = self.is_retransmitted
        rest.is_sacked = self.is_sacked
        rest.is_lost = self.is_lost
        self.end = at
        return rest


class Delivered(NamedTuple):
    """A stretch that the peer was just seen to hold, cumulatively or by SACK."""

    start: int
    end: int
    sent_at: float
    is_retransmitted: bool
    delivered: int
    delivered_at: float


class Scoreboard:
    """The runs of one connection, in order, without gaps.

    Attributes:
        runs: all of them; look, do not change.
        sacked: octets that the peer holds beyond UNA.
        lost: octets to be sent again.
        highest_sacked: end of the highest octet that was ever SACKed; 0 before.
    """

    __slots__ = ("_seen", "highest_sacked", "lost", "retransmitted", "runs", "sacked")

    def __init__(self) -> None:
        """Nothing was sent."""
        self.runs: list[Run] = []
        self.sacked = 0
        self.lost = 0
        self.retransmitted = 0
        self.highest_sacked = 0
        self._seen: tuple[tuple[int, int], ...] = ()

    def append(self, run: Run) -> None:
        """Note what was sent for the first time."""
        self.runs.append(run)

    # --- what arrived ------------------------------------------------------------------------------------------------

    def acknowledge(self, una: int, arrived: list[Delivered]) -> int:
        """Forget what is below `una`, and add to `arrived` what was not known to have arrived.

        Returns:
            Octets newly delivered.
        """
        runs = self.runs
        done = 0
        octets = 0
        for run in runs:
            if run.start >= una:
                break
            end = run.end if run.end <= una else una
            length = end - run.start
            if run.is_sacked:
                self.sacked -= length
            else:
                octets += length
                arrived.append(
                    Delivered(run.start, end, run.sent_at, run.is_retransmitted, run.delivered, run.delivered_at)
                )
                if run.is_lost:
                    self.lost -= length
            if run.is_retransmitted:
                self.retransmitted -= length
            if run.end <= una:
                done += 1
            else:
                run.start = una
                break
        if done:
            del runs[:done]
        return octets

    def sack(self, blocks: tuple[tuple[int, int], ...], arrived: list[Delivered]) -> int:
        """Mark what the blocks cover, rounded inward to whole segments; blocks lie within UNA and NXT.

        Returns:
            Octets newly delivered.
        """
        if blocks == self._seen:
            return 0  # most ACKs of a hole repeat most of what was said before
        self._seen = blocks
        octets = 0
        for left, right in blocks:
            octets += self._sack_block(left, right, arrived)
        return octets

    def _sack_block(self, left: int, right: int, arrived: list[Delivered]) -> int:
        runs = self.runs
        at = max(bisect_right(runs, left, key=_start) - 1, 0)
        octets = 0
        while at < len(runs):
            run = runs[at]
            if run.start >= right:
                break
            if run.end <= left or run.is_sacked:
                at += 1
                continue
            start, end, size = run.start, run.end, run.size
            if left > start:
                start += -(-(left - start) // size) * size
            if right < end:
                end = run.start + (right - run.start) // size * size
            if start >= end:
                at += 1
                continue
            if len(runs) + 2 > MAX_PIECES and (start > run.start or end < run.end):
                break
            if start > run.start:
                at += 1
                rest = run.split(start)
                runs.insert(at, rest)
                run = rest
            if end < run.end:
                runs.insert(at + 1, run.split(end))
            length = end - start
            run.is_sacked = True
            self.sacked += length
            if run.is_lost:
                run.is_lost = False
                self.lost -= length
            octets += length
            self.highest_sacked = max(self.highest_sacked, end)
            arrived.append(Delivered(start, end, run.sent_at, run.is_retransmitted, run.delivered, run.delivered_at))
            at += 1
        return octets

    def has_sacked(self, segments: int) -> bool:
        """Whether at least so many segments were SACKed."""
        if not self.sacked:
            return False
        for run in self.runs:
            if run.is_sacked:
                segments += (run.start - run.end) // run.size  # minus the segments, rounded up
                if segments <= 0:
                    return True
        return False

    # --- what is lost ------------------------------------------------------------------------------------------------

    def mark_lost(self, run: Run) -> None:
        """It must be sent again."""
        if not run.is_lost and not run.is_sacked:
            run.is_lost = True
            self.lost += run.end - run.start

    def mark_first_lost(self, una: int) -> bool:
        """The segment at `una` must be sent again; whether it was not known to be lost (for peers without SACK)."""
        if not self.runs:
            return False
        run = self.runs[0]
        if run.is_lost or run.is_sacked:
            return False
        if run.end - run.start > run.size:
            self.runs.insert(1, run.split(run.start + run.size))
        self.mark_lost(run)
        return True

    def mark_all_lost(self) -> None:
        """After a retransmission timeout nothing counts as in flight (RFC 6675 5.1)."""
        for run in self.runs:
            self.mark_lost(run)

    def forget_losses(self) -> None:
        """What was taken for lost is in flight after all."""
        for run in self.runs:
            run.is_lost = False
        self.lost = 0

    def forget_sacks(self) -> None:
        """The peer may discard what it SACKed (RFC 2018 section 8), and it was seen to."""
        for run in self.runs:
            run.is_sacked = False
        self.sacked = 0
        self._seen = ()

    def first_lost(self) -> Run | None:
        """The first run that must be sent again."""
        if not self.lost:
            return None
        for run in self.runs:
            if run.is_lost:
                return run
        return None

    def last_segment(self) -> Run | None:
        """The last segment sent that did not arrive, cut out as a run of its own (for a tail loss probe)."""
        for at in range(len(self.runs) - 1, -1, -1):
            run = self.runs[at]
            if run.is_sacked:
                continue
            length = run.end - run.start
            if length > run.size:
                rest = run.split(run.start + (length - 1) // run.size * run.size)
                self.runs.insert(at + 1, rest)
                return rest
            return run
        return None

    def resent(self, run: Run, limit: int, now: float, delivered: int, delivered_at: float) -> Run:
        """Note that the first `limit` octets of a run, whole segments, are sent again now; returns that part."""
        if run.end - run.start > limit:
            at = self.runs.index(run)
            self.runs.insert(at + 1, run.split(run.start + limit))
        length = run.end - run.start
        if run.is_lost:
            run.is_lost = False
            self.lost -= length
        if not run.is_retransmitted:
            run.is_retransmitted = True
            self.retransmitted += length
        run.sent_at = now
        run.delivered = delivered
        run.delivered_at = delivered_at
        return run

    def cut_to(self, size: int) -> None:
        """Segments have at most so many octets from now on (a smaller path MTU); what is out keeps its edges."""
        for run in self.runs:
            run.size = min(run.size, size)


def _start(run: Run) -> int:
    return run.start
