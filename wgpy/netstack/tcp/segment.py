"""What an arriving segment does to a connection, in the order of RFC 9293 section 3.10.7.

    arrive -> (SYN_SENT) | timestamps (PAWS) -> sequence -> RST -> SYN -> ACK (`acknowledgement`) -> octets -> FIN

An arrival may stand for many segments in a row. Nothing is sent here: what is due is noted in the connection.

Source: RFC 9293 3.10.7.3 and 3.10.7.4, RFC 7323 5, RFC 5961, RFC 3168.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from wgpy.errors import DropReason
from wgpy.netstack.constants import CLOCK_GRANULARITY, NEVER, PAWS_IDLE, RTO_AFTER_SYN_LOSS
from wgpy.netstack.tcp import sender as sending
from wgpy.netstack.tcp.acknowledgement import acknowledge, echoed_after
from wgpy.netstack.tcp.cubic import Cubic
from wgpy.netstack.tcp.options import effective_mss, unwrapped
from wgpy.netstack.tcp.states import Event, State
from wgpy.wire import tcp

if TYPE_CHECKING:
    from wgpy.netstack.coalesce import Arrival
    from wgpy.netstack.tcp.connection import TcpConnection
    from wgpy.wire.tcp import Segment

__all__ = ["agree", "arrive", "establish"]

# One tick: neighbours that were sent on both sides of one may overtake each other (L: TCP_PAWS_WINDOW).
_PAWS_SLACK = 1
_TAKES_OCTETS = frozenset((State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2))


def arrive(conn: TcpConnection, arrival: Arrival, now: float) -> DropReason | None:
    """Let a connection take an arrival; says why, where it does not."""
    segment = arrival.segment
    if conn.state is State.SYN_SENT:
        return _arrive_in_syn_sent(conn, arrival, now)
    receiver = conn.receiver
    flags = segment.flags
    sequence = unwrapped(segment.sequence, receiver.nxt)
    if conn.state is State.SYN_RECEIVED and flags & tcp.SYN and sequence == receiver.nxt - 1:
        if not flags & tcp.ACK:
            conn.syn_due = True  # our answer was lost
            return None
        # Both opened at once, and this is the peer's SYN again, with its ACK (RFC 9293 figure 8).
        sequence += 1
        flags &= ~tcp.SYN

    reason = _check_timestamps(conn, arrival, sequence, now)
    if reason is not None:
        return reason
    reason = _check_sequence(conn, arrival, flags, sequence, now)
    if reason is not None:
        return reason
    if flags & tcp.RST:
        return _reset(conn, sequence, now)
    if flags & tcp.SYN:
        # RFC 5961 section 4: whoever lost the connection answers our challenge with the right RST.
        conn.challenge(now)
        return DropReason.TCP_BLIND
    if not flags & tcp.ACK:
        return DropReason.TCP_UNACCEPTABLE
    conn.heard(now)
    if conn.state is State.SYN_RECEIVED or (conn.state is State.FIN_WAIT_1 and conn.sender.una == conn.sender.iss):
        reason = _complete_handshake(conn, segment, now)
        if reason is not None:
            return reason
    if conn.is_ecn:
        # RFC 3168 6.1.3: say it until the peer says that it slowed down.
        if flags & tcp.CWR:
            conn.ece_due = False
        if arrival.has_mark and arrival.length:
            conn.ece_due = True
            receiver.ack_now = max(receiver.ack_now, 1)
    reason = acknowledge(conn, segment, flags, sequence, arrival.length, now)
    if reason is not None or conn.state is State.CLOSED:
        return reason
    if sequence <= receiver.ack_sent:
        _note_timestamp(conn, segment, now)
    if flags & tcp.URG:
        conn.host.urgent += 1  # RFC 6093: the pointer means nothing; the octets are octets
    if arrival.length:
        _take_octets(conn, arrival, sequence, now)
        if conn.error is not None:
            return None
    if flags & tcp.FIN and receiver.fin is None and conn.state in _TAKES_OCTETS:
        fin = sequence + arrival.length
        if receiver.nxt <= fin <= receiver.edge:
            receiver.fin = fin
            if fin != receiver.nxt:
                receiver.ack_now = max(receiver.ack_now, 1)
    if receiver.fin is not None and receiver.nxt == receiver.fin and conn.state in _TAKES_OCTETS:
        receiver.nxt += 1
        receiver.ack_now = max(receiver.ack_now, 1)
        conn.transition(Event.FIN, now)
        conn.host.mark_ready(conn)
    return None


# --- the checks ------------------------------------------------------------------------------------------------------


def _check_timestamps(conn: TcpConnection, arrival: Arrival, sequence: int, now: float) -> DropReason | None:
    segment = arrival.segment
    # RFC 7323 3.2 would drop segments that lack what was agreed. L takes them: some middleboxes strip options.
    if not conn.has_timestamps or segment.flags & tcp.RST or segment.timestamps is None:
        return None
    behind = (conn.ts_recent - segment.timestamps[0]) & 0xFFFFFFFF
    if _PAWS_SLACK < behind < 0x80000000 and now - conn.ts_recent_at < PAWS_IDLE:
        if not arrival.length and not segment.flags & (tcp.SYN | tcp.FIN) and sequence == conn.receiver.nxt:
            return None  # bare acknowledgements that overtook each other: nothing in them can be mistaken for new
        conn.challenge(now)
        return DropReason.TCP_OLD_TIMESTAMP
    return None


def _note_timestamp(conn: TcpConnection, segment: Segment, now: float) -> None:
    """RFC 7323 4.3: the value that the next acknowledgement echoes."""
    if not conn.has_timestamps or segment.timestamps is None:
        return
    if (segment.timestamps[0] - conn.ts_recent) & 0xFFFFFFFF < 0x80000000:
        conn.ts_recent = segment.timestamps[0]
        conn.ts_recent_at = now


def _check_sequence(conn: TcpConnection, arrival: Arrival, flags: int, sequence: int, now: float) -> DropReason | None:
    """RFC 9293 table 6; a bare segment just behind the window is fine, as its acknowledgement is."""
    receiver = conn.receiver
    length = arrival.length + bool(flags & tcp.FIN) + bool(flags & tcp.SYN)
    end = sequence + length
    if sequence <= receiver.edge and (end > receiver.nxt if length else sequence >= receiver.nxt):
        if length and sequence == receiver.edge and receiver.edge > receiver.nxt:
            receiver.ack_now = max(receiver.ack_now, 1)
        return None
    if flags & tcp.RST:
        return DropReason.TCP_BLIND
    if length and receiver.nxt - max(receiver.capacity, 0xFFFF) <= end <= receiver.nxt:
        # An old segment again: our acknowledgement was lost, or it was sent for nothing (RFC 2883).
        if arrival.length:
            receiver.duplicate(sequence, sequence + arrival.length)
        # The echo must be of this transmission, or the peer measures the time since a lost acknowledgement. RFC 7323
        # 5.3 R2 leaves such segments out; what it guards against is an older timestamp, which this is not.
        _note_timestamp(conn, arrival.segment, now)
        receiver.ack_now = max(receiver.ack_now, 1)
        conn.heard(now)
        return DropReason.TCP_UNACCEPTABLE
    if not length and sequence == receiver.nxt - 1:
        # A keepalive, or a probe of our window, as most stacks send it.
        receiver.ack_now = max(receiver.ack_now, 1)
        conn.heard(now)
        if flags & tcp.ACK and conn.state >= State.ESTABLISHED:
            acknowledge(conn, arrival.segment, flags, sequence, 0, now)
        return None if conn.state is State.CLOSED else DropReason.TCP_UNACCEPTABLE
    conn.challenge(now)
    return DropReason.TCP_UNACCEPTABLE


def _reset(conn: TcpConnection, sequence: int, now: float) -> DropReason | None:
    if sequence != conn.receiver.nxt:
        # RFC 5961 section 3: in the window but not exact is what a blind attacker sends.
        conn.challenge(now)
        return DropReason.TCP_BLIND
    if conn.state is State.SYN_RECEIVED and conn.is_active:
        conn.fail(OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)), now)
    else:
        # Whoever closed did so for both directions: nothing that was to be read is lost (L).
        number = errno.EPIPE if conn.state is State.CLOSE_WAIT else errno.ECONNRESET
        conn.fail(OSError(number, os.strerror(number)), now)
    return None


# --- the handshake ---------------------------------------------------------------------------------------------------


def agree(conn: TcpConnection, segment: Segment) -> None:
    """Take the peer's SYN: its options meet ours; one that only one side has is not used."""
    sender, receiver = conn.sender, conn.receiver
    if segment.scale is None:
        # RFC 7323 2.2: both or neither.
        conn.offers = False
        receiver.scale = sender.scale = 0
        receiver.limit = min(receiver.limit, 0xFFFF)
        receiver.capacity = min(receiver.capacity, receiver.limit)
    else:
        sender.scale = segment.scale
    conn.has_timestamps = segment.timestamps is not None
    if segment.timestamps is not None:
        conn.ts_recent = segment.timestamps[0]
    conn.has_sack = segment.sack_permitted
    mss = effective_mss(segment.mss, conn.mtu, is_v4=conn.headers.is_v4)
    options = tcp.TIMESTAMPS_SIZE if conn.has_timestamps else 0
    sender.set_mss(mss, options)
    sender.cubic = Cubic(sender.payload)
    receiver.start(unwrapped(segment.sequence, 1 << 33))
    sender.window = sender.max_window = segment.window
    sender.wl1 = receiver.nxt - 1
    sender.wl2 = sender.una


