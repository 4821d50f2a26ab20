"""The TCP of one stack: which connection a segment belongs to, who may send next, what is left of those that ended.

Source: RFC 9293 3.10.7.1 and 3.10.7.2, RFC 6056, RFC 6191.
"""

from __future__ import annotations

import enum
import errno
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from wgpy.errors import DropReason
from wgpy.netstack.addresses import failure, parsed, parsed_port
from wgpy.netstack.constants import (
    RECEIVE_BUFFER,
    RECEIVE_BUFFER_MAX,
    RESETS_BURST,
    RESETS_PER_SECOND,
    RESUME_SPACING,
    SEND_BUFFER_MAX,
    STACK_BUFFERS,
    SYN_QUEUE,
    TIME_WAIT,
    TIME_WAIT_RECORDS,
)
from wgpy.netstack.emission import Headers
from wgpy.netstack.ports import Secret, choose_port
from wgpy.netstack.tcp import segment as segments
from wgpy.netstack.tcp import sender as sending
from wgpy.netstack.tcp import syncookies, timers
from wgpy.netstack.tcp.connection import TcpConnection
from wgpy.netstack.tcp.listener import TcpListener
from wgpy.netstack.tcp.options import mss_for_mtu, scale_for, unwrapped
from wgpy.netstack.tcp.states import Event, State
from wgpy.netstack.tcp.timewait import TimeWait, TimeWaitTable
from wgpy.wire import ip, tcp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wgpy.netstack.coalesce import Arrival
    from wgpy.netstack.deadlines import DeadlineHeap
    from wgpy.netstack.emission import Emission
    from wgpy.wire.tcp import Segment

__all__ = ["Fallback", "TcpHost"]

# Rows of one flow in its turn: about one slab.
_TURN: Final = 64


class Fallback(enum.Enum):
    """What a fallback handler says to a SYN for which nobody listens."""

    ACCEPT = "answer it"
    REFUSE = "reset it"
    IGNORE = "say nothing"


class World(Protocol):
    """What TCP needs of the stack around it."""

    def queue_control(self, packet: bytes) -> bool:
        """Send a packet of our own before all data."""
        ...

    def mark_ready(self, socket: TcpConnection | TcpListener) -> None:
        """The readiness of a socket changed."""

    def may_send_now(self, destination: bytes, now: float) -> bool:
        """See `Stack.may_send_now`."""
        ...

    def count_drop(self, reason: DropReason) -> None:
        """One segment was refused."""

    def is_local(self, address: bytes) -> bool:
        """Whether the address is ours."""
        ...

    def check_destination(self, address: bytes) -> None:
        """See `Stack.check_destination`."""

    def local_address_for(self, remote: bytes) -> bytes | None:
        """Our first address of the same family."""
        ...


