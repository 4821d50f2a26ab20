"""The stack: packets to sockets, sockets to packets, fairly; deadlines; statistics.

    receive -> _packet -> (fragments) -> handler of the protocol -> sockets whose readiness changed
    emit    <- control packets first, then one slab of each flow in turn (deficit round robin, in rows)

It pulls: nothing is sent until `emit` is asked for rows, so nothing between TCP and WireGuard can overflow.
"""

from __future__ import annotations

import enum
import errno
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from wgpy.dataplane.slab import Slab
    from wgpy.errors import DropReason
    from wgpy.wire.ip import IpHeader
    from wgpy.netstack.statistics import StackStatistics
    from wgpy.netstack.tcp.connection import TcpConnection
    from wgpy.netstack.tcp.listener import TcpListener

__all__ = ["Handler", "IcmpError", "Socket", "Stack", "Timed"]


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
    TOO_BIG = errno.EMSGSIZE


class Stack:
    """Many sockets behind one packet door."""

    def __init__(
        self, *, addresses: Sequence[str], mtu: int, random: Callable[[int], bytes], verify_checksums: bool = True
    ) -> None:
        """Make a stack.

        Args:
            addresses: our own, such as "10.0.0.1/32".
            mtu: greatest packet, octets.
            random: gives so many random octets.
            verify_checksums: look at the checksums of what arrives.
        """
        raise NotImplementedError

    # --- packets -----------------------------------------------------------------------------------------------------

    def receive(self, slabs: Sequence[Slab], now: float) -> list[Socket]:
        """Take inner packets as `dataplane.inner` groups them; the slabs may be reused after the call.

        Returns:
            The sockets whose readiness changed.
        """
        raise NotImplementedError

    def emit(self, now: float, budget: int) -> list[Slab]:
        """Up to `budget` rows to send, in order; control packets first, then fairly between flows.

        The slabs are valid until the next call.
        """
        raise NotImplementedError

    def has_output(self) -> bool:
        """Whether `emit` would give something now."""
        raise NotImplementedError

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> list[Socket]:
        """Do everything that is due, once, however far the clock jumped; says whose readiness changed."""
        raise NotImplementedError

    def take_ready(self) -> list[Socket]:
        """Sockets whose readiness changed since the last `receive` or `handle_timer`, as by `emit` making room."""
        raise NotImplementedError

    # --- the seam for UDP, ICMP and fragments ------------------------------------------------------------------------

    def register_protocol(self, protocol: int, handler: Handler) -> None:
        """Give whole packets of an IP protocol, for one of our addresses, to `handler(packet, header, now)`.

        The handler may raise only BadPacket; the packet, cut to its true length, is valid only during the call.
        """
        raise NotImplementedError

    def register_fragments(self, handler: Callable[[memoryview, IpHeader, float], bytes | None]) -> None:
        """Give fragments to `handler(packet, header, now)`; what it returns is a whole packet and starts over."""
        raise NotImplementedError

    def register_unreachable(self, handler: Handler) -> None:
        """Tell `handler(packet, header, now)` of packets for us with a problem in their header, or of no known protocol.

        TCP never comes here. The packet has been counted as dropped.
        """
        raise NotImplementedError

    def register_timed(self, part: Timed) -> None:
        """Ask this part for its deadlines too."""
        raise NotImplementedError

    def mark_ready(self, socket: Socket) -> None:
        """Let the present or next `receive`, `handle_timer` or `take_ready` return this socket."""
        raise NotImplementedError

    def queue_control(self, packet: bytes) -> bool:
        """Send a small packet of the stack's own (ICMP errors, echo replies) before all data; False when full."""
        raise NotImplementedError

    def queue_packet(self, packet: bytes, flow: Hashable) -> bool:
        """Send a packet in its turn among flows; False when the queue of this flow is full (`queue_room`).

        Args:
            packet: whole, with checksums, at most the MTU.
            flow: whose turn it takes, such as a socket: packets of one flow keep their order.
        """
        raise NotImplementedError

    def queue_room(self, flow: Hashable) -> int:
        """Octets that `queue_packet` would still take for this flow.

        A flow that is a socket is marked ready when room comes back after the queue was full.
        """
        raise NotImplementedError

    def tcp_icmp_error(
        self, kind: IcmpError, local: tuple[bytes, int], remote: tuple[bytes, int], sequence: int, now: float,
        *, mtu: int = 0,
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
        raise NotImplementedError

    def count_drop(self, reason: DropReason) -> None:
        """Count one refused packet."""
        raise NotImplementedError

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
        raise NotImplementedError

    def listen_tcp(self, port: int, *, host: str | None = None, backlog: int = 128) -> TcpListener:
        """Accept connections to a port of one of our addresses, or of all.

        Raises:
            OSError: EADDRINUSE, EADDRNOTAVAIL.
        """
        raise NotImplementedError

    def set_mtu(self, mtu: int) -> None:
        """The greatest packet from now on."""
        raise NotImplementedError

    def statistics(self) -> StackStatistics:
        """Counters of everything; cheap."""
        raise NotImplementedError

    def close(self) -> None:
        """Give everything up at once; every socket fails with ECONNABORTED. Nothing more is sent."""
        raise NotImplementedError

    # --- sockets -----------------------------------------------------------------------------------------------------

    def local_address_for(self, remote: bytes) -> bytes | None:
        """Our first address of the same family, None when there is none."""
        raise NotImplementedError

    def is_local(self, address: bytes) -> bool:
        """Whether the address is one of ours."""
        raise NotImplementedError
