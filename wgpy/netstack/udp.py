"""Datagram sockets: a table by address and port, a bounded queue each, errors that ICMP reports.

    handler of protocol 17 -> UdpTable -> UdpSocket.receive          UdpSocket.send -> (fragments) -> the stack's turn

A datagram above the path's MTU leaves in fragments. The receive queue drops the newest, as a kernel does; the send
queue refuses, and whoever sends may wait.

Source: RFC 768, RFC 1122 4.1, RFC 6056 section 3.3.1 (port choice), RFC 6864.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from wgpy.constants import TRANSPORT_HEADER_SIZE
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.selected import rows as selected
from wgpy.errors import BadPacket, DropReason
from wgpy.netstack.addresses import failure, is_martian, parsed, parsed_port
from wgpy.netstack.constants import EPHEMERAL_FIRST, EPHEMERAL_LAST, UDP_DATAGRAM_OVERHEAD, UDP_RECEIVE_QUEUE
from wgpy.netstack.fragments import fragment_size, fragments_of
from wgpy.netstack.ports import choose_port
from wgpy.wire import ip, udp
from wgpy.wire.virtio import UDP_CSUM_OFFSET, Offload

if TYPE_CHECKING:
    from collections.abc import Callable

    from wgpy.dataplane.slab import Slab
    from wgpy.netstack.pathmtu import PathMtus
    from wgpy.netstack.stack import Stack
    from wgpy.wire.ip import IpHeader

__all__ = ["UdpSocket", "UdpTable"]

# Address in text form, and port.
Address: TypeAlias = tuple[str, int]

_V4_HEADERS: Final = ip.IPV4_HEADER_SIZE + udp.UDP_HEADER_SIZE
_V6_HEADERS: Final = ip.IPV6_HEADER_SIZE + udp.UDP_HEADER_SIZE
_MAX_PAYLOAD: Final = {4: 65507, 6: 65527}
_EPHEMERAL: Final = EPHEMERAL_LAST - EPHEMERAL_FIRST + 1


class UdpSocket:
    """A socket of `UdpTable.open`.

    Attributes:
        local: our address and port; the address is None for any of ours.
        remote: the only one to talk to, None for everybody.
        dropped: datagrams that found the receive queue full.
    """

    __slots__ = (
        "_error",
        "_local",
        "_queue",
        "_queued",
        "_remote",
        "_table",
        "dropped",
        "local",
        "remote",
    )

    def __init__(
        self, table: UdpTable, local: tuple[bytes, int], remote: tuple[bytes, int] | None, remote_text: Address | None
    ) -> None:
        """Use `UdpTable.open`."""
        self._table: UdpTable | None = table
        self._local = local
        self._remote = remote
        self._queue: deque[tuple[bytes, Address]] = deque()
        self._queued = 0
        self._error: int | None = None
        self.dropped = 0
        self.local = (ip.to_text(local[0]) if local[0] else None), local[1]
        self.remote = remote_text

    # --- sending -----------------------------------------------------------------------------------------------------

    def send(self, payload: bytes | bytearray | memoryview, now: float, *, remote: Address | None = None) -> bool:
        """Queue one datagram.

        Args:
            payload: may be empty.
            now: the time.
            remote: address and port; None for the one that the socket is connected to.

        Returns:
            False when there is no room: try again when the socket is writable.

        Raises:
            OSError: EMSGSIZE, ENETUNREACH, EDESTADDRREQ, EINVAL; or what ICMP said about an earlier datagram.
        """
        table = self._open_table()
        self._raise_error()
        if remote is None:
            target = self._remote
            if target is None:
                raise failure(errno.EDESTADDRREQ, "the socket is not connected, say where to send to")
        else:
            if self._remote is not None:
                raise failure(errno.EISCONN, f"the socket talks to {self.remote} only")
            target = table.target(remote)
        address, port = target
        if len(payload) > _MAX_PAYLOAD[4 if len(address) == 4 else 6]:
            raise failure(errno.EMSGSIZE, f"a datagram of {len(payload)} octets")
        source = self._local[0] or table.source_for(address)
        if len(source) != len(address):
            raise failure(errno.EAFNOSUPPORT, f"from {self.local[0]} to {ip.to_text(address)}")
        return table.send(self, source, address, udp.encode(source, address, self._local[1], port, payload), now)

    @property
    def is_writable(self) -> bool:
        """Whether `send` would take a small datagram, or fail at once."""
        return self._table is None or self._error is not None or self._table.has_room(self)

    # --- receiving ---------------------------------------------------------------------------------------------------

    def receive(self) -> tuple[bytes, Address] | None:
        """The oldest datagram and where it came from; None when there is none.

        Raises:
            OSError: what ICMP said about an earlier datagram of ours.
        """
        self._open_table()
        if not self._queue:
            self._raise_error()
            return None
        datagram = self._queue.popleft()
        self._queued -= len(datagram[0]) + UDP_DATAGRAM_OVERHEAD
        return datagram

    @property
    def is_readable(self) -> bool:
        """Whether `receive` would give something, or fail at once."""
        return bool(self._queue) or self._error is not None or self._table is None

    @property
    def has_datagram(self) -> bool:
        """Whether `receive` would give a datagram."""
        return bool(self._queue)

    def deliver(self, payload: bytes, source: bytes, port: int) -> bool:
        """Take a datagram from the network; False when the queue is full."""
        cost = len(payload) + UDP_DATAGRAM_OVERHEAD
        if self._queued + cost > UDP_RECEIVE_QUEUE:
            self.dropped += 1
            return False
        self._queued += cost
        self._queue.append((payload, (ip.to_text(source), port)))
        return True

    # --- ends --------------------------------------------------------------------------------------------------------

    def fail(self, number: int) -> None:
        """Report an error to the next call (RFC 1122 4.1.3.3)."""
        self._error = number

    def close(self) -> None:
        """Give the port back; what was not read is lost."""
        if self._table is not None:
            self._table.forget(self)
            self._table = None
            self._queue.clear()

    def _open_table(self) -> UdpTable:
        if self._table is None:
            raise failure(errno.EBADF, "the socket is closed")
        return self._table

    def _raise_error(self) -> None:
        if self._error is not None:
            number, self._error = self._error, None
            raise failure(number, f"reported by ICMP for {self.remote}")


class UdpTable:
    """All datagram sockets of one stack.

    Attributes:
        no_socket: told of datagrams for a port without a socket, to answer them.
    """

    def __init__(self, stack: Stack, paths: PathMtus, *, random: Callable[[int], bytes], rows: Rows = selected) -> None:
        """Register for UDP.

        Args:
            stack: whose packets.
            paths: MTU of each path.
            random: gives so many random octets.
            rows: the row functions to use.
        """
        self._rows = rows
        self._stack = stack
        self._paths = paths
        self._random = random
        # By our address (empty for any) and port. A connected socket stands here too, and checks who is speaking.
        self._sockets: dict[tuple[bytes, int], UdpSocket] = {}
        self._ports: dict[int, int] = {}
        # Begun at random, then counted: what matters is that fragments of two packets are never mixed up (RFC 6864).
        self._identification = int.from_bytes(random(4))
        self.no_socket: Callable[[memoryview, IpHeader, float], None] | None = None
        stack.register_protocol(ip.UDP, self._receive_untrusted)
        stack.register_datagrams(self._receive_slab_untrusted)

    def __len__(self) -> int:
        """Open sockets."""
        return len(self._sockets)

    def open(self, *, local: tuple[str | None, int] | None = None, remote: Address | None = None) -> UdpSocket:
        """A new socket.

        Args:
            local: our address, None for any of ours, and port, 0 for a random one.
            remote: the only one to talk to.

        Raises:
            OSError: EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH.
        """
        host, port = local or (None, 0)
        port = parsed_port(port)
        address = b"" if host is None else parsed(host, port)[0]
        target = None if remote is None else self.target(remote)
        if address and not self._stack.is_local(address):
            raise failure(errno.EADDRNOTAVAIL, f"{host} is no address of this tunnel")
        if target is not None:
            address = address or self.source_for(target[0])
            if len(address) != len(target[0]):
                raise failure(errno.EAFNOSUPPORT, f"from {host} to {ip.to_text(target[0])}")
        port = port or self._choose_port()
        if self._is_taken(address, port):
            raise failure(errno.EADDRINUSE, f"UDP port {port}")
        socket = UdpSocket(self, (address, port), target, remote)
        self._sockets[address, port] = socket
        self._ports[port] = self._ports.get(port, 0) + 1
        return socket

    def _is_taken(self, address: bytes, port: int) -> bool:
        if port not in self._ports:
            return False
        return not address or (b"", port) in self._sockets or (address, port) in self._sockets

    def _choose_port(self) -> int:
        first = EPHEMERAL_FIRST + int.from_bytes(self._random(4)) % _EPHEMERAL
        port = choose_port(first, lambda port: port not in self._ports)
        if port is None:
            raise failure(errno.EADDRNOTAVAIL, "no UDP port is free")
        return port

    def target(self, address: Address) -> tuple[bytes, int]:
        """Where to send to: address in octets, and port.

        Raises:
            OSError: EINVAL for what is neither; EACCES, ENETUNREACH for what cannot be sent to.
        """
        octets, port = parsed(*address)
        self._stack.check_destination(octets, is_datagram=True)
        return octets, port

    def source_for(self, destination: bytes) -> bytes:
        """Our address to send from.

        Raises:
            OSError: ENETUNREACH.
        """
        source = self._stack.local_address_for(destination)
        if source is None:
            version = 4 if len(destination) == 4 else 6
            raise failure(
                errno.ENETUNREACH, f"the tunnel has no IPv{version} address to reach {ip.to_text(destination)}"
            )
        return source

    # --- out ---------------------------------------------------------------------------------------------------------

    def has_room(self, socket: UdpSocket) -> bool:
        """Whether a small datagram would be taken."""
        return self._stack.queue_room(socket) > 0

    def send(self, socket: UdpSocket, source: bytes, destination: bytes, datagram: bytes, now: float) -> bool:
        """Queue a datagram with its header, whole or in fragments; all of it or nothing."""
        stack = self._stack
        header = ip.header_size(source)
        mtu = self._paths.get(destination, now)
        if header + len(datagram) <= mtu:
            return stack.queue_packet(ip.encode_header(source, destination, ip.UDP, len(datagram)) + datagram, socket)
        size = fragment_size(4 if len(source) == 4 else 6, mtu)
        octets = len(datagram) + -(-len(datagram) // size) * (header + 8)
        if octets > stack.queue_room(socket, octets):
            return False
        self._identification += 1
        for packet in fragments_of(
            source, destination, ip.UDP, datagram, identification=self._identification & 0xFFFFFFFF, mtu=mtu
        ):
            stack.queue_packet(packet, socket)
        return True

    def forget(self, socket: UdpSocket) -> None:
        """Take a closed socket out of the table."""
        address, port = socket._local
        del self._sockets[address, port]
        self._ports[port] -= 1
        if not self._ports[port]:
            del self._ports[port]

    # --- in ----------------------------------------------------------------------------------------------------------

    def _receive_untrusted(self, packet: memoryview, header: IpHeader, now: float) -> None:
        datagram = packet[header.payload_at : header.length]
        head = udp.decode_untrusted(datagram, header.source, header.destination)
        socket = self._find(header.destination, head.destination_port, header.source, head.source_port)
        if socket is None:
            if self.no_socket is not None:
                self.no_socket(packet, header, now)
            raise BadPacket(DropReason.NO_SOCKET)
        if not socket.deliver(bytes(datagram[udp.UDP_HEADER_SIZE : head.length]), header.source, head.source_port):
            raise BadPacket(DropReason.RECEIVE_QUEUE_FULL)
        self._stack.mark_ready(socket)

    def _receive_slab_untrusted(self, slab: Slab, now: float) -> bool:
        """Take a slab if one look at all rows shows that they are whole datagrams of one flow, with a socket."""
        view, at, length = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE, slab.length
        if slab.last_length != length:
            return False
        if view[at] == 0x45 and length >= _V4_HEADERS and view[at + 9] == ip.UDP:
            if view[at + 6] & 0x3F or view[at + 7]:
                return False
            start = ip.IPV4_HEADER_SIZE
        elif view[at] >> 4 == 6 and length >= _V6_HEADERS and view[at + 6] == ip.UDP:
            start = ip.IPV6_HEADER_SIZE
        else:
            return False
        first = view[at : at + start + udp.UDP_HEADER_SIZE]
        source, destination = ip.source(first), ip.destination(first)
        source_port, port = first[start] << 8 | first[start + 1], first[start + 2] << 8 | first[start + 3]
        size = length - start
        socket = self._find(destination, port, source, source_port)
        if (
            socket is None
            or first[start + 4] << 8 | first[start + 5] != size
            or is_martian(source, destination)
            or not self._stack.is_local(destination)
        ):
            return False
        payload = size - udp.UDP_HEADER_SIZE
        offload = Offload(length - payload, payload, start, UDP_CSUM_OFFSET, True)
        if self._rows.find_runs([slab], offload) != [[(0, True)]]:
            return False
        views = slab.arena.payloads(slab.start, slab.stride, length - payload, payload, slab.count)
        for row in views[: slab.count]:
            if not socket.deliver(bytes(row), source, source_port):
                self._stack.count_drop(DropReason.RECEIVE_QUEUE_FULL)
        self._stack.mark_ready(socket)
        return True

    def _find(self, local: bytes, local_port: int, remote: bytes, remote_port: int) -> UdpSocket | None:
        socket = self._sockets.get((local, local_port)) or self._sockets.get((b"", local_port))
        if socket is not None and socket._remote is not None and socket._remote != (remote, remote_port):
            return None
        return socket

    def icmp_error(self, number: int, local: tuple[bytes, int], remote: tuple[bytes, int]) -> bool:
        """An ICMP error that quotes a datagram of ours; a connected socket learns of it (RFC 1122 4.1.3.3).

        Args:
            number: errno, 0 for news about the path only.
            local: source of the quoted datagram.
            remote: its destination.

        Returns:
            Whether a socket may have sent it.
        """
        socket = self._find(*local, *remote)
        if socket is None:
            return False
        if number and socket._remote is not None:
            socket.fail(number)
            self._stack.mark_ready(socket)
        return True
