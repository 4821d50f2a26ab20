"""What to send next: lost runs first, then new octets, as far as both windows, pacing and good manners allow.

    emit -> lost runs -> new octets (cwnd, peer's window, Nagle, silly windows) -> FIN -> probe -> bare acknowledgement

Nothing is sent but when `emit` is asked for rows. A run is handed over as it will lie in a slab; only the first and
last of its segments are thought about one by one.

Source: RFC 9293 3.8, RFC 5681, RFC 6675 section 5, RFC 8985 section 7, RFC 1122 4.2.3.4.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from wgpy.constants import TRANSPORT_OVERHEAD
from wgpy.dataplane.slab import padded_length
from wgpy.dataplane.split import rows_per_slab
from wgpy.netstack.constants import (
    NEVER,
    PACING_AVOIDANCE,
    PACING_MIN_RTT,
    PACING_SLOW_START,
    TLP_MAX_ACK_DELAY,
    TLP_MIN,
)
from wgpy.netstack.tcp.cubic import Cubic
from wgpy.netstack.tcp.rack import Rack
from wgpy.netstack.tcp.scoreboard import Run, Scoreboard
from wgpy.netstack.tcp.sendbuffer import SendBuffer
from wgpy.wire import tcp

if TYPE_CHECKING:
    from wgpy.netstack.emission import Emission
    from wgpy.netstack.tcp.connection import TcpConnection
    from wgpy.netstack.tcp.prr import ProportionalRate

__all__ = ["Recovery", "Sender", "Timer", "arm", "can_send", "emit"]

_ECT0: Final = 2


class Timer(enum.Enum):
    """What the one timer of the sending half waits for."""

    RETRANSMISSION = "an acknowledgement"
    PROBE = "an acknowledgement, for so short a time that only the tail can be lost (TLP)"
    PERSIST = "a window"


class Recovery(enum.Enum):
    """How the sending half answers to loss."""

    OPEN = "nothing is lost"
    FAST = "fast recovery: the window shrinks in proportion (PRR)"
    LOSS = "a retransmission timeout: slow start from one segment"


class Sender:
    """The sending half of one connection; sequence numbers are absolute.

    Attributes:
        iss: sequence number of our SYN.
        una: SND.UNA.
        nxt: SND.NXT.
        window: octets that the peer takes beyond `una`.
        max_window: the greatest it ever announced.
        wl1: sequence number of the segment that last updated the window; `wl2` its acknowledgement.
        scale: shift of the peer's windows.
        mss: what a segment may hold, options included.
        payload: what a segment holds with the options that every segment has.
        buffer: what was written and not acknowledged.
        fin: sequence number of our FIN, once the application closed.
        board: what is in flight.
        recovery: see there; it ends when `una` reaches `recovery_point`.
        retries: timeouts since the last progress.
        progress_at: when something was acknowledged last while more was in flight; NEVER with nothing in flight.
        timer_at: when `timer` fires.
        reorder_at: when RACK wants to look again.
        pace_at: before this moment no new octets leave.
        delivered: octets that arrived, ever.
        limited_until: growth of the window is earned by acknowledgements up to here.
        max_flight: greatest flight of this window, octets.
        carries_full: a full segment got through, with the present MSS.
        force: send one segment whatever the windows say, as a probe.
        probe_due: send an old sequence number, so that the peer answers.
    """

    __slots__ = (
        "board",
        "buffer",
        "carries_full",
        "cubic",
        "delivered",
        "delivered_at",
        "duplicates",
        "fin",
        "flight_until",
        "force",
        "iss",
        "last_sent_at",
        "limited_until",
        "max_flight",
        "max_window",
        "mss",
        "nxt",
        "pace_at",
        "pace_wakes",
        "payload",
        "persist_backoff",
        "probe_due",
        "progress_at",
        "prr",
        "rack",
        "rate",
        "recovery",
        "recovery_point",
        "reno_sacked",
        "reorder_at",
        "retransmitted_at",
        "retries",
        "scale",
        "timer",
        "timer_at",
        "tlp_end",
        "tlp_is_retransmission",
        "tlp_used",
        "una",
        "undo_retransmissions",
        "window",
        "wl1",
        "wl2",
    )

    def __init__(self, iss: int, mss: int) -> None:
        """Nothing was sent."""
        self.iss = self.una = self.nxt = iss
        self.window = self.max_window = 0
        self.wl1 = self.wl2 = -1
        self.scale = 0
        self.mss = self.payload = mss
        self.buffer = SendBuffer(iss + 1)
        self.fin: int | None = None
        self.board = Scoreboard()
        self.cubic = Cubic(mss)
        self.rack = Rack()
        self.prr: ProportionalRate | None = None
        self.recovery = Recovery.OPEN
        self.recovery_point = iss
        # For peers without SACK: duplicate acknowledgements, and octets that they stand for.
        self.duplicates = 0
        self.reno_sacked = 0
        self.retries = 0
        self.progress_at = NEVER
        self.timer: Timer = Timer.RETRANSMISSION
        self.timer_at = NEVER
        self.reorder_at = NEVER
        self.pace_at = 0.0
        self.pace_wakes = False
        self.persist_backoff = 0
        self.tlp_end: int | None = None
        self.tlp_is_retransmission = False
        self.tlp_used = False
        self.carries_full = False
        self.probe_due = False
        self.force = False
        # Undoing a reduction that was for nothing: when the first retransmission left, and how many are not explained.
        self.retransmitted_at = NEVER
        self.undo_retransmissions = -1
        self.delivered = 0
        self.delivered_at = 0.0
        self.rate = 0.0
        self.limited_until = iss
        self.max_flight = 0
        self.flight_until = iss
        self.last_sent_at = -NEVER

    @property
    def end(self) -> int:
        """Sequence number after everything that there is to send, the FIN included."""
        return self.buffer.end if self.fin is None else self.fin + 1

    @property
    def pipe(self) -> int:
        """Octets in flight (RFC 6675)."""
        board = self.board
        return max(self.nxt - self.una - board.sacked - board.lost - self.reno_sacked, 0)

    def set_mss(self, mss: int, options: int) -> None:
        """Segments of so many octets from now on, of which `options` are options."""
        self.mss = mss
        self.payload = mss - options
        self.carries_full = False
        self.cubic.set_mss(self.payload)
        self.board.cut_to(self.payload)


# --- what can be sent ------------------------------------------------------------------------------------------------


def _new_octets(conn: TcpConnection, now: float) -> int:
    """Octets, the FIN included, that may be sent for the first time now; whole segments unless the rest is short."""
    sender = conn.sender
    left = sender.end - sender.nxt
    if left <= 0 or sender.pace_at > now:
        return 0
    room = sender.una + sender.window - sender.nxt
    size = sender.payload
    if sender.force:
        # A tail loss probe, or what fits into a window that stayed silly for too long.
        return max(min(left, room, size), 0)
    allowed = sender.cubic.cwnd - sender.pipe
    count = min(left, room, allowed)
    if count <= 0:
        return 0
    if count < left:
        if count >= size:
            return count - count % size
        if allowed <= room:
            # A window below one segment still lets one out when nothing is in flight.
            return min(size, left, room) if sender.pipe == 0 else 0
        # RFC 9293 3.8.6.2.1: not less than a segment, unless it is half of what the peer ever had room for.
        return count if count * 2 >= sender.max_window else 0
    if not conn.no_delay and sender.fin is None and sender.nxt > sender.una:
        # Nagle: what is short waits while something is in flight (RFC 9293 3.7.4).
        return count - count % size
    return count


def can_send(conn: TcpConnection, now: float) -> bool:
    """Whether `emit` would send octets, not counting bare acknowledgements."""
    sender = conn.sender
    if sender.board.lost and (sender.cubic.cwnd - sender.pipe >= sender.payload or sender.pipe == 0):
        return True
    return _new_octets(conn, now) > 0


# --- sending ---------------------------------------------------------------------------------------------------------


def emit(conn: TcpConnection, now: float, out: Emission, most: int) -> None:
    """Send up to `most` rows of octets."""
    sender = conn.sender
    left = out.left - most
    if sender.board.lost:
        _retransmit_lost(conn, now, out, left)
        if sender.board.lost:
            # New octets wait for lost ones: they would only lengthen the wait.
            return
    if sender.nxt == sender.una:
        _after_idleness(conn, now)
    while out.left > left:
        count = _new_octets(conn, now)
        if not count:
            break
        sender.force = False
        _send_new(conn, count, now, out, out.left - left)
    if sender.end > sender.nxt:
        if sender.pace_at > now:
            sender.pace_wakes = True
        elif sender.cubic.cwnd - sender.pipe < sender.payload:
            sender.limited_until = sender.nxt


def _after_idleness(conn: TcpConnection, now: float) -> None:
    sender = conn.sender
    if sender.last_sent_at > 0 and now - sender.last_sent_at > conn.trip.timeout and sender.end > sender.nxt:
        sender.cubic.restart_after_idle()
        sender.last_sent_at = now


def _retransmit_lost(conn: TcpConnection, now: float, out: Emission, floor: int) -> None:
    sender = conn.sender
    while out.left > floor:
        run = sender.board.first_lost()
        if run is None:
            return
        room = sender.cubic.cwnd - sender.pipe
        size = min(run.size, sender.payload)
        if room < size:
            if sender.pipe and room < run.end - run.start:
                return
            room = size
        # RFC 9293 3.8.6: a window that shrank holds back all but the first segment.
        if run.start >= sender.una + sender.window and run.start != sender.una:
            return
        _resend(conn, run, room - room % size or size, now, out, out.left - floor)


def _resend(conn: TcpConnection, run: Run, octets: int, now: float, out: Emission, rows: int) -> None:
    sender = conn.sender
    options = conn.options(now)
    size = min(run.size, sender.mss - len(options))
    run.size = size
    limit = min(octets, min(rows, _rows_per_slab(conn)) * size)
    run = sender.board.resent(run, limit, now, sender.delivered, sender.delivered_at)
    segments = _put(conn, run.start, run.end, size, options, now, out, is_retransmission=True)
    conn.retransmitted += segments
    conn.host.segments_retransmitted += segments
    if sender.retransmitted_at == NEVER:
        sender.retransmitted_at = now
    if sender.undo_retransmissions >= 0:
        sender.undo_retransmissions += segments
    if sender.prr is not None:
        sender.prr.out += run.end - run.start
    _sent(conn, now)


def _send_new(conn: TcpConnection, count: int, now: float, out: Emission, rows: int) -> None:
    sender = conn.sender
    options = conn.options(now)
    size = min(sender.payload, sender.mss - len(options))
    rows = min(rows, _rows_per_slab(conn))
    if conn.cwr_due:
        rows = 1  # RFC 3168 6.1.2: CWR on the first new segment after the reduction
    start = sender.nxt
    end = start + min(count, rows * size)
    if sender.fin is not None and sender.fin == end < start + count:
        end += 1  # the FIN rides on the last full segment
    run = Run(start, end, size, now, sender.delivered, sender.delivered_at or now)
    if sender.nxt == sender.una:
        run.delivered_at = now
    sender.board.append(run)
    sender.nxt = end
    _put(conn, start, end, size, options, now, out, is_retransmission=False)
    flight = sender.pipe
    if flight > sender.max_flight or sender.una >= sender.flight_until:
        sender.max_flight = flight
        sender.flight_until = sender.nxt
    if sender.prr is not None:
        sender.prr.out += end - start
    trip = conn.trip
    if trip.smoothed >= PACING_MIN_RTT and sender.cubic.cwnd > 2 * rows * size:
        share = PACING_SLOW_START if sender.cubic.is_slow_start else PACING_AVOIDANCE
        interval = (end - start) * trip.smoothed / (share * sender.cubic.cwnd)
        # What the clock of the caller was late is made good, up to one slab.
        sender.pace_at = max(sender.pace_at, now - interval) + interval
    _sent(conn, now)


def _put(
    conn: TcpConnection,
    start: int,
    end: int,
    size: int,
    options: bytes,
    now: float,
    out: Emission,
    *,
    is_retransmission: bool,
) -> int:
    """Lay a run into rows; returns how many."""
    sender, receiver = conn.sender, conn.receiver
    flags = tcp.ACK
    if conn.ece_due:
        flags |= tcp.ECE
    if end == sender.buffer.end or end == sender.end:
        flags |= tcp.PSH
    data_end = end
    if sender.fin is not None and end > sender.fin:
        flags |= tcp.FIN
        data_end = sender.fin
    traffic_class = 0
    if conn.is_ecn and data_end > start and not is_retransmission:
        traffic_class = _ECT0
        if conn.cwr_due:
            flags |= tcp.CWR
            conn.cwr_due = False
    window = receiver.window()
    headers = conn.headers
    octets: bytes | memoryview = sender.buffer.octets(start, data_end) if data_end > start else b""
    rows = 1
    if data_end - start > size:
        header = headers.first_row(start, receiver.nxt, flags, window, options, traffic_class)
        out.segments(header, headers.size, octets, size)
        rows = -(-(data_end - start) // size)
    else:
        out.packet(headers.packet(start, receiver.nxt, flags, window, options, octets, traffic_class))
    receiver.acknowledged()
    return rows


def _rows_per_slab(conn: TcpConnection) -> int:
    mtu = conn.host.mtu
    return rows_per_slab(padded_length(min(conn.sender.mss + 20 + conn.headers.size, mtu), mtu) + TRANSPORT_OVERHEAD)


def _sent(conn: TcpConnection, now: float) -> None:
    sender = conn.sender
    sender.last_sent_at = now
    if sender.progress_at == NEVER:
        sender.progress_at = now
    if sender.timer_at == NEVER or sender.timer is not Timer.RETRANSMISSION:
        arm(conn, now)


# --- the timer -------------------------------------------------------------------------------------------------------


def arm(conn: TcpConnection, now: float) -> None:
    """Set the timer for what is waited for now; called after sending and after every acknowledgement."""
    sender, trip = conn.sender, conn.trip
    if sender.nxt > sender.una:
        sender.persist_backoff = 0
        timeout = now + trip.timeout
        sender.timer, sender.timer_at = Timer.RETRANSMISSION, timeout
        # RFC 8985 7.2: with SACK, outside of recovery, one probe per tail.
        if (
            conn.has_sack
            and sender.recovery is Recovery.OPEN
            and not sender.board.sacked
            and not sender.tlp_used
            and trip.smoothed
            and not trip.backoff
        ):
            pause = 2 * trip.smoothed
            if sender.nxt - sender.una <= sender.payload:
                pause += TLP_MAX_ACK_DELAY
            pause = max(pause, TLP_MIN)
            if now + pause < timeout:
                sender.timer, sender.timer_at = Timer.PROBE, now + pause
        return
    sender.progress_at = NEVER
    if sender.end > sender.nxt and conn.is_synchronized:
        room = sender.una + sender.window - sender.nxt
        if room < min(sender.payload, sender.end - sender.nxt) and (sender.pace_at <= now or room <= 0):
            if sender.timer is not Timer.PERSIST or sender.timer_at == NEVER:
                sender.timer = Timer.PERSIST
                sender.timer_at = now + min(trip.timeout * 2.0 ** min(sender.persist_backoff, 10), 120.0)
            return
    sender.timer_at = NEVER
