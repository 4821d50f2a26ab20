"""What an acknowledgement says: octets that arrived, a window, a round trip, perhaps a loss.

    acknowledge -> range check (RFC 5961) -> window -> cumulative and SACK -> RTT -> RACK -> recovery -> cwnd -> timer

Source: RFC 9293 3.10.7.4, RFC 5961 section 5, RFC 6675, RFC 8985, RFC 9937, RFC 6582 (peers without SACK), RFC 3522,
RFC 5682.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wgpy.errors import DropReason
from wgpy.netstack.constants import CLOCK_GRANULARITY, DUP_THRESHOLD, NEVER
from wgpy.netstack.tcp import sender as sending
from wgpy.netstack.tcp.options import unwrapped
from wgpy.netstack.tcp.prr import ProportionalRate
from wgpy.netstack.tcp.sender import Recovery, Timer
from wgpy.netstack.tcp.states import Event
from wgpy.wire import tcp

if TYPE_CHECKING:
    from wgpy.netstack.tcp.connection import TcpConnection
    from wgpy.netstack.tcp.scoreboard import Delivered
    from wgpy.wire.tcp import Segment

__all__ = ["acknowledge", "detect_losses", "echoed_after", "enter_recovery"]


def acknowledge(
    conn: TcpConnection, segment: Segment, flags: int, sequence: int, length: int, now: float
) -> DropReason | None:
    """Take the acknowledgement of an acceptable segment; says why, where the segment is to be dropped."""
    sender = conn.sender
    ack = unwrapped(segment.acknowledgement, sender.una)
    # RFC 5961 section 5 takes what is older by a window at most. Octets that were never sent are no older ones (L).
    if ack > sender.nxt or ack <= sender.iss or ack < sender.una - max(sender.max_window, 0xFFFF):
        conn.challenge(now)
        return DropReason.TCP_BLIND
    was_writable = conn.is_writable
    window_before = sender.window
    before = sender.una
    # RFC 9293 3.10.7.4, and whenever something new is acknowledged: else SND.UNA would move the old window along, and
    # its edge beyond what was promised.
    if ack > before or sender.wl1 < sequence or (sender.wl1 == sequence and sender.wl2 <= ack):
        sender.window = segment.window << sender.scale
        sender.max_window = max(sender.max_window, sender.window)
        sender.wl1, sender.wl2 = sequence, ack
    # Whoever answers is there, even with a closed window (RFC 9293 3.8.6.1).
    if sender.timer is Timer.PERSIST:
        sender.retries = 0
    if before == sender.nxt and ack == before and not segment.sack and sender.tlp_end is None:
        return None  # nothing is in flight, nothing can be said about it

    arrived: list[Delivered] = []
    delivered = 0
    if ack > before:
        delivered = sender.board.acknowledge(ack, arrived)
        sender.una = ack
        sender.buffer.release(ack)
        sender.retries = 0
        sender.progress_at = now if sender.nxt > ack else NEVER
        sender.tlp_used = False
    has_dsack = False
    if segment.sack and conn.has_sack:
        octets, has_dsack = _take_blocks(conn, segment, ack, arrived)
        delivered += octets
    echoed = echoed_after(conn, segment, now)
    rtt = _measure(conn, arrived, now, echoed)
    if delivered:
        sender.delivered += delivered
        sender.delivered_at = now
        last = arrived[-1]
        if last.end - last.start >= sender.payload:
            sender.carries_full = True
        if now > last.delivered_at:
            sender.rate = (sender.delivered - last.delivered) / (now - last.delivered_at)
    if sender.retransmitted_at != NEVER and ack > before:
        _consider_undo(conn, echoed)
    if sender.recovery is Recovery.LOSS and conn.has_sack:
        arrived = _consider_originals(conn, arrived)
    if has_dsack:
        sender.rack.note_dsack(sender.una, sender.nxt)
        _count_dsack(conn)
    if sender.tlp_end is not None:
        _end_probe(conn, ack, has_dsack=has_dsack, is_duplicate=ack == before and not delivered and not length)
    newly_lost = 0
    if conn.has_sack:
        sender.rack.update(arrived, now, conn.trip, echoed_after=echoed)
        newly_lost = detect_losses(conn, now)
    else:
        is_duplicate = (
            ack == before
            and not length
            and not flags & (tcp.SYN | tcp.FIN)
            and sender.window == window_before
            and sender.nxt > ack
        )
        newly_lost = _count_duplicates(conn, ack - before, is_duplicate=is_duplicate)
    _control_window(conn, before, delivered, newly_lost, now, rtt=rtt, has_ece=bool(conn.is_ecn and flags & tcp.ECE))
    if ack > before or delivered:
        sending.arm(conn, now)
    if sender.fin is not None and sender.una > sender.fin:
        conn.transition(Event.FIN_ACKED, now)
    if not was_writable and conn.is_writable:
        conn.host.mark_ready(conn)
    return None


# --- SACK ------------------------------------------------------------------------------------------------------------


def _take_blocks(conn: TcpConnection, segment: Segment, ack: int, arrived: list[Delivered]) -> tuple[int, bool]:
    """Octets newly SACKed, and whether the first block reports a duplicate (RFC 2883 section 5)."""
    sender = conn.sender
    una, nxt = sender.una, sender.nxt
    blocks = [(unwrapped(left, una), unwrapped(right, una)) for left, right in segment.sack]
    has_dsack = False
    left, right = blocks[0]
    if left < right and (
        right <= ack or (len(blocks) > 1 and blocks[1][0] <= left and right <= blocks[1][1] and left < nxt)
    ):
        has_dsack = right > una - max(sender.max_window, 0xFFFF)
        del blocks[0]
    valid = tuple((max(left, una), right) for left, right in blocks if una < right <= nxt and left < right)
    return (sender.board.sack(valid, arrived) if valid else 0), has_dsack


def _count_dsack(conn: TcpConnection) -> None:
    """One retransmission was for nothing; when all of a recovery were, so was the reduction."""
    sender = conn.sender
    conn.spurious += 1
    if sender.undo_retransmissions > 0:
        sender.undo_retransmissions -= 1
        if sender.undo_retransmissions == 0 and not sender.board.lost:
            _undo(conn)
            sender.undo_retransmissions = -1


# --- round trips -----------------------------------------------------------------------------------------------------


def echoed_after(conn: TcpConnection, segment: Segment, now: float) -> float:
    """When the segment was sent whose timestamp is echoed, to the millisecond; NEVER where none is."""
    if not conn.has_timestamps or segment.timestamps is None:
        return NEVER
    ago = (conn.clock(now) - segment.timestamps[1]) & 0xFFFFFFFF
    return now - ago / 1000 if ago < 0x80000000 else NEVER


def _measure(conn: TcpConnection, arrived: list[Delivered], now: float, echoed: float) -> float | None:
    """Take an RTT sample: of what was sent once (Karn), or when the echo is that of the last transmission.

    An older echo says nothing: the acknowledgement of the first transmission may have been lost, and the peer's
    repetition echoes what it echoed then.
    """
    for one in arrived:
        if not one.is_retransmitted or NEVER > echoed >= one.sent_at - CLOCK_GRANULARITY:
            conn.trip.sample(now - one.sent_at, now)
            return conn.trip.latest
    return None


# --- loss and recovery -----------------------------------------------------------------------------------------------


def detect_losses(conn: TcpConnection, now: float) -> int:
    """Let RACK look at what is in flight; octets newly lost."""
    sender = conn.sender
    board = sender.board
    if not board.sacked and not board.retransmitted:
        sender.reorder_at = NEVER
        return 0
    window = sender.rack.window(conn.trip, board, in_recovery=sender.recovery is not Recovery.OPEN)
    lost, wait = sender.rack.detect(board, now, window)
    sender.reorder_at = now + wait if wait else NEVER
    return lost


def _count_duplicates(conn: TcpConnection, acked: int, *, is_duplicate: bool) -> int:
    """RFC 6582, for peers without SACK: three duplicates, and partial acknowledgements; octets newly lost."""
    sender = conn.sender
    size = sender.payload
    if acked:
        sender.duplicates = 0
        if sender.recovery is Recovery.FAST and sender.una < sender.recovery_point:
            # A partial acknowledgement: the next hole begins where it ends.
            sender.reno_sacked = max(sender.reno_sacked - max(acked - size, 0), 0)
            return size if sender.board.mark_first_lost(sender.una) else 0
        sender.reno_sacked = 0
    elif is_duplicate:
        sender.duplicates += 1
        if sender.recovery is not Recovery.LOSS:
            most = sender.nxt - sender.una - size
            sender.reno_sacked = max(min(sender.reno_sacked + size, most), 0)
        # RFC 6582 section 4.1: not for what was sent before the last recovery ended.
        if (
            sender.duplicates == DUP_THRESHOLD
            and sender.recovery is Recovery.OPEN
            and sender.una >= sender.recovery_point
        ):
            return size if sender.board.mark_first_lost(sender.una) else 0
    return 0


def _control_window(
    conn: TcpConnection,
    before: int,
    delivered: int,
    newly_lost: int,
    now: float,
    *,
    rtt: float | None,
    has_ece: bool,
) -> None:
    """Enter or leave recovery, and say how much may be in flight now."""
    sender = conn.sender
    cubic = sender.cubic
    if not conn.has_sack and sender.recovery is Recovery.FAST and sender.una == before and sender.duplicates:
        delivered = sender.payload  # what a duplicate acknowledgement stands for
    has_ended = sender.recovery is not Recovery.OPEN and sender.una >= sender.recovery_point
    if has_ended:
        if sender.recovery is Recovery.FAST:
            cubic.recovered()
            if sender.undo_retransmissions == 0:
                _undo(conn)  # nothing had to be sent again: packets only overtook each other
        sender.rack.note_recovery_end()
        sender.recovery = Recovery.OPEN
        sender.prr = None
        sender.reno_sacked = sender.duplicates = 0
    if sender.recovery is Recovery.OPEN and (newly_lost or (has_ece and sender.una > sender.recovery_point)):
        enter_recovery(conn, delivered)
        if has_ece:
            conn.cwr_due = True
            sender.undo_retransmissions = -1  # a mark is never a mistake
    if sender.recovery is Recovery.FAST and sender.prr is not None:
        if delivered or newly_lost:
            is_safe = sender.una > before and not newly_lost
            cubic.cwnd = sender.prr.window(delivered, sender.pipe, cubic.ssthresh, sender.payload, is_safe=is_safe)
    elif sender.una > before and not has_ended:
        is_limited = before < sender.limited_until or (cubic.is_slow_start and cubic.cwnd < 2 * sender.max_flight)
        cubic.acknowledged(
            delivered,
            now,
            srtt=conn.trip.smoothed,
            una=sender.una,
            nxt=sender.nxt,
            is_limited=is_limited,
            rtt=rtt,
        )


def enter_recovery(conn: TcpConnection, delivered: int) -> None:
    """Fast recovery: RFC 9937 section 6 says what counts as in flight at its beginning."""
    sender = conn.sender
    flight = sender.nxt - sender.una
    sender.cubic.congested(flight + delivered)
    sender.prr = ProportionalRate(flight - sender.board.sacked + delivered)
    sender.recovery = Recovery.FAST
    sender.recovery_point = sender.nxt
    sender.retransmitted_at = NEVER
    sender.undo_retransmissions = 0


# --- what was for nothing --------------------------------------------------------------------------------------------


def _consider_undo(conn: TcpConnection, echoed: float) -> None:
    """RFC 3522: the first advance echoes a timestamp from before the retransmission, so the original arrived."""
    sender = conn.sender
    first, sender.retransmitted_at = sender.retransmitted_at, NEVER
    if sender.recovery is not Recovery.OPEN and echoed < first - CLOCK_GRANULARITY:
        _undo(conn)


def _consider_originals(conn: TcpConnection, arrived: list[Delivered]) -> list[Delivered]:
    """RFC 5682 section 3.1 step 3: what was sent before the timeout, and not again, arrives: it was too early.

    With SACK there is no need to send new octets first, as step 2 does: what had arrived earlier was said before.

    Returns:
        What of it RACK may look at: not the retransmission, whose original it was that arrived.
    """
    point = conn.sender.recovery_point
    originals = [one for one in arrived if not one.is_retransmitted]
    if not any(one.end <= point for one in originals):
        return arrived
    _undo(conn)
    return originals


def _undo(conn: TcpConnection) -> None:
    sender = conn.sender
    sender.cubic.undo()
    sender.board.forget_losses()
    sender.recovery = Recovery.OPEN
    sender.prr = None
    sender.rack.is_reordering_seen = True


def _end_probe(conn: TcpConnection, ack: int, *, has_dsack: bool, is_duplicate: bool) -> None:
    """RFC 8985 7.4.2: a retransmitted probe that alone repaired a loss hid it from congestion control."""
    sender = conn.sender
    end = sender.tlp_end
    if end is None or ack < end:
        return
    if not sender.tlp_is_retransmission or has_dsack:
        sender.tlp_end = None
    elif ack > end:
        sender.tlp_end = None
        if sender.recovery is Recovery.OPEN:
            sender.cubic.congested(sender.nxt - sender.una + sender.payload)
            sender.cubic.recovered()
    elif is_duplicate:
        sender.tlp_end = None  # both the original and the probe arrived
