"""What a connection does when one of its moments has come; everything due at once, however far the clock jumped.

Source: RFC 6298 section 5, RFC 8985 sections 6.3 and 7.3, RFC 9293 3.8.3, 3.8.4 and 3.8.6.1, RFC 1122 4.2.3.5.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from wgpy.netstack.constants import (
    BLACK_HOLE_MSS,
    BLACK_HOLE_TIMEOUTS,
    DATA_RETRIES,
    NEVER,
    ORPHAN_RETRIES,
    RTO_MAX,
    SYN_ACK_RETRIES,
    SYN_RETRIES,
)
from wgpy.netstack.tcp.acknowledgement import detect_losses, enter_recovery
from wgpy.netstack.tcp.sender import Recovery, Timer
from wgpy.netstack.tcp.states import State
from wgpy.wire import tcp

if TYPE_CHECKING:
    from wgpy.netstack.tcp.connection import TcpConnection

__all__ = ["fire", "resume"]


def fire(conn: TcpConnection, now: float) -> None:
    """Do what is due."""
    sender = conn.sender
    if conn.user_timeout is not None and sender.progress_at + conn.user_timeout <= now:
        _time_out(conn, now)
    elif conn.close_at <= now:
        if conn.state is not State.FIN_WAIT_2:
            conn.send_reset()
        conn.fail(OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)), now)
    if conn.is_closed:
        return
    if sender.pace_at <= now:
        sender.pace_wakes = False
    if conn.receiver.ack_at <= now:
        conn.receiver.ack_at = NEVER
        conn.receiver.ack_now = max(conn.receiver.ack_now, 1)
    if sender.reorder_at <= now and detect_losses(conn, now) and sender.recovery is Recovery.OPEN:
        enter_recovery(conn, 0)
        # RFC 9937: what the first acknowledgement would have let out is let out now.
        sender.cubic.cwnd = sender.pipe + sender.payload
    if sender.timer_at <= now:
        if sender.timer is Timer.PERSIST:
            _persist(conn, now)
        elif conn.state in (State.SYN_SENT, State.SYN_RECEIVED):
            _retransmit_syn(conn, now)
        elif sender.timer is Timer.PROBE:
            _probe_tail(conn, now)
        else:
            _retransmission_timeout(conn, now)
    if conn.keepalive_at <= now:
        _keep_alive(conn, now)
    if not conn.is_closed:
        conn.settle(now)


def resume(conn: TcpConnection, moment: float) -> None:
    """Let the timers that were backed off fire at a moment, and forget what they counted.

    The path was closed and is open again, and what got lost until then says nothing about it. The window stays what the
    timeout made of it (RFC 5681 3.1).
    """
    sender = conn.sender
    sender.retries = sender.persist_backoff = conn.trip.backoff = 0
    sender.timer_at = min(sender.timer_at, moment)
    conn.resume_keepalive(moment)
    conn.host.watch(conn)


def _time_out(conn: TcpConnection, now: float) -> None:
    if conn.is_synchronized:
        conn.send_reset()
    conn.fail(OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)), now)


def _retransmit_syn(conn: TcpConnection, now: float) -> None:
    sender = conn.sender
    if sender.retries >= (SYN_RETRIES if conn.is_active else SYN_ACK_RETRIES):
        _time_out(conn, now)
        return
    sender.retries += 1
    conn.trip.backoff += 1
    conn.syn_due = True
    sender.timer_at = now + conn.trip.timeout


def _retransmission_timeout(conn: TcpConnection, now: float) -> None:
    sender = conn.sender
    if sender.retries >= (ORPHAN_RETRIES if conn.is_orphan else DATA_RETRIES):
        _time_out(conn, now)
        return
    sender.retries += 1
    board = sender.board
    if board.runs and board.runs[0].is_sacked:
        board.forget_sacks()  # what was SACKed is first in line and still not acknowledged: it was discarded
    head = board.runs[0] if board.runs else None
    # Where full segments got through before, so many losses in a row are needed to doubt the path.
    needed = BLACK_HOLE_TIMEOUTS * 2 if sender.carries_full else BLACK_HOLE_TIMEOUTS
    if head is not None and sender.retries % needed == 0:
        _suspect_black_hole(conn, min(head.end - head.start, head.size))
    is_first = sender.recovery is not Recovery.LOSS
    sender.cubic.timed_out(sender.nxt - sender.una, is_first=is_first)
    board.mark_all_lost()
    sender.recovery = Recovery.LOSS
    sender.recovery_point = sender.nxt
    sender.prr = None
    sender.duplicates = sender.reno_sacked = 0
    sender.tlp_end = None
    sender.reorder_at = NEVER
    sender.retransmitted_at = NEVER
    sender.undo_retransmissions = 0
    conn.trip.backoff += 1
    sender.timer_at = now + conn.trip.timeout


def _suspect_black_hole(conn: TcpConnection, size: int) -> None:
    """Full segments do not get through and nobody says why: try smaller ones (RFC 2923 2.1)."""
    sender = conn.sender
    options = tcp.TIMESTAMPS_SIZE if conn.has_timestamps else 0
    for mss in BLACK_HOLE_MSS:
        if size > mss - options:
            sender.set_mss(min(sender.mss, mss), options)
            return


def _probe_tail(conn: TcpConnection, now: float) -> None:
    """RFC 8985 7.3: something new if there is, else the last segment again; then the ordinary timeout."""
    sender = conn.sender
    sender.tlp_used = True
    sender.timer, sender.timer_at = Timer.RETRANSMISSION, now + conn.trip.timeout
    fresh = min(sender.end - sender.nxt, sender.una + sender.window - sender.nxt, sender.payload)
    if fresh > 0:
        sender.force = True
        sender.pace_at = 0.0
        sender.tlp_end = sender.nxt + fresh
        sender.tlp_is_retransmission = False
        return
    run = sender.board.last_segment()
    if run is not None:
        sender.board.mark_lost(run)
        sender.tlp_end = sender.nxt
        sender.tlp_is_retransmission = True


def _persist(conn: TcpConnection, now: float) -> None:
    sender = conn.sender
    if sender.retries >= (ORPHAN_RETRIES if conn.is_orphan else DATA_RETRIES):
        _time_out(conn, now)
        return
    sender.retries += 1
    sender.persist_backoff += 1
    if sender.una + sender.window > sender.nxt:
        sender.force = True  # the window is silly, but it was so for long enough (RFC 1122 4.2.3.4)
    else:
        sender.probe_due = True
    sender.timer_at = now + min(conn.trip.timeout * 2.0 ** min(sender.persist_backoff, 10), RTO_MAX)


def _keep_alive(conn: TcpConnection, now: float) -> None:
    if conn.keepalive is None:
        return
    if conn.note_keepalive(now, conn.keepalive.interval) >= conn.keepalive.probes:
        _time_out(conn, now)
    elif conn.sender.nxt == conn.sender.una:
        conn.sender.probe_due = True  # else what is in flight asks the same question
