"""The connection record and its verbs, which are synchronous and never block.

    write, read, shutdown_write, close, abort      from the application
    segment.arrive, timers.fire                    from the network and the clock
    emit                                           when WireGuard has room

Whatever a verb makes due is sent by the next `Stack.emit`.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from wgpy.netstack.constants import (
    CHALLENGE_ACKS_PER_SECOND,
    FIN_WAIT_2,
    LINGER,
    NEVER,
    SACK_BLOCKS,
    SEND_BUFFER,
)
from wgpy.netstack.emission import Headers
from wgpy.netstack.tcp import sender as sending
from wgpy.netstack.tcp.options import mss_for_mtu
from wgpy.netstack.tcp.receiver import Receiver
from wgpy.netstack.tcp.rtt import RoundTrip
from wgpy.netstack.tcp.sender import Sender, Timer
from wgpy.netstack.tcp.states import Event, State, next_state
from wgpy.wire import ip, tcp

if TYPE_CHECKING:
    from wgpy.netstack.emission import Emission
    from wgpy.netstack.tcp.host import TcpHost
    from wgpy.netstack.tcp.keepalive import Keepalive
    from wgpy.netstack.tcp.listener import TcpListener

__all__ = ["TcpConnection", "TcpInfo"]

Octets: TypeAlias = bytes | bytearray | memoryview

_SYNCHRONIZED = State.ESTABLISHED
_MAY_WRITE = frozenset((State.SYN_SENT, State.SYN_RECEIVED, State.ESTABLISHED, State.CLOSE_WAIT))
_MAY_RECEIVE = frozenset((State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2))


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """What a connection knows about itself. Seconds and octets.

    Attributes:
        state: of RFC 9293.
        srtt: smoothed round trip, 0.0 before the first sample.
        rtt_variation: of it.
        min_rtt: smallest of late, 0.0 before the first sample.
        rto: retransmission timeout.
        cwnd: congestion window.
        ssthresh: slow start threshold; None before the first loss.
        flight: octets between sent and acknowledged.
        send_buffered: octets written and not acknowledged.
        receive_buffered: octets that wait to be read.
        peer_window: octets that the peer takes.
        receive_window: octets that we let the peer send.
        mss: payload of a full segment.
        retransmits: segments sent again, ever.
        spurious: of these, how many were for nothing, as far as the peer said so.
        delivery_rate: octets per second of the last sample.
        soft_error: errno of the last ICMP error that did not end the connection, 0 for none.
    """

    state: State
    srtt: float
    rtt_variation: float
    min_rtt: float
    rto: float
    cwnd: int
    ssthresh: int | None
    flight: int
    send_buffered: int
    receive_buffered: int
    peer_window: int
    receive_window: int
    mss: int
    retransmits: int
    spurious: int
    delivery_rate: float
    soft_error: int


class TcpConnection:
    """One TCP connection. Make one with `Stack.connect_tcp` or take it from a listener.

    Attributes:
        local: our address and port.
        remote: theirs.
        state: of RFC 9293.
        error: why it failed; None while it did not.
        no_delay: short segments do not wait for acknowledgements (Nagle is off).
    """

    __slots__ = (
        "_challenge_at",
        "_challenges",
        "_close_at",
        "_keepalive_at",
        "_keepalive_sent",
        "_time_cached",
        "_timestamp_offset",
        "cwr_due",
        "ece_due",
        "error",
        "has_sack",
        "has_timestamps",
        "headers",
        "heard_at",
        "host",
        "is_active",
        "is_ecn",
        "is_orphan",
        "is_queued",
        "keepalive",
        "key",
        "listener",
        "local",
        "mtu",
        "no_delay",
        "offers",
        "receiver",
        "remote",
        "retransmitted",
        "sender",
        "soft_error",
        "spurious",
        "state",
        "syn_due",
        "trip",
        "ts_recent",
        "ts_recent_at",
        "user_timeout",
        "wakes_at",
    )

    def __init__(
        self,
        host: TcpHost,
        key: bytes,
        local: tuple[bytes, int],
        remote: tuple[bytes, int],
        iss: int,
        timestamp_offset: int,
    ) -> None:
        """Use `Stack.connect_tcp` or a listener.

        Args:
            host: the TCP of the stack.
            key: of the table of flows: remote and local address, remote and local port, as they lie in a packet.
            local: address, 4 or 16 octets, and port.
            remote: likewise.
            iss: initial sequence number.
            timestamp_offset: what our timestamps begin with.
        """
        self.host = host
        self.key = key
        self.local = ip.to_text(local[0]), local[1]
        self.remote = ip.to_text(remote[0]), remote[1]
        self.headers = Headers(local[0], local[1], remote[0], remote[1])
        self.state = State.CLOSED
        self.error: OSError | None = None
        self.listener: TcpListener | None = None
        self.mtu = host.mtu
        self.sender = Sender(iss, mss_for_mtu(self.mtu, is_v4=self.headers.is_v4))
        self.receiver = Receiver(host.receive_buffer_max)
        self.trip = RoundTrip()
        self.no_delay = True
        self.is_active = False
        self.has_sack = False
        self.has_timestamps = False
        self.is_ecn = False
        self.ece_due = self.cwr_due = False
        self.ts_recent = 0
        self.ts_recent_at = 0.0
        self._timestamp_offset = timestamp_offset
        self.syn_due = False
        self.is_orphan = False
        self.is_queued = False
        self.offers = True
        self.retransmitted = 0
        self.spurious = 0
        self.soft_error = 0
        self.user_timeout: float | None = None
        self.keepalive: Keepalive | None = None
        self.heard_at = 0.0
        self._keepalive_at = NEVER
        self._keepalive_sent = 0
        self._close_at = NEVER
        self._challenge_at = -NEVER
        self._challenges = 0
        self.wakes_at = NEVER
        self._time_cached: tuple[float, int, bytes] = (-1.0, 0, b"")

    # --- readiness ---------------------------------------------------------------------------------------------------

    @property
    def is_synchronized(self) -> bool:
        """Whether both SYNs were acknowledged, and the connection not closed since."""
        return self.state >= _SYNCHRONIZED

    @property
    def is_established(self) -> bool:
        """Whether the handshake was completed; an ended connection is not."""
        return State.ESTABLISHED <= self.state < State.TIME_WAIT

    @property
    def is_closed(self) -> bool:
        """Whether nothing will be sent or received any more."""
        return self.state in (State.CLOSED, State.TIME_WAIT)

    @property
    def at_eof(self) -> bool:
        """Whether the peer's FIN came and everything before it was read."""
        return not self.receiver.ready and (self.receiver.fin is not None and self.receiver.nxt > self.receiver.fin)

    @property
    def is_readable(self) -> bool:
        """Whether `read` would give octets, the end, or an error."""
        return bool(self.receiver.ready) or self.at_eof or self.error is not None

    @property
    def is_writable(self) -> bool:
        """Whether `write` would take octets or fail."""
        return (
            self.error is not None
            or self.sender.fin is not None
            or (self.state in _MAY_WRITE and len(self.sender.buffer) < self._send_limit())
        )

    # --- verbs of the application ------------------------------------------------------------------------------------

    def write(self, data: Octets, now: float) -> int:
        """Put octets into the bounded send buffer: how many were taken, perhaps none. bytes are kept by reference.

        Raises:
            OSError: the connection failed, or is shut down for writing (EPIPE).
        """
        if self.error is not None:
            raise self.error
        if self.sender.fin is not None or self.state not in _MAY_WRITE:
            raise OSError(errno.EPIPE, f"{os.strerror(errno.EPIPE)}: the connection is shut down for writing")
        buffer = self.sender.buffer
        taken = buffer.append(data, self._send_limit() - len(buffer))
        if taken:
            self._settle(now)
        return taken

    def _send_limit(self) -> int:
        # Twice the congestion window, so that a window waits while another one is in flight.
        return min(max(SEND_BUFFER, 2 * self.sender.cubic.cwnd), self.host.send_buffer_max)

    def read(self, max_bytes: int, now: float) -> bytes:
        """Take octets that arrived in order; b"" when there are none, and for good when `at_eof`.

        Raises:
            OSError: the connection failed before the peer's end came, and everything before was read.
        """
        receiver = self.receiver
        octets = receiver.read(max_bytes)
        if octets:
            if self.state in _MAY_RECEIVE:
                receiver.tune(now, self.trip.smoothed, self.host.grow)
                if receiver.window_is_worth_telling():
                    receiver.ack_now = max(receiver.ack_now, 1)
                    self.host.schedule(self)
        elif self.error is not None and not self.at_eof:
            raise self.error
        return octets

    def shutdown_write(self, now: float) -> None:
        """Send a FIN after everything written; reading goes on. Twice is no error."""
        if self.sender.fin is not None or self.is_closed:
            return
        if self.state is State.SYN_SENT:
            # Nothing can be half-closed before it was opened: the FIN follows the handshake.
            self.sender.fin = self.sender.buffer.end
            return
        self.sender.fin = self.sender.buffer.end
        self.transition(Event.CLOSE, now)
        self._settle(now)

    def close(self, now: float, *, linger: float | None = None) -> None:
        """Give the connection up: what was written and a FIN are still sent for so many seconds, then RST.

        Unread octets mean RST at once (RFC 1122 4.2.2.13), so that the peer does not believe they were read.

        Args:
            now: the time.
            linger: seconds; None for the default, 0 for RST at once.
        """
        self.is_orphan = True
        if self.is_closed:
            self.receiver.discard()
            return
        seconds = LINGER if linger is None else linger
        if self.state is State.SYN_SENT:
            self.fail(None, now)
        elif self.receiver.ready or seconds <= 0:
            self.abort(now)
        else:
            self.shutdown_write(now)
            self._close_at = now + (FIN_WAIT_2 if self.state is State.FIN_WAIT_2 else seconds)
            self._settle(now)

    def abort(self, now: float) -> None:
        """RST, at once; what was written is forgotten."""
        if self.is_closed:
            return
        if self.state is not State.SYN_SENT:
            self.send_reset()
        self.fail(OSError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED)), now)

    def set_no_delay(self, on: bool, now: float) -> None:
        """Let short segments leave at once, or wait for acknowledgements (Nagle)."""
        self.no_delay = on
        self._settle(now)

    def set_keepalive(self, keepalive: Keepalive | None, now: float) -> None:
        """Ask a silent peer whether it is there, and fail when it is not; None for never."""
        self.keepalive = keepalive
        self._keepalive_sent = 0
        if not self.is_closed:
            self._keepalive_at = NEVER if keepalive is None else max(now, self.heard_at) + keepalive.idle
            self.host.watch(self)

    def set_user_timeout(self, seconds: float | None, now: float) -> None:
        """Fail with ETIMEDOUT when nothing was acknowledged for so long; None for the default (RFC 5482, locally)."""
        self.user_timeout = seconds
        self._settle(now)

    def info(self) -> TcpInfo:
        """A picture of this moment."""
        sender, trip = self.sender, self.trip
        return TcpInfo(
            state=self.state,
            srtt=trip.smoothed,
            rtt_variation=trip.variation,
            min_rtt=trip.smallest if trip.smallest < NEVER else 0.0,
            rto=trip.timeout,
            cwnd=sender.cubic.cwnd,
            ssthresh=sender.cubic.ssthresh if sender.cubic.ssthresh < 1 << 40 else None,
            flight=sender.nxt - sender.una,
            send_buffered=len(sender.buffer),
            receive_buffered=self.receiver.ready,
            peer_window=sender.window,
            receive_window=self.receiver.edge - self.receiver.nxt,
            mss=sender.payload,
            retransmits=self.retransmitted,
            spurious=self.spurious,
            delivery_rate=sender.rate,
            soft_error=self.soft_error,
        )

    # --- what happens to it ------------------------------------------------------------------------------------------

    def transition(self, event: Event, now: float) -> None:
        """Follow the table of states, with what entering a state brings along."""
        state = next_state(self.state, event)
        if state is None:
            return
        self.state = state
        if state is State.FIN_WAIT_2:
            if self.is_orphan:
                # RFC 9293 leaves it open for ever; nobody would notice a peer that never closes.
                self._close_at = now + FIN_WAIT_2
        elif state is State.TIME_WAIT:
            self.host.retire(self, now)
        elif state is State.CLOSED:
            self.host.forget(self)

    def fail(self, error: OSError | None, now: float) -> None:
        """It is over: whoever waits gets the error, after what can still be read."""
        if self.state is State.CLOSED and self.error is not None:
            return
        self.error = error or OSError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
        if error is not None:
            self.host.failed += 1
        self.transition(Event.FAIL, now)
        self.sender.timer_at = self.sender.reorder_at = NEVER
        self.receiver.ack_at = self._close_at = self._keepalive_at = NEVER
        self.receiver.ack_now = 0
        self.syn_due = False
        self.sender.board.runs.clear()
        self.sender.buffer.release(self.sender.buffer.end)
        if self.is_orphan:
            self.receiver.discard()
        self.host.mark_ready(self)

    def send_reset(self) -> None:
        """One RST that the peer takes: at SND.NXT, with an acknowledgement."""
        flags = tcp.RST | tcp.ACK
        self.host.control(self.headers.packet(self.sender.nxt, self.receiver.nxt, flags, 0))
        self.host.resets_sent += 1

    def challenge(self, now: float) -> None:
        """A challenge ACK (RFC 5961), counted for this connection only."""
        if now - self._challenge_at >= 1.0:
            self._challenge_at, self._challenges = now, 0
        if self._challenges < CHALLENGE_ACKS_PER_SECOND:
            self._challenges += 1
            self.receiver.ack_now = max(self.receiver.ack_now, 1)

    def heard(self, now: float) -> None:
        """A segment that belongs to the connection came: the peer is there."""
        self.heard_at = now
        if self.keepalive is not None:
            self._keepalive_sent = 0
            self._keepalive_at = now + self.keepalive.idle

    # --- emission ----------------------------------------------------------------------------------------------------

    def clock(self, now: float) -> int:
        """Our timestamp, milliseconds, 32 bits."""
        return (int(now * 1000) + self._timestamp_offset) & 0xFFFFFFFF

    def options(self, now: float) -> bytes:
        """The options of a segment that leaves now."""
        receiver = self.receiver
        if self.has_timestamps:
            cached = self._time_cached
            if cached[0] != now or cached[1] != self.ts_recent:
                option = tcp.encode_timestamps(self.clock(now), self.ts_recent)
                self._time_cached = cached = now, self.ts_recent, option
            if not self.has_sack or not receiver.has_blocks:
                return cached[2]
            return cached[2] + tcp.encode_options(sack=receiver.sack_blocks(SACK_BLOCKS - 1))
        if self.has_sack and receiver.has_blocks:
            return tcp.encode_options(sack=receiver.sack_blocks(SACK_BLOCKS))
        return b""

    def has_output(self, now: float) -> bool:
        """Whether `emit` would send something."""
        if self.receiver.ack_now or self.syn_due or self.sender.probe_due:
            return True
        return self.state >= State.ESTABLISHED and self.state is not State.TIME_WAIT and sending.can_send(self, now)

    def emit(self, now: float, out: Emission, rows: int) -> None:
        """Send up to so many rows."""
        if self.syn_due:
            self._send_syn(now, out)
        elif self.is_synchronized:
            left = out.left
            sending.emit(self, now, out, rows)
            if self.sender.probe_due:
                self._send_probe(now, out)
            if out.left == left or self.receiver.ack_now:
                self.emit_acknowledgement(now, out)
        elif self.receiver.ack_now:
            self.emit_acknowledgement(now, out)
        self._after_emit(now)

    def emit_acknowledgement(self, now: float, out: Emission) -> None:
        """Bare acknowledgements, if they are due: one, or as many as a peer without SACK must count."""
        receiver, sender = self.receiver, self.sender
        count = min(receiver.ack_now, out.left)
        if not count:
            return
        flags = tcp.ACK | (tcp.ECE if self.ece_due else 0)
        packet = self.headers.packet(sender.nxt, receiver.nxt, flags, receiver.window(), self.options(now))
        for _ in range(count):
            out.packet(packet)
        receiver.acknowledged()

    def _send_syn(self, now: float, out: Emission) -> None:
        sender, receiver = self.sender, self.receiver
        self.syn_due = False
        is_answer = self.state is State.SYN_RECEIVED
        flags = tcp.SYN | tcp.ACK if is_answer else tcp.SYN
        if is_answer:
            flags |= tcp.ECE if self.is_ecn else 0
        elif self.host.uses_ecn and not sender.retries:
            flags |= tcp.ECE | tcp.CWR  # RFC 3168 6.1.1.1: not on a SYN sent again, somebody may dislike them
        options = tcp.encode_options(
            mss=mss_for_mtu(self.mtu, is_v4=self.headers.is_v4),
            scale=receiver.scale if self.offers else None,
            timestamps=(self.clock(now), self.ts_recent) if self.has_timestamps or not is_answer else None,
            sack_permitted=self.has_sack or not is_answer,
        )
        window = min(receiver.capacity, 0xFFFF)
        out.packet(self.headers.packet(sender.iss, receiver.nxt if is_answer else 0, flags, window, options))
        sender.nxt = max(sender.nxt, sender.iss + 1)
        receiver.acknowledged()
        if sender.progress_at == NEVER:
            sender.progress_at = now
        sender.last_sent_at = now
        if sender.retries:
            self.retransmitted += 1
            self.host.segments_retransmitted += 1
        sender.timer, sender.timer_at = Timer.RETRANSMISSION, now + self.trip.timeout

    def _send_probe(self, now: float, out: Emission) -> None:
        """An old sequence number makes the peer answer and takes none of its octets (RFC 9293 3.8.6.1, 3.8.4)."""
        sender, receiver = self.sender, self.receiver
        sender.probe_due = False
        out.packet(self.headers.packet(sender.una - 1, receiver.nxt, tcp.ACK, receiver.window(), self.options(now)))
        receiver.acknowledged()

    def _after_emit(self, now: float) -> None:
        sender = self.sender
        if (
            sender.timer_at == NEVER
            and self.state >= State.ESTABLISHED
            and self.state is not State.TIME_WAIT
            and sender.end > sender.nxt
        ):
            sending.arm(self, now)
        self.host.watch(self)

    def _settle(self, now: float) -> None:
        """After anything that may have made something due."""
        if self.has_output(now):
            self.host.schedule(self)
        else:
            self._after_emit(now)

    settle = _settle

    # --- time --------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """The earliest of all its deadlines."""
        sender = self.sender
        moment = min(sender.timer_at, sender.reorder_at, self.receiver.ack_at, self._close_at, self._keepalive_at)
        if self.user_timeout is not None:
            moment = min(moment, sender.progress_at + self.user_timeout)
        if sender.pace_wakes and sender.pace_at < moment:
            moment = sender.pace_at
        return moment

    @property
    def close_at(self) -> float:
        """When an orphan is reset."""
        return self._close_at

    @property
    def keepalive_at(self) -> float:
        """When the next keepalive probe is due."""
        return self._keepalive_at

    @property
    def is_backed_off(self) -> bool:
        """Whether it waits longer and longer between attempts to be heard."""
        sender = self.sender
        return bool(sender.retries or sender.persist_backoff or self._keepalive_sent) and not self.is_closed

    def resume_keepalive(self, moment: float) -> None:
        """What was asked in vain does not count, and is asked again at a moment."""
        if self._keepalive_sent:
            self._keepalive_sent = 0
            self._keepalive_at = min(self._keepalive_at, moment)

    def note_keepalive(self, now: float, interval: float) -> int:
        """A probe is due; says how many were sent before without an answer."""
        self._keepalive_sent += 1
        self._keepalive_at = now + interval
        return self._keepalive_sent - 1
