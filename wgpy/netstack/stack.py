"""The stack: packets to sockets, sockets to packets, fairly; deadlines; statistics.

    receive -> _packet -> (fragments) -> handler of the protocol -> sockets whose readiness changed
    emit    <- control packets first, then one slab of each flow in turn (deficit round robin, in rows)

It pulls: nothing is sent until `emit` is asked for rows, so nothing between TCP and WireGuard can overflow.
"""

from __future__ import annotations

import enum
import errno
import ipaddress
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

from wgpy.constants import TRANSPORT_HEADER_SIZE
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.selected import rows as selected
from wgpy.errors import BadPacket, DropReason
from wgpy.netstack.addresses import is_martian, refusal
from wgpy.netstack.coalesce import Coalescer
from wgpy.netstack.constants import (
    BACKLOG,
    CONTROL_QUEUE,
    FLOW_QUEUE,
    NEVER,
    RECEIVE_BUFFER_MAX,
    SEND_BUFFER_MAX,
    TIME_WAIT,
)
from wgpy.netstack.deadlines import DeadlineHeap
from wgpy.netstack.emission import Emission
from wgpy.netstack.ports import Secret
from wgpy.netstack.statistics import StackStatistics
from wgpy.netstack.tcp import icmperror
from wgpy.netstack.tcp.host import TcpHost
from wgpy.netstack.tcp.states import State
from wgpy.wire import ip
from wgpy.wire.checksum import checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from wgpy.dataplane.slab import Slab
    from wgpy.netstack.tcp.connection import TcpConnection
    from wgpy.netstack.tcp.host import Fallback
    from wgpy.netstack.tcp.listener import TcpListener
    from wgpy.wire.ip import IpHeader

__all__ = ["Handler", "IcmpError", "Socket", "Stack", "Timed"]


# Packets of one flow in its turn.
_TURN: Final = 64

Handler: TypeAlias = "Callable[[memoryview, IpHeader, float], None]"


class Socket(Protocol):
    """What `receive` and `handle_timer` return: something whose readiness changed."""

    @property
    def is_readable(self) -> bool:
        """Reading would give something: octets, a datagram, a connection, the end or an error."""
        ...

    @property
    def is_writable(self) -> bool:
        """Writing would take something, or fail at once."""
        ...


class Timed(Protocol):
    """A part of the stack that waits for moments of its own (reassembly, echo, queries)."""

    def next_deadline(self) -> float | None:
        """The earliest moment at which it wants `handle_timer`."""
        ...

    def handle_timer(self, now: float) -> None:
        """Do everything that is due."""


class IcmpError(enum.Enum):
    """What an ICMP error says, without the difference between the two families (RFC 5461, RFC 4443)."""

    NET_UNREACHABLE = errno.ENETUNREACH
    HOST_UNREACHABLE = errno.EHOSTUNREACH
    PROTOCOL_UNREACHABLE = errno.ENOPROTOOPT
    PORT_UNREACHABLE = errno.ECONNREFUSED
    PROHIBITED = errno.EACCES
    PARAMETER_PROBLEM = errno.EPROTO
    TOO_BIG = errno.EMSGSIZE