class TcpHost:
    """All connections, listeners and remains of one stack."""

    def __init__(
        self,
        world: World,
        heap: DeadlineHeap,
        *,
        mtu: int,
        receive_buffer_max: int = RECEIVE_BUFFER_MAX,
        send_buffer_max: int = SEND_BUFFER_MAX,
        uses_ecn: bool = False,
        time_wait: float = TIME_WAIT,
        secret: Secret,
    ) -> None:
        """Make one; `heap` is shared with the rest of the stack."""
        self.mtu = mtu
        self.receive_buffer_max = receive_buffer_max
        self.send_buffer_max = send_buffer_max
        self.uses_ecn = uses_ecn
        self.flows: dict[bytes, TcpConnection] = {}
        self.time_wait = TimeWaitTable(TIME_WAIT_RECORDS, time_wait)
        self.opened = self.failed = self.segments_retransmitted = self.resets_sent = self.urgent = 0
        self._world = world
        self._heap = heap
        self._secret = secret
        self._listeners: dict[tuple[bytes | None, int], TcpListener] = {}
        self._fallback: Callable[[tuple[str, int], tuple[str, int]], Fallback] | None = None
        self._fallback_listener: TcpListener | None = None
        self._prompt: deque[TcpConnection] = deque()
        self._turns: deque[TcpConnection] = deque()
        # Those whose turn it was while their way was closed.
        self._held: deque[TcpConnection] = deque()
        self._granted = 0
        self._resets = float(RESETS_BURST)
        self._resets_at = 0.0
        self._cookies_until = -1.0

    # --- what connections ask for ------------------------------------------------------------------------------------

    def control(self, packet: bytes) -> None:
        """Send a packet that belongs to no queue of a connection, such as an RST."""
        self._world.queue_control(packet)

    def mark_ready(self, socket: TcpConnection | TcpListener) -> None:
        """See `Stack.mark_ready`."""
        self._world.mark_ready(socket)

    def watch(self, conn: TcpConnection) -> None:
        """Wake the connection at its deadline."""
        if conn.state is not State.CLOSED and conn.state is not State.TIME_WAIT:
            self._heap.wake_by(conn, conn.deadline)

    def schedule(self, conn: TcpConnection) -> None:
        """The connection has something to send."""
        if not conn.is_queued:
            conn.is_queued = True
            self._prompt.append(conn)

    def grow(self, octets: int) -> int:
        """Let a receive buffer grow: by how much it may."""
        given = min(octets, STACK_BUFFERS - self._granted)
        self._granted += given
        return given

    def retire(self, conn: TcpConnection, now: float) -> None:
        """A connection entered TIME_WAIT: a small record takes its place."""
        self._forget(conn)
        record = TimeWait(
            conn.headers,
            conn.sender.nxt,
            conn.receiver.nxt,
            conn.receiver.window(),
            conn.ts_recent if conn.has_timestamps else None,
            conn.clock(0.0),
        )
        self.time_wait.add(conn.key, record, now)
        self.mark_ready(conn)

    def forget(self, conn: TcpConnection) -> None:
        """A connection is closed."""
        self._forget(conn)
        self.mark_ready(conn)

    def _forget(self, conn: TcpConnection) -> None:
        if self.flows.get(conn.key) is conn:
            del self.flows[conn.key]
            self._granted -= max(conn.receiver.capacity - RECEIVE_BUFFER, 0)
        self._heap.discard(conn)
        if conn.listener is not None:
            conn.listener.forget(conn)

    # --- opening -----------------------------------------------------------------------------------------------------

    def connect(self, remote: tuple[str, int], now: float, *, local: tuple[str, int] | None = None) -> TcpConnection:
        """See `Stack.connect_tcp`."""
        there, remote_port = parsed(*remote)
        self._world.check_destination(there)
        if local is not None and local[0]:
            here = parsed(*local)[0]
            if not self._world.is_local(here) or len(here) != len(there):
                raise failure(errno.EADDRNOTAVAIL, local[0])
        else:
            found = self._world.local_address_for(there)
            if found is None:
                raise failure(errno.ENETUNREACH, f"no address to reach {remote[0]}")
            here = found
        port = self._local_port(here, there, remote_port, parsed_port(local[1]) if local is not None else 0)
        key = _key(here, port, there, remote_port)
        conn = self._new(key, (here, port), (there, remote_port), now)
        conn.is_active = True
        conn.receiver.scale = scale_for(conn.receiver.limit)
        conn.transition(Event.ACTIVE_OPEN, now)
        conn.syn_due = True
        self.schedule(conn)
        return conn

    def _local_port(self, here: bytes, there: bytes, remote_port: int, wanted: int) -> int:
        def is_free(port: int) -> bool:
            key = _key(here, port, there, remote_port)
            return key not in self.flows and key not in self.time_wait

        if wanted:
            if not is_free(wanted):
                raise failure(errno.EADDRINUSE, f"port {wanted}")
            return wanted
        port = choose_port(self._secret.first_port(here, there, remote_port), is_free)
        if port is None:
            raise failure(errno.EADDRNOTAVAIL, "every local port is in use")
        return port

    def _new(
        self, key: bytes, local: tuple[bytes, int], remote: tuple[bytes, int], now: float, iss: int | None = None
    ) -> TcpConnection:
        conn = TcpConnection(
            self,
            key,
            local,
            remote,
            self._secret.initial_sequence(key, now) if iss is None else iss,
            self._secret.timestamp_offset(key),
        )
        self.flows[key] = conn
        return conn

    def listen(self, port: int, host: str | None, backlog: int) -> TcpListener:
        """See `Stack.listen_tcp`."""
        port = parsed_port(port)
        address = None if host is None else parsed(host, port)[0]
        if address is not None and not self._world.is_local(address):
            raise failure(errno.EADDRNOTAVAIL, f"{host} is no address of this tunnel")
        if not port:
            first = self._secret.first_port(address or b"", b"", 0)
            chosen = choose_port(first, lambda one: (address, one) not in self._listeners)
            if chosen is None:
                raise failure(errno.EADDRINUSE, "every port is in use")
            port = chosen
        if (address, port) in self._listeners:
            raise failure(errno.EADDRINUSE, f"port {port}")
        listener = TcpListener(self, address, host, port, backlog)
        self._listeners[address, port] = listener
        return listener

    def listen_everywhere(
        self, handler: Callable[[tuple[str, int], tuple[str, int]], Fallback], backlog: int
    ) -> TcpListener:
        """See `Stack.set_fallback_tcp_handler`."""
        self._fallback = handler
        self._fallback_listener = TcpListener(self, None, None, 0, backlog)
        return self._fallback_listener

    def unlisten(self, listener: TcpListener) -> None:
        """A listener was closed."""
        if self._listeners.get((listener.address, listener.port)) is listener:
            del self._listeners[listener.address, listener.port]
        if self._fallback_listener is listener:
            self._fallback = self._fallback_listener = None

    @property
    def takes_any_address(self) -> bool:
        """Whether SYNs for addresses that are not ours are looked at."""
        return self._fallback is not None

    # --- arriving ----------------------------------------------------------------------------------------------------

    def arrive(self, arrivals: Sequence[Arrival], now: float) -> None:
        """Take the arrivals of one batch; acknowledgements are decided once per connection at its end."""
        touched: dict[TcpConnection, bool] = {}
        flows = self.flows
        for arrival in arrivals:
            conn = flows.get(arrival.key)
            if conn is None:
                self._arrive_for_nobody(arrival, now)
                continue
            reason = segments.arrive(conn, arrival, now)
            if reason is not None:
                self._world.count_drop(reason)
            touched[conn] = arrival.is_pushed
        for conn, is_pushed in touched.items():
            segments.finish_batch(conn, now, is_pushed=is_pushed)

    def _arrive_for_nobody(self, arrival: Arrival, now: float) -> None:
        segment, key = arrival.segment, arrival.key
        half = (len(key) - 4) // 2
        local = key[half : 2 * half]
        iss = None
        record = self.time_wait.get(key)
        if record is not None:
            if not record.gives_way_to(segment):
                self._arrive_in_time_wait(record, arrival, now)
                return
            self.time_wait.discard(key)
            iss = record.next_iss(self._secret.initial_sequence(key, now))
        is_ours = self._world.is_local(local)
        if not is_ours and self._fallback is None:
            self._world.count_drop(DropReason.FOREIGN_DESTINATION)
            return
        if segment.flags & (tcp.SYN | tcp.ACK | tcp.RST | tcp.FIN) == tcp.SYN:
            listener = self._listener_for(local, arrival, is_ours=is_ours)
            if isinstance(listener, TcpListener):
                self._open_passively(listener, arrival, now, iss)
                return
            if listener is Fallback.IGNORE:
                self._world.count_drop(DropReason.TCP_NO_CONNECTION)
                return
        elif segment.flags & (tcp.SYN | tcp.ACK | tcp.RST) == tcp.ACK and self._open_by_cookie(arrival, local, now):
            return
        elif not segment.flags & tcp.ACK and self._listener_at(local, segment.destination_port) is not None:
            # RFC 9293 3.10.7.2: a listener has no answer to what neither opens nor acknowledges, SYN with FIN included.
            self._world.count_drop(DropReason.TCP_NO_CONNECTION)
            return
        self._world.count_drop(DropReason.TCP_NO_CONNECTION)
        if is_ours or self._fallback is not None:
            self.reset_stranger(arrival, now)

    def _arrive_in_time_wait(self, record: TimeWait, arrival: Arrival, now: float) -> None:
        segment, key = arrival.segment, arrival.key
        if record.is_ended_by(segment):
            self.time_wait.discard(key)
            return
        answer = record.answer(segment, arrival.length, now)
        if answer is not None:
            self.control(answer)
            if segment.flags & tcp.FIN and segment.sequence == (record.rcv_nxt - 1) & 0xFFFFFFFF:
                self.time_wait.renew(key, now)
        self._world.count_drop(DropReason.TCP_NO_CONNECTION)

    def _listener_at(self, local: bytes, port: int) -> TcpListener | None:
        return self._listeners.get((local, port)) or self._listeners.get((None, port))

    def _listener_for(self, local: bytes, arrival: Arrival, *, is_ours: bool) -> TcpListener | Fallback:
        port = arrival.segment.destination_port
        if is_ours:
            listener = self._listener_at(local, port)
            if listener is not None:
                return listener
        if self._fallback is None or self._fallback_listener is None:
            return Fallback.REFUSE
        half = (len(arrival.key) - 4) // 2
        here = ip.to_text(local), port
        there = ip.to_text(arrival.key[:half]), arrival.segment.source_port
        answer = self._fallback(here, there)
        return self._fallback_listener if answer is Fallback.ACCEPT else answer

    def _open_passively(self, listener: TcpListener, arrival: Arrival, now: float, iss: int | None) -> None:
        segment, key = arrival.segment, arrival.key
        if not listener.has_room:
            self._world.count_drop(DropReason.TCP_ACCEPT_QUEUE_FULL)
            return
        if len(listener.half_open) >= SYN_QUEUE:
            self._world.count_drop(DropReason.TCP_SYN_QUEUE_FULL)
            self._answer_with_cookie(key, segment, now)
            return
        conn = self._accept_syn(listener, key, segment, now, iss)
        listener.half_open[key] = conn
        conn.syn_due = True
        self.schedule(conn)

    def _accept_syn(
        self, listener: TcpListener, key: bytes, segment: Segment, now: float, iss: int | None = None
    ) -> TcpConnection:
        half = (len(key) - 4) // 2
        local = key[half : 2 * half], segment.destination_port
        conn = self._new(key, local, (key[:half], segment.source_port), now, iss)
        conn.listener = listener
        conn.receiver.scale = scale_for(conn.receiver.limit)
        conn.transition(Event.PASSIVE_OPEN, now)
        segments.agree(conn, segment)
        conn.ts_recent_at = now
        conn.is_ecn = self.uses_ecn and segment.flags & (tcp.ECE | tcp.CWR) == tcp.ECE | tcp.CWR
        return conn

    def _answer_with_cookie(self, key: bytes, syn: Segment, now: float) -> None:
        """Answer a SYN and remember nothing."""
        self._cookies_until = now + syncookies.COOKIE_LIFETIME
        half = (len(key) - 4) // 2
        headers = Headers(key[half : 2 * half], syn.destination_port, key[:half], syn.source_port)
        is_ecn = self.uses_ecn and syn.flags & (tcp.ECE | tcp.CWR) == tcp.ECE | tcp.CWR
        stamps, scale, has_sack = None, None, False
        if syn.timestamps is not None:
            clock = (int(now * 1000) + self._secret.timestamp_offset(key)) & 0xFFFFFFFF
            stamps = syncookies.timestamp(clock, syn, is_ecn=is_ecn), syn.timestamps[0]
            scale = None if syn.scale is None else scale_for(self.receive_buffer_max)
            has_sack = syn.sack_permitted
        mss = mss_for_mtu(self.mtu, is_v4=half == 4)
        options = tcp.encode_options(mss=mss, scale=scale, timestamps=stamps, sack_permitted=has_sack)
        flags = tcp.SYN | tcp.ACK | (tcp.ECE if is_ecn and stamps is not None else 0)
        window = min(RECEIVE_BUFFER, self.receive_buffer_max, 0xFFFF)
        sequence = syncookies.initial_sequence(self._secret, key, syn, now)
        self.control(headers.packet(sequence, syn.sequence + 1, flags, window, options))

    def _open_by_cookie(self, arrival: Arrival, local: bytes, now: float) -> bool:
        """An ACK for no connection may complete a handshake that we did not remember; whether it did."""
        if now > self._cookies_until:
            return False
        segment, key = arrival.segment, arrival.key
        port = segment.destination_port
        listener = self._listener_at(local, port)
        restored = syncookies.restore(self._secret, key, segment, now)
        if listener is None or restored is None:
            return False
        if not listener.has_room:
            self._world.count_drop(DropReason.TCP_ACCEPT_QUEUE_FULL)
            return True
        iss, syn, is_ecn = restored
        conn = self._accept_syn(listener, key, syn, now, iss)
        conn.is_ecn = self.uses_ecn and is_ecn
        conn.sender.nxt = iss + 1
        conn.sender.retries = 0
        self.arrive([arrival], now)
        return True

    # --- answering strangers -----------------------------------------------------------------------------------------

    def reset_stranger(self, arrival: Arrival, now: float | None = None) -> None:
        """The RST for a segment that belongs to nothing (RFC 9293 3.10.7.1); not for an RST, and not too many."""
        segment, key = arrival.segment, arrival.key
        if segment.flags & tcp.RST or (now is not None and not self._may_reset(now)):
            return
        half = (len(key) - 4) // 2
        headers = Headers(key[half : 2 * half], segment.destination_port, key[:half], segment.source_port)
        if segment.flags & tcp.ACK:
            packet = headers.packet(segment.acknowledgement, 0, tcp.RST, 0)
        else:
            length = arrival.length + bool(segment.flags & tcp.SYN) + bool(segment.flags & tcp.FIN)
            packet = headers.packet(0, segment.sequence + length, tcp.RST | tcp.ACK, 0)
        self.control(packet)
        self.resets_sent += 1

    def reset_for(self, conn: TcpConnection, segment: Segment) -> None:
        """The RST for an acknowledgement that a half-open connection never asked for."""
        self.control(conn.headers.packet(segment.acknowledgement, 0, tcp.RST, 0))
        self.resets_sent += 1

    def _may_reset(self, now: float) -> bool:
        self._resets = min(self._resets + (now - self._resets_at) * RESETS_PER_SECOND, float(RESETS_BURST))
        self._resets_at = now
        if self._resets < 1:
            return False
        self._resets -= 1
        return True

    # --- sending -----------------------------------------------------------------------------------------------------

    @property
    def has_output(self) -> bool:
        """Whether some connection wants to send."""
        return bool(self._prompt or self._turns)

    def emit_prompt(self, now: float, out: Emission) -> None:
        """Bare acknowledgements, SYNs and probes; whoever has octets to send takes its turn with the others."""
        prompt = self._prompt
        if self._held:
            self._turns.extendleft(reversed(self._held))
            self._held.clear()
        while prompt and out.left:
            conn = prompt.popleft()
            if conn.state >= State.ESTABLISHED and sending.can_send(conn, now):
                if conn.sender.board.lost:
                    self._turns.appendleft(conn)
                else:
                    self._turns.append(conn)
                continue
            conn.is_queued = False
            conn.emit(now, out, min(out.left, _TURN))

    @property
    def has_turns(self) -> bool:
        """Whether some connection waits for its turn."""
        return bool(self._turns)

    def emit_turn(self, now: float, out: Emission) -> None:
        """Let the next connection send one slab."""
        conn = self._turns.popleft()
        if not self._world.may_send_now(conn.headers.destination, now):
            self._held.append(conn)
            return
        left = out.left
        conn.emit(now, out, min(left, _TURN))
        if out.left != left and conn.has_output(now):
            self._turns.append(conn)
        else:
            conn.is_queued = False

    # --- time --------------------------------------------------------------------------------------------------------

    def fire(self, conn: TcpConnection, now: float) -> None:
        """A deadline of a connection has come."""
        timers.fire(conn, now)

    def resume(self, leads_to: Callable[[bytes], bool], now: float) -> None:
        """See `Stack.resume`."""
        moment = now
        for conn in self.flows.values():
            if conn.is_backed_off and leads_to(conn.headers.destination):
                timers.resume(conn, moment)
                moment += RESUME_SPACING

    # --- the path ----------------------------------------------------------------------------------------------------

    def set_mtu(self, mtu: int) -> None:
        """The tunnel's MTU changed: what is sent from now on fits into it, what is lost is cut again."""
        self.mtu = mtu
        for conn in list(self.flows.values()):
            self.lower_mtu(conn, mtu)

    def lower_mtu(self, conn: TcpConnection, mtu: int) -> bool:
        """Let a connection send smaller packets; False where they are small enough already."""
        conn.mtu = min(conn.mtu, mtu)
        mss = mss_for_mtu(mtu, is_v4=conn.headers.is_v4)
        if mss >= conn.sender.mss:
            return False
        conn.sender.set_mss(mss, tcp.TIMESTAMPS_SIZE if conn.has_timestamps else 0)
        return True

    def find(self, local: tuple[bytes, int], remote: tuple[bytes, int]) -> TcpConnection | None:
        """The connection between two ends."""
        return self.flows.get(_key(local[0], local[1], remote[0], remote[1]))

    def is_plausible(self, conn: TcpConnection, sequence: int) -> bool:
        """RFC 5927 section 4.1: an ICMP error must quote something that is in flight."""
        number = unwrapped(sequence, conn.sender.una)
        return conn.sender.una <= number < conn.sender.nxt

    def abort(self, now: float) -> None:
        """See `Stack.abort`."""
        for conn in list(self.flows.values()):
            if conn.is_orphan and conn.state is State.FIN_WAIT_2:
                conn.fail(None, now)
            else:
                conn.abort(now)

    def close(self, now: float) -> None:
        """Give everything up without a word."""
        for listener in [*self._listeners.values(), self._fallback_listener]:
            if listener is not None:
                listener.is_closed = True
                self.mark_ready(listener)
        self._listeners.clear()
        self._fallback = self._fallback_listener = None
        for conn in list(self.flows.values()):
            conn.fail(None, now)
        self.time_wait.clear()
        self._prompt.clear()
        self._turns.clear()
        self._held.clear()


def _key(local: bytes, local_port: int, remote: bytes, remote_port: int) -> bytes:
    return remote + local + remote_port.to_bytes(2) + local_port.to_bytes(2)