def establish(conn: TcpConnection, segment: Segment, now: float) -> None:
    """Our SYN was acknowledged."""
    sender = conn.sender
    if sender.last_sent_at < 0:
        pass  # by a cookie: we do not know when we answered
    elif not sender.retries or NEVER > echoed_after(conn, segment, now) >= sender.last_sent_at - CLOCK_GRANULARITY:
        conn.trip.sample(now - sender.last_sent_at, now)
    else:
        conn.trip.initial = RTO_AFTER_SYN_LOSS  # RFC 6298 5.7: it may be that our first guess was too short
    if sender.retries:
        sender.cubic.cwnd = sender.payload  # RFC 5681 3.1: the path lost a SYN, so begin with care
    conn.trip.backoff = 0
    sender.una = sender.iss + 1
    sender.nxt = max(sender.nxt, sender.una)
    sender.limited_until = sender.una
    sender.retries = 0
    sender.progress_at = NEVER
    sender.timer_at = NEVER
    conn.syn_due = False
    conn.host.opened += 1
    conn.transition(Event.ESTABLISH, now)
    conn.heard(now)
    if conn.is_active and sender.fin is not None:
        conn.transition(Event.CLOSE, now)  # it was shut down for writing before it was open
    conn.host.mark_ready(conn)


def _arrive_in_syn_sent(conn: TcpConnection, arrival: Arrival, now: float) -> DropReason | None:
    segment, sender = arrival.segment, conn.sender
    flags = segment.flags
    if flags & tcp.ACK and unwrapped(segment.acknowledgement, sender.nxt) != sender.iss + 1:
        if not flags & tcp.RST:
            conn.host.reset_stranger(arrival)
        if not conn.retransmitted:
            # It is the answer of an older connection on these ports, which our RST ends (RFC 9293 3.5.1, figure 9). The
            # first time, our SYN need not wait for its timer (L). It was not lost, so nothing is backed off.
            conn.retransmitted += 1
            conn.host.segments_retransmitted += 1
            conn.syn_due = True
            conn.settle(now)
        return DropReason.TCP_BLIND
    if flags & tcp.RST:
        if not flags & tcp.ACK:
            return DropReason.TCP_BLIND
        conn.fail(OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)), now)
        return None
    if not flags & tcp.SYN:
        return DropReason.TCP_UNACCEPTABLE
    agree(conn, segment)
    conn.ts_recent_at = now
    conn.is_ecn = conn.host.uses_ecn and flags & (tcp.ECE | tcp.CWR) == (
        tcp.ECE if flags & tcp.ACK else tcp.ECE | tcp.CWR
    )
    if not flags & tcp.ACK:
        conn.transition(Event.SYN, now)
        conn.syn_due = True
        return None
    establish(conn, segment, now)
    sender.wl2 = sender.una
    conn.receiver.ack_now = 1
    if arrival.length:
        _take_octets(conn, arrival, conn.receiver.nxt, now)
    return None