class Stack:
    """Many sockets behind one packet door.

    Attributes:
        mtu: greatest packet.
        drops: packets refused, by reason; only ever grows.
        may_send: whether more than control packets may be sent to an address (4 or 16 octets) now; what may not stays
            where it is and is asked for again by the next `emit`.
    """

    def __init__(
        self,
        *,
        addresses: Sequence[str],
        mtu: int,
        random: Callable[[int], bytes],
        verify_checksums: bool = True,
        uses_ecn: bool = False,
        receive_buffer_max: int = RECEIVE_BUFFER_MAX,
        send_buffer_max: int = SEND_BUFFER_MAX,
        time_wait: float = TIME_WAIT,
        rows: Rows = selected,
        emission: Emission | None = None,
        secret: bytes | None = None,
        epoch: float = 0.0,
    ) -> None:
        """Make a stack.

        Args:
            addresses: our own, such as "10.0.0.1/24"; of IPv4 networks the last address is for broadcast.
            mtu: greatest packet, octets.
            random: gives so many random octets.
            verify_checksums: look at the checksums of what arrives.
            uses_ecn: offer and accept explicit congestion notification (RFC 3168).
            receive_buffer_max: octets that one connection may hold for its reader.
            send_buffer_max: octets that one connection may hold unacknowledged.
            time_wait: seconds for which a closed connection is remembered, 1 to 240.
            rows: the row functions to use.
            emission: buffers to send from; stacks whose slabs are used up before another one is asked may share them,
                so that an idle one costs next to nothing. None for its own.
            secret: 32 octets that are the same in every process that has these addresses, and known to nobody else;
                None for random ones. See `ports.Secret`.
            epoch: wall clock minus the time that is passed to the verbs, seconds; 0 without a secret.
        """
        interfaces = [ipaddress.ip_interface(address) for address in addresses]
        self._addresses = [interface.ip.packed for interface in interfaces]
        self._ours = frozenset(self._addresses)
        self._broadcasts = frozenset(
            one.network.broadcast_address.packed
            for one in interfaces
            if one.version == 4 and one.network.prefixlen < 31
        )
        self.mtu = mtu
        self.drops: Counter[DropReason] = Counter()
        self.may_send: Callable[[bytes, float], bool] = _always
        self._now = 0.0
        self._heap = DeadlineHeap()
        self._tcp = TcpHost(
            self,
            self._heap,
            mtu=mtu,
            secret=Secret(random, secret, epoch),
            receive_buffer_max=receive_buffer_max,
            send_buffer_max=send_buffer_max,
            uses_ecn=uses_ecn,
            time_wait=min(max(time_wait, 1.0), 240.0),
        )
        self._coalescer = Coalescer(rows, verifies=verify_checksums)
        self._emission = Emission(mtu, rows) if emission is None else emission
        self._handlers: dict[int, Handler] = {}
        self._datagrams: Callable[[Slab, float], bool] | None = None
        self._fragments: Callable[[memoryview, IpHeader, float], bytes | None] | None = None
        self._unreachable: Handler | None = None
        self._timed: list[Timed] = []
        self._ready: dict[Socket, None] = {}
        self._control: deque[bytes] = deque()
        # Packets for ourselves, which never leave.
        self._looped: deque[bytes] = deque()
        self._queues: dict[Hashable, _PacketQueue] = {}
        # Those whose turn it was while their way was closed.
        self._held: dict[Hashable, _PacketQueue] = {}
        self._packets_received = 0
        self._packets_sent = 0
        self._is_flow_turn = False

    # --- packets in --------------------------------------------------------------------------------------------------

    def receive(self, slabs: Sequence[Slab], now: float) -> list[Socket]:
        """Take inner packets as `dataplane.inner` groups them; the slabs may be reused after the call.

        Returns:
            The sockets whose readiness changed.
        """
        self._now = now
        coalescer = self._coalescer
        for slab in slabs:
            self._packets_received += slab.count
            if slab.count > 1:
                if coalescer.whole_slab(slab):
                    body = slab.count if slab.last_length == slab.length else slab.count - 1
                    if body == slab.count:
                        continue
                    slab = slab.part(body, 1)
                elif self._datagrams is not None and self._datagrams(slab, now):
                    continue
            view, at = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE
            for row in range(slab.count):
                length = slab.last_length if row == slab.count - 1 else slab.length
                try:
                    self._packet_untrusted(view[at : at + length], now)
                except BadPacket as problem:
                    self.drops[problem.reason] += 1
                at += slab.stride
        arrivals = coalescer.take()
        if arrivals:
            self._tcp.arrive(arrivals, now)
        return self.take_ready()

    def _packet_untrusted(self, packet: memoryview, now: float) -> None:
        # Nearly everything: TCP over IPv4 without options and fragments, or over IPv6 without extension headers.
        length = len(packet)
        if length >= 40 and packet[0] == 0x45 and packet[9] == ip.TCP and not (packet[6] & 0x3F or packet[7]):
            if checksum(packet[:20]):
                raise BadPacket(DropReason.IP_HEADER)
            key = bytes(packet[12:24])
            if is_martian(key[:4], key[4:8]):
                raise BadPacket(DropReason.MARTIAN_SOURCE)
            self._coalescer.row(packet, 20, key, packet[1])
            return
        if length >= 60 and packet[0] >> 4 == 6 and packet[6] == ip.TCP:
            key = bytes(packet[8:44])
            if is_martian(key[:16], key[16:32]):
                raise BadPacket(DropReason.MARTIAN_SOURCE)
            self._coalescer.row(packet, 40, key, packet[1] >> 4)
            return
        header = ip.decode_untrusted(packet)
        if is_martian(header.source, header.destination):
            raise BadPacket(DropReason.MARTIAN_SOURCE)
        self._packet_with_header(packet[: header.length], header, now)

    def _packet_with_header(self, packet: memoryview, header: IpHeader, now: float) -> None:
        is_ours = header.destination in self._ours
        if not is_ours and not (self._tcp.takes_any_address and header.protocol == ip.TCP):
            if header.problem is not None and header.problem.even_to_multicast and self._unreachable is not None:
                self._unreachable(packet, header, now)
            raise BadPacket(DropReason.FOREIGN_DESTINATION)
        if header.problem is not None:
            self.drops[DropReason.EXTENSION_HEADER] += 1
            if self._unreachable is not None:
                self._unreachable(packet, header, now)
            return
        if header.fragment is not None:
            if self._fragments is None:
                raise BadPacket(DropReason.FRAGMENT_LIMIT)
            whole = self._fragments(packet, header, now)
            if whole is not None:
                view = memoryview(whole)
                header = ip.decode_untrusted(view)
                if header.fragment is not None:
                    raise BadPacket(DropReason.FRAGMENT_MALFORMED)
                self._packet_with_header(view[: header.length], header, now)
            return
        if header.protocol == ip.TCP:
            at = header.payload_at
            if len(packet) < at + 20:
                raise BadPacket(DropReason.TRANSPORT_HEADER)
            key = header.source + header.destination + bytes(packet[at : at + 4])
            self._coalescer.row(packet, at, key, header.traffic_class)
            return
        handler = self._handlers.get(header.protocol)
        if handler is not None:
            handler(packet, header, now)
            return
        self.drops[DropReason.UNKNOWN_PROTOCOL] += 1
        if self._unreachable is not None:
            self._unreachable(packet, header, now)

    # --- packets out -------------------------------------------------------------------------------------------------

    def emit(self, now: float, budget: int) -> list[Slab]:
        """Up to `budget` rows to send, in order; control packets first, then fairly between flows.

        The slabs are valid until the next call.
        """
        self._now = now
        if self._looped:
            self._receive_own(now)
        out = self._emission
        out.begin(budget, self.mtu)
        control, tcp = self._control, self._tcp
        if self._held:
            self._queues = self._held | self._queues
            self._held = {}
        while control and out.left:
            out.packet(control.popleft())
        tcp.emit_prompt(now, out)
        while out.left and (tcp.has_turns or self._queues):
            # Connections and flows of packets take turns.
            self._is_flow_turn = bool(self._queues) and (not self._is_flow_turn or not tcp.has_turns)
            if self._is_flow_turn:
                self._emit_queue(now, out)
            else:
                tcp.emit_turn(now, out)
        self._packets_sent += out.sent
        return [slab for slab in out.finish() if not self._loop_back(slab)]

    def _loop_back(self, slab: Slab) -> bool:
        """Keep what is for ourselves, as a kernel does; all rows of a slab have one destination."""
        if ip.destination(slab.arena.view[slab.start + TRANSPORT_HEADER_SIZE :]) not in self._ours:
            return False
        self._looped.extend(bytes(row) for row in slab)
        return True

    def _receive_own(self, now: float) -> None:
        looped, self._looped = self._looped, deque()
        for packet in looped:
            view = memoryview(packet)
            try:
                header = ip.decode_untrusted(view)
                self._packet_with_header(view[: header.length], header, now)
            except BadPacket as problem:
                self.drops[problem.reason] += 1
        self._tcp.arrive(self._coalescer.take(), now)

    def _emit_queue(self, now: float, out: Emission) -> None:
        flow, queue = next(iter(self._queues.items()))
        del self._queues[flow]
        packets = queue.packets
        if packets and not self.may_send_now(ip.destination(packets[0]), now):
            self._held[flow] = queue
            return
        count = 0
        while packets and out.left and count < _TURN:
            packet = packets.popleft()
            queue.octets -= len(packet)
            if len(packet) <= self.mtu:
                out.packet(packet)
            else:
                self.drops[DropReason.DATAGRAM_TOO_LARGE] += 1  # the MTU was lowered while it waited
            count += 1
        if queue.was_full and queue.octets <= FLOW_QUEUE // 2:
            queue.was_full = False
            if hasattr(flow, "is_writable"):
                self._ready[cast("Socket", flow)] = None
        if packets or queue.was_full:
            self._queues[flow] = queue  # at the end of the line

    def may_send_now(self, destination: bytes, now: float) -> bool:
        """`may_send`, but nobody is asked about the way to ourselves."""
        return destination in self._ours or self.may_send(destination, now)

    @property
    def has_looped(self) -> bool:
        """Whether packets for ourselves wait for the next `emit`."""
        return bool(self._looped)

    def has_output(self) -> bool:
        """Whether `emit` would do something now."""
        return bool(self._looped or self._control or self._queues or self._tcp.has_output)

    # --- time --------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due; None when nothing waits."""
        moment = min(self._heap.next_deadline(), self._tcp.time_wait.next_deadline())
        for part in self._timed:
            due = part.next_deadline()
            if due is not None and due < moment:
                moment = due
        return None if moment == NEVER else moment

    def handle_timer(self, now: float) -> list[Socket]:
        """Do everything that is due, once, however far the clock jumped; says whose readiness changed."""
        self._now = now
        while (owner := self._heap.pop_due(now)) is not None:
            self._tcp.fire(cast("TcpConnection", owner), now)
        self._tcp.time_wait.expire(now)
        for part in self._timed:
            part.handle_timer(now)
        return self.take_ready()

    def take_ready(self) -> list[Socket]:
        """Sockets whose readiness changed since the last `receive` or `handle_timer`, as by `emit` making room."""
        if not self._ready:
            return []
        ready = list(self._ready)
        self._ready.clear()
        return ready

    # --- the seam for UDP, ICMP and fragments ------------------------------------------------------------------------

    def register_protocol(self, protocol: int, handler: Handler) -> None:
        """Give whole packets of an IP protocol, for one of our addresses, to `handler(packet, header, now)`.

        The handler may raise only BadPacket; the packet, cut to its true length, is valid only during the call.
        """
        self._handlers[protocol] = handler

    def register_datagrams(self, handler: Callable[[Slab, float], bool]) -> None:
        """Offer slabs of several rows to `handler(slab, now)`, which takes all of one or, with False, none."""
        self._datagrams = handler

    def register_fragments(self, handler: Callable[[memoryview, IpHeader, float], bytes | None]) -> None:
        """Give fragments to `handler(packet, header, now)`; what it returns is a whole packet and starts over."""
        self._fragments = handler

    def register_unreachable(self, handler: Handler) -> None:
        """Tell `handler(packet, header, now)` of packets for us with a problem in the header, or of no known protocol.

        TCP never comes here. The packet has been counted as dropped.
        """
        self._unreachable = handler

    def register_timed(self, part: Timed) -> None:
        """Ask this part for its deadlines too."""
        self._timed.append(part)

    def mark_ready(self, socket: Socket) -> None:
        """Let the present or next `receive`, `handle_timer` or `take_ready` return this socket."""
        self._ready[socket] = None

    def queue_control(self, packet: bytes) -> bool:
        """Send a small packet of the stack's own (ICMP errors, echo replies) before all data; False when full."""
        if len(self._control) >= CONTROL_QUEUE:
            self.drops[DropReason.CONTROL_QUEUE_FULL] += 1
            return False
        self._control.append(packet)
        return True

    def queue_packet(self, packet: bytes, flow: Hashable) -> bool:
        """Send a packet in its turn among flows; False when the queue of this flow is full (`queue_room`).

        Args:
            packet: whole, with checksums, at most the MTU.
            flow: whose turn it takes, such as a socket: packets of one flow keep their order.
        """
        queue = self._queues.get(flow) or self._held.get(flow)
        if queue is None:
            queue = self._queues[flow] = _PacketQueue()
        # One packet always fits, however large the MTU.
        if queue.packets and queue.octets + len(packet) > FLOW_QUEUE:
            queue.was_full = True
            return False
        queue.packets.append(packet)
        queue.octets += len(packet)
        return True

    def queue_room(self, flow: Hashable, wanted: int = 1) -> int:
        """Octets that `queue_packet` would still take for this flow.

        A flow that is a socket is marked ready when room comes back after there was less than wanted.
        """
        queue = self._queues.get(flow) or self._held.get(flow)
        if queue is None:
            return FLOW_QUEUE
        room = FLOW_QUEUE - queue.octets
        if room < wanted:
            queue.was_full = True
        return max(room, 0)

    def tcp_icmp_error(
        self,
        kind: IcmpError,
        local: tuple[bytes, int],
        remote: tuple[bytes, int],
        sequence: int,
        now: float,
        *,
        mtu: int = 0,
    ) -> None:
        """An ICMP error that quotes a TCP segment of ours (RFC 5927 checks are made here).

        Args:
            kind: what it says.
            local: our address (4 or 16 octets) and port, as quoted.
            remote: theirs, as quoted.
            sequence: quoted sequence number, 32 bits.
            now: the time.
            mtu: of the next hop, for TOO_BIG.
        """
        self._now = now
        conn = self._tcp.find(local, remote)
        if conn is None or not self._tcp.is_plausible(conn, sequence):
            self.drops[DropReason.ICMP_UNRELATED] += 1
            return
        icmperror.take(conn, kind.value, mtu, now)

    def count_drop(self, reason: DropReason) -> None:
        """Count one refused packet."""
        self.drops[reason] += 1

    # --- TCP sockets -------------------------------------------------------------------------------------------------

    def connect_tcp(
        self, remote: tuple[str, int], now: float, *, local: tuple[str, int] | None = None
    ) -> TcpConnection:
        """Begin an active open; the connection is in SYN_SENT, and marked ready when that changes.

        Args:
            remote: address (no name) and port.
            now: the time.
            local: our address and port; port 0 or None chooses.

        Raises:
            OSError: ENETUNREACH, EADDRNOTAVAIL, EADDRINUSE, at once and with nothing sent.
        """
        return self._tcp.connect(remote, now, local=local)

    def listen_tcp(self, port: int, *, host: str | None = None, backlog: int = BACKLOG) -> TcpListener:
        """Accept connections to a port of one of our addresses, or of all; port 0 chooses one.

        Raises:
            OSError: EADDRINUSE, EADDRNOTAVAIL.
        """
        return self._tcp.listen(port, host, backlog)

    def set_fallback_tcp_handler(
        self, handler: Callable[[tuple[str, int], tuple[str, int]], Fallback], *, backlog: int = BACKLOG
    ) -> TcpListener:
        """Ask `handler(local, remote)` about each SYN for which nobody listens, whatever address it is for.

        Returns:
            The listener that accepts those connections; closing it ends this.
        """
        return self._tcp.listen_everywhere(handler, backlog)

    # --- the stack as a whole ----------------------------------------------------------------------------------------

    def local_address_for(self, remote: bytes) -> bytes | None:
        """Our first address of the same family, None when there is none."""
        for address in self._addresses:
            if len(address) == len(remote):
                return address
        return None

    def is_local(self, address: bytes) -> bool:
        """Whether the address is one of ours."""
        return address in self._ours

    def check_destination(self, address: bytes, *, is_datagram: bool = False) -> None:
        """Refuse at once what is no address of a host, 4 or 16 octets.

        Raises:
            OSError: ENETUNREACH; EACCES for datagrams to a broadcast address.
        """
        problem = refusal(address, self._broadcasts, is_datagram=is_datagram)
        if problem is not None:
            raise problem

    @property
    def has_orphans(self) -> bool:
        """Whether connections that their owner has closed still have something to deliver, if only a FIN."""
        return any(conn.is_orphan and conn.state is not State.FIN_WAIT_2 for conn in self._tcp.flows.values())

    def resume(self, leads_to: Callable[[bytes], bool], now: float) -> None:
        """The way to some addresses is open again: whoever waits for a timer that outages made long tries at once.

        Args:
            leads_to: whether it is the way to an address, 4 or 16 octets.
            now: the time.
        """
        self._now = now
        self._tcp.resume(leads_to, now)

    def set_mtu(self, mtu: int) -> None:
        """The greatest packet from now on."""
        self.mtu = mtu
        self._tcp.set_mtu(mtu)

    def statistics(self) -> StackStatistics:
        """Counters of everything, and what exists now."""
        tcp = self._tcp
        flows = tcp.flows.values()
        return StackStatistics(
            packets_received=self._packets_received,
            packets_sent=self._packets_sent,
            connections=len(tcp.flows),
            half_open=sum(conn.state is State.SYN_RECEIVED for conn in flows),
            time_wait=len(tcp.time_wait),
            opened=tcp.opened,
            failed=tcp.failed,
            segments_retransmitted=tcp.segments_retransmitted,
            resets_sent=tcp.resets_sent,
            buffered=sum(conn.receiver.ready + len(conn.sender.buffer) for conn in flows),
            drops=dict(self.drops),
        )

    def abort(self, now: float) -> None:
        """Reset every connection; the resets are sent by the next `emit`.

        Those that were closed, and whose peer has all that was sent and the FIN, are forgotten without a word.
        """
        self._tcp.abort(now)

    def close(self) -> None:
        """Give everything up at once; every socket fails with ECONNABORTED. Nothing more is sent."""
        self._tcp.close(self._now)
        self._control.clear()
        self._looped.clear()
        self._queues.clear()
        self._held.clear()


def _always(destination: bytes, now: float) -> bool:
    return True


class _PacketQueue:
    """Packets of one flow that wait for their turn."""

    __slots__ = ("octets", "packets", "was_full")

    def __init__(self) -> None:
        self.packets: deque[bytes] = deque()
        self.octets = 0
        self.was_full = False