def _complete_handshake(conn: TcpConnection, segment: Segment, now: float) -> DropReason | None:
    """In SYN_RECEIVED, or closed before it was left: the acknowledgement must be that of our SYN, or beyond."""
    sender = conn.sender
    ack = unwrapped(segment.acknowledgement, sender.nxt)
    if not sender.una < ack <= sender.nxt:
        conn.host.reset_for(conn, segment)
        return DropReason.TCP_BLIND
    if conn.listener is not None and not conn.listener.has_room:
        return DropReason.TCP_ACCEPT_QUEUE_FULL  # the peer sends it again
    establish(conn, segment, now)
    sender.window = sender.max_window = segment.window << sender.scale
    sender.wl1, sender.wl2 = conn.receiver.nxt, ack
    if conn.listener is not None:
        conn.listener.established(conn)
    return None


# --- octets ----------------------------------------------------------------------------------------------------------


def _take_octets(conn: TcpConnection, arrival: Arrival, sequence: int, now: float) -> None:
    receiver = conn.receiver
    if conn.state not in _TAKES_OCTETS:
        return
    if conn.is_orphan and sequence + arrival.length > receiver.nxt:
        # RFC 1122 4.2.2.13: nobody will ever read this, and the peer must know.
        conn.send_reset()
        conn.fail(None, now)
        return
    if arrival.size > receiver.mss:
        receiver.mss = min(arrival.size, conn.mtu)
    fresh = receiver.arrive(sequence, arrival.octets(), acks_each=not conn.has_sack, segments=arrival.count)
    if fresh:
        conn.host.mark_ready(conn)


def finish_batch(conn: TcpConnection, now: float, *, is_pushed: bool) -> None:
    """Once per connection and batch, after all its arrivals."""
    if conn.state is State.CLOSED:
        return
    conn.receiver.decide(now, conn.trip.smoothed, is_pushed=is_pushed)
    if conn.sender.timer_at == NEVER and conn.state >= State.ESTABLISHED:
        sending.arm(conn, now)
    conn.settle(now)
