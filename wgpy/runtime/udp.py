"""The UDP sockets of a device: one port, IPv4 and IPv6; batches in by UDP_GRO, batches out by UDP_SEGMENT.

Each datagram says which local address it hit, and answers leave from there. Where the kernel or the path refuses
grouped sends, the same datagrams leave singly, without loss. Nothing here waits: who calls `send` waits for room.

Source: Linux Documentation/networking/segmentation-offloads.rst, ip(7), ipv6(7), udp(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import re
import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from wgpy.config import Endpoint
from wgpy.constants import MAX_SEGMENTS, MAX_UDP_PAYLOAD_IPV4
from wgpy.dataplane.slab import Arena
from wgpy.errors import DeviceError, DropReason
from wgpy.protocol.datagrams import DatagramBatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Failure", "Local", "UdpSocket", "UdpSockets", "bind_group", "path_mtu"]

_log = logging.getLogger("wgpy.device")

_UDP_SEGMENT, _UDP_GRO = 103, 104
_IP_PKTINFO, _IP_TOS, _IP_RECVTOS, _IP_MTU_DISCOVER = 8, 1, 13, 10
_IPV6_MTU_DISCOVER = 23
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_IP_MTU, _IPV6_MTU = 14, 24
_PMTUDISC_DONT: Final = 0
# All 32 bits of a mark are the operator's; as a number, Python would take 31.
_MARK: Final = struct.Struct("=I")
_BUFFER_SIZE: Final = 7 * 2**20
_PORT_RETRIES: Final = 100
# Receives drained before anything is opened: numpy and the cipher are paid once for all of them.
_SLOTS: Final = 16
_SLOT_SIZE: Final = 65536
_ANCILLARY_SIZE: Final = 256
_ENDPOINTS_KEPT: Final = 16384
_ANCILLARIES_KEPT: Final = 1024
# What a send says when the cached source address or interface is no more (protocol notes 1.10).
_SOURCE_GONE: Final = frozenset(
    {errno.ENETUNREACH, errno.EINVAL, errno.ENODEV, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH, errno.ENETDOWN}
)
_GROUPING_REFUSED: Final = frozenset({errno.EIO, errno.EMSGSIZE, errno.EINVAL, errno.EOPNOTSUPP})

Ancillary: TypeAlias = list[tuple[int, int, bytes]]


class Local(NamedTuple):
    """A local address and interface, as the kernel told them and takes them back.

    Attributes:
        version: 4 or 6.
        octets: of in_pktinfo or in6_pktinfo.
    """

    version: int
    octets: bytes

    @property
    def interface(self) -> int:
        """Number of the interface."""
        return int(struct.unpack("=i", self.octets[:4] if self.version == 4 else self.octets[16:])[0])

    @property
    def address(self) -> bytes:
        """4 or 16 octets."""
        return self.octets[4:8] if self.version == 4 else self.octets[:16]


class Failure(NamedTuple):
    """A batch that was not sent."""

    batch: DatagramBatch
    reason: DropReason


class UdpSocket:
    """One socket of one family.

    Attributes:
        version: 4 or 6.
        socket: non-blocking, unconnected.
        groups: whether sends are grouped.
        coalesces: whether receives are.
        has_more: the last `receive` stopped at a lone datagram, so that it is answered before anything else: ask again.
    """

    def __init__(self, bound: socket.socket, *, groups: bool, coalesces: bool) -> None:
        """Take over a bound UDP socket."""
        self.version = 4 if bound.family == socket.AF_INET else 6
        self.socket = bound
        self.groups = groups and self._can(_UDP_SEGMENT)
        self.coalesces = coalesces and self._can(_UDP_GRO)
        if self.coalesces:
            self.socket.setsockopt(socket.SOL_UDP, _UDP_GRO, 1)
        self.has_more = False
        self._limit = _SLOTS
        self._arena = Arena(_SLOTS * _SLOT_SIZE)
        self._slots = [[self._arena.view[i * _SLOT_SIZE : (i + 1) * _SLOT_SIZE]] for i in range(_SLOTS)]
        self._endpoints: dict[tuple[object, ...], Endpoint] = {}
        self._received: dict[tuple[tuple[int, int, bytes], ...], tuple[Local | None, int, int]] = {}
        self._locals: dict[bytes, Local] = {}
        self._ancillaries: dict[tuple[Local | None, int, int], Ancillary] = {}
        self._addresses: dict[Endpoint, tuple[object, ...]] = {}
        # Of the last send: whoever sends to one endpoint looks everything up once.
        self._last_remote: Endpoint | None = None
        self._last_address: tuple[object, ...] = ()
        self._last_way: tuple[object, int, int] | None = None
        self._last_ancillary: Ancillary = []
        # Endpoints that refused grouped datagrams, and of which size: a path of small MTU.
        self._ungrouped: dict[Endpoint, int] = {}

    def _can(self, option: int) -> bool:
        try:
            self.socket.getsockopt(socket.SOL_UDP, option)
        except OSError:
            return False
        return True

    @property
    def port(self) -> int:
        """The UDP port that is bound."""
        return int(self.socket.getsockname()[1])

    @property
    def is_open(self) -> bool:
        """Whether it was not closed yet."""
        return self.socket.fileno() >= 0

    def close(self) -> None:
        """Give the port back."""
        self.socket.close()

    # --- receiving ---------------------------------------------------------------------------------------------------

    def receive(self) -> list[DatagramBatch]:
        """What waits, up to 16 groups; the buffers are used again by the next call.

        ICMP errors that wait on the socket are passed over: whoever can send us one must not stop us.
        """
        batches: list[DatagramBatch] = []
        receive = self.socket.recvmsg_into
        refused = slot = 0
        limit = self._limit
        while slot < limit:
            try:
                length, ancillary, _, address = receive(self._slots[slot], _ANCILLARY_SIZE)
            except BlockingIOError:
                break
            except OSError as error:
                refused += 1
                if error.errno in (errno.EBADF, errno.ENOTSOCK) or refused > _SLOTS:
                    break
                continue
            key = tuple(ancillary)
            told = self._received.get(key)
            if told is None:
                told = self._read_ancillary(key)
            local, tos, segment_size = told
            endpoint = self._endpoints.get(address)
            if endpoint is None:
                endpoint = self._endpoint(address)
            batches.append(
                DatagramBatch(
                    self._arena,
                    min(segment_size, length) or length,
                    endpoint,
                    start=slot * _SLOT_SIZE,
                    length=length,
                    local=local,
                    tos=tos,
                )
            )
            slot += 1
        # Where datagrams come one at a time, looking for a second one would only delay the first.
        self.has_more = limit == 1 and slot == 1
        is_quiet = slot == 0 or (slot == 1 and batches[0].length <= batches[0].segment_size)
        self._limit = 1 if is_quiet and not self.has_more else _SLOTS
        return batches

    def _read_ancillary(self, ancillary: tuple[tuple[int, int, bytes], ...]) -> tuple[Local | None, int, int]:
        local, tos, segment_size = None, 0, 0
        for level, kind, data in ancillary:
            match level, kind:
                case socket.SOL_UDP, 104:
                    segment_size = struct.unpack_from("=H" if len(data) == 2 else "=i", data)[0]
                case (socket.IPPROTO_IP, 8) | (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                    local = self._locals.setdefault(data, Local(self.version, data))
                case socket.IPPROTO_IP, 1:
                    tos = data[0]
                case socket.IPPROTO_IPV6, socket.IPV6_TCLASS:
                    tos = struct.unpack_from("=i", data)[0] & 0xFF
                case _:
                    pass
        if len(self._received) >= _ANCILLARIES_KEPT:
            self._received.clear()
            self._locals.clear()
        told = self._received[ancillary] = (local, tos, segment_size)
        return told

    def _endpoint(self, address: tuple[object, ...]) -> Endpoint:
        host, port = str(address[0]), int(str(address[1]))
        if self.version == 6 and address[3] and "%" not in host:
            with contextlib.suppress(OSError):
                host = f"{host}%{socket.if_indextoname(int(str(address[3])))}"
        endpoint = Endpoint(host, port or 1)
        if len(self._endpoints) >= _ENDPOINTS_KEPT:
            self._endpoints.clear()
        self._endpoints[address] = endpoint
        return endpoint

    # --- sending -----------------------------------------------------------------------------------------------------

    def _address(self, endpoint: Endpoint) -> tuple[object, ...]:
        address = self._addresses.get(endpoint)
        if address is None:
            if self.version == 4:
                address = (endpoint.host, endpoint.port)
            else:
                host, _, zone = endpoint.host.partition("%")
                scope = 0
                if zone:
                    scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
                address = (host, endpoint.port, 0, scope)
            if len(self._addresses) >= _ENDPOINTS_KEPT:
                self._addresses.clear()
            self._addresses[endpoint] = address
        return address

    def _ancillary(self, local: Local | None, tos: int, segment_size: int) -> Ancillary:
        key = local, tos, segment_size
        known = self._ancillaries.get(key)
        if known is not None:
            return known
        ancillary: Ancillary = []
        if segment_size:
            ancillary.append((socket.SOL_UDP, _UDP_SEGMENT, struct.pack("=H", segment_size)))
        if self.version == 4:
            if local is not None:
                ancillary.append((socket.IPPROTO_IP, _IP_PKTINFO, local.octets))
            if tos:
                ancillary.append((socket.IPPROTO_IP, _IP_TOS, struct.pack("=i", tos)))
        else:
            if local is not None:
                ancillary.append((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local.octets))
            if tos:
                ancillary.append((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, struct.pack("=i", tos)))
        if len(self._ancillaries) >= _ANCILLARIES_KEPT:
            self._ancillaries.clear()
        self._ancillaries[key] = ancillary
        return ancillary

    def may_group(self, endpoint: Endpoint, segment_size: int) -> bool:
        """Whether datagrams of this size to this endpoint may leave in one send."""
        return self.groups and (not self._ungrouped or segment_size < self._ungrouped.get(endpoint, 65536))

    def forget_paths(self) -> None:
        """Routes changed: grouped sends may work again."""
        self._ungrouped.clear()

    def send(self, buffers: Sequence[memoryview], batch: DatagramBatch, local: object | None, *, count: int) -> None:
        """One system call.

        Args:
            buffers: the datagrams.
            batch: the first batch of them.
            local: what they leave from; what is no `Local` of this family is not looked at.
            count: how many they are.

        Raises:
            OSError: as the kernel says; BlockingIOError when there is no room.
        """
        way = local, batch.tos, batch.segment_size if count > 1 else 0
        if way != self._last_way:
            known = local if isinstance(local, Local) and local.version == self.version else None
            self._last_way, self._last_ancillary = way, self._ancillary(known, way[1], way[2])
        remote = batch.remote
        if remote is not self._last_remote:
            self._last_remote, self._last_address = remote, self._address(remote)
        self.socket.sendmsg(buffers, self._last_ancillary, 0, self._last_address)

    def grouping_refused(self, error: OSError, batch: DatagramBatch) -> None:
        """Remember why a grouped send failed."""
        if error.errno == errno.EMSGSIZE:
            known = self._ungrouped.get(batch.remote, 65536)
            self._ungrouped[batch.remote] = min(known, batch.segment_size)
            _log.warning(
                "the way to %s takes IP packets of %s octets: datagrams of %d are cut into fragments; lower the MTU",
                batch.remote,
                path_mtu(batch.remote) or "fewer",
                batch.segment_size,
            )
        else:
            # EIO: the outgoing device computes no checksums, so it cannot cut datagrams either.
            self.groups = False


class UdpSockets:
    """Both sockets of a device.

    Attributes:
        v4: None where the family is missing.
        v6: likewise.
        port: that both are bound to.
        interface: that both are bound to, None for none.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        fwmark: int = 0,
        interface: str | None = None,
        groups: bool = True,
        coalesces: bool = True,
        shares: bool = False,
    ) -> None:
        """Bind both families to one port.

        Args:
            port: 0 for any that is free in both families.
            fwmark: 0 for none.
            interface: or VRF that everything leaves and enters by; None for whatever the routes say.
            groups: use UDP_SEGMENT where it works.
            coalesces: use UDP_GRO where it works.
            shares: other sockets of this process may be bound to the same port.

        Raises:
            DeviceError: the port is taken, the mark is not allowed, there is no such interface, or no family at all.
        """
        self.interface = interface
        v4: socket.socket | None = None
        v6: socket.socket | None = None
        for attempt in range(_PORT_RETRIES):
            try:
                v4 = _bind(4, port, fwmark, interface, shares=shares)
                v6 = _bind(6, port or (v4.getsockname()[1] if v4 else 0), fwmark, interface, shares=shares)
                break
            except OSError as error:
                if v4 is not None:
                    v4.close()
                if error.errno != errno.EADDRINUSE or port or attempt == _PORT_RETRIES - 1:
                    raise _explained(error, port, fwmark, interface) from None
        if v4 is None and v6 is None:
            raise DeviceError(errno.EAFNOSUPPORT, "this host has neither IPv4 nor IPv6 sockets")
        self._take(v4, v6, groups=groups, coalesces=coalesces)

    @classmethod
    def adopt(cls, sockets: Sequence[socket.socket], *, groups: bool = True, coalesces: bool = True) -> UdpSockets:
        """Use sockets that another process has bound, at most one of each family."""
        by_family = {one.family: one for one in sockets}
        adopted = cls.__new__(cls)
        adopted.interface = None
        adopted._take(by_family.get(socket.AF_INET), by_family.get(socket.AF_INET6), groups=groups, coalesces=coalesces)
        return adopted

    def _take(self, v4: socket.socket | None, v6: socket.socket | None, *, groups: bool, coalesces: bool) -> None:
        groups = groups and not _damages_groups(os.uname().release)
        self.v4 = None if v4 is None else UdpSocket(v4, groups=groups, coalesces=coalesces)
        self.v6 = None if v6 is None else UdpSocket(v6, groups=groups, coalesces=coalesces)
        self.port = next(one.port for one in self)
        self.failures: list[Failure] = []
        self.stale: list[DatagramBatch] = []

    def __iter__(self) -> Iterator[UdpSocket]:
        """The sockets that exist."""
        for one in (self.v4, self.v6):
            if one is not None:
                yield one

    def close(self) -> None:
        """Give the port back."""
        for one in self:
            one.close()
        self.v4 = self.v6 = None

    def set_fwmark(self, fwmark: int) -> None:
        """Mark what is sent from now on; 0 for no mark.

        Raises:
            DeviceError: not permitted; nothing has changed then.
        """
        done: list[tuple[UdpSocket, bytes]] = []
        try:
            for one in self:
                before = one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_MARK, _MARK.size)
                one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _MARK.pack(fwmark))
                done.append((one, before))
        except OSError as error:
            for one, before in done:
                with contextlib.suppress(OSError):
                    one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, before)
            raise _explained(error, self.port, fwmark) from None

    def forget_paths(self) -> None:
        """Routes or addresses changed."""
        for one in self:
            one.forget_paths()

    def send(self, batches: Sequence[DatagramBatch], first: int = 0) -> tuple[int, UdpSocket | None]:
        """Send batches in order, neighbours of one kind together. What fails is noted in `failures` and `stale`.

        Args:
            batches: from `Engine.datagrams_to_send`.
            first: where to begin.

        Returns:
            How far it came, and the socket that had no room left, if one had none.
        """
        position, end = first, len(batches)
        while position < end:
            batch = batches[position]
            one = self.v4 if batch.remote.version == 4 else self.v6
            if one is None:
                self.failures.append(Failure(batch, DropReason.NO_SOCKET_FOR_FAMILY))
                position += 1
                continue
            try:
                position += self._send_group(one, batches, position, end)
            except BlockingIOError:
                return position, one
        return position, None

    def _send_group(self, one: UdpSocket, batches: Sequence[DatagramBatch], position: int, end: int) -> int:
        """Send the batch at `position` and those after it that fit into the same system call; says how many."""
        batch = batches[position]
        total, segment_size = batch.length, batch.segment_size
        if total <= segment_size and position + 1 == end:
            try:
                self._try(one, [batch.data], batch, 1)
            except BlockingIOError:
                raise
            except OSError:
                self.failures.append(Failure(batch, DropReason.SEND_FAILED))
            return 1
        if not one.may_group(batch.remote, segment_size):
            self._send_singly(one, batch)
            return 1
        buffers = [batch.data]
        count = batch.count
        taken = 1
        while position + taken < end and total == count * segment_size:
            following = batches[position + taken]
            segments = following.count
            if (
                following.remote is not batch.remote
                or following.local is not batch.local
                or following.tos != batch.tos
                or (following.segment_size != segment_size and (segments > 1 or following.length > segment_size))
                or count + segments > MAX_SEGMENTS
                or total + following.length > MAX_UDP_PAYLOAD_IPV4
            ):
                break
            buffers.append(following.data)
            total += following.length
            count += segments
            taken += 1
        if count > MAX_SEGMENTS or (count > 1 and total > MAX_UDP_PAYLOAD_IPV4):
            self._send_singly(one, batch)
            return 1
        try:
            self._try(one, buffers, batch, count)
        except BlockingIOError:
            raise
        except OSError as error:
            if count > 1 and error.errno in _GROUPING_REFUSED:
                one.grouping_refused(error, batch)
                self._send_singly(one, batch)
                return 1
            self.failures += [
                Failure(failed, DropReason.SEND_FAILED) for failed in batches[position : position + taken]
            ]
        return taken

    def _send_singly(self, one: UdpSocket, batch: DatagramBatch) -> None:
        failed: OSError | None = None
        for datagram in batch:
            try:
                self._try(one, [datagram], batch, 1)
            except BlockingIOError:
                # Part of the batch has left: waiting here for room would send it twice. The rest is lost, as in a
                # queue.
                failed = failed or OSError(errno.EAGAIN, "no room")
            except OSError as error:
                failed = error
        if failed is not None:
            self.failures.append(Failure(batch, DropReason.SEND_FAILED))

    def _try(self, one: UdpSocket, buffers: Sequence[memoryview], batch: DatagramBatch, count: int) -> None:
        """Send; once more without the cached source address when that is what the kernel refuses."""
        try:
            one.send(buffers, batch, batch.local, count=count)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                # An ICMP error of an earlier datagram; it was taken off the socket with this call.
                one.send(buffers, batch, batch.local, count=count)
            elif batch.local is not None and error.errno in _SOURCE_GONE:
                one.send(buffers, batch, None, count=count)
                self.stale.append(batch)
            else:
                raise


def _bind(version: int, port: int, fwmark: int, interface: str | None, *, shares: bool) -> socket.socket | None:
    """A bound socket; None where the family is missing.

    Raises:
        OSError: the port is taken, the mark is not allowed.
    """
    try:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        bound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            _configure(bound)
            if shares:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if fwmark:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _MARK.pack(fwmark))
            if interface is not None:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            bound.bind(("", port) if version == 4 else ("::", port))
        except BaseException:
            bound.close()
            raise
        return bound
    except OSError as error:
        # EADDRNOTAVAIL: IPv6 is compiled in and switched off.
        if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return None
        raise


def _configure(one: socket.socket) -> None:
    set_option = one.setsockopt
    for option, forced in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
        with contextlib.suppress(OSError):
            set_option(socket.SOL_SOCKET, option, _BUFFER_SIZE)
            set_option(socket.SOL_SOCKET, forced, _BUFFER_SIZE)
    if one.family == socket.AF_INET:
        set_option(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        set_option(socket.IPPROTO_IP, _IP_RECVTOS, 1)
        # Outer packets may be fragmented, as the kernel's own driver lets them be.
        set_option(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
    else:
        set_option(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        set_option(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        set_option(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        set_option(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)


def bind_group(port: int, count: int, *, fwmark: int, groups: bool, coalesces: bool) -> list[UdpSockets]:
    """Sockets of several workers behind one port: each receives what carries a receiver index of its shard.

    Initiations, which carry none, go by their source, so that whoever gets a cookie comes back to where it was made.

    Args:
        port: 0 for any that is free.
        count: of workers, 1 to 128.
        fwmark: 0 for none.
        groups: use UDP_SEGMENT where it works.
        coalesces: use UDP_GRO where it works.

    Raises:
        DeviceError: the port is taken, or the mark not allowed.
    """
    # Whoever shares a port shares it with every process of this user: make sure that nobody is there.
    probe = UdpSockets(port, fwmark=fwmark, groups=groups, coalesces=coalesces)
    port = probe.port
    probe.close()
    members: list[UdpSockets] = []
    try:
        for _ in range(count):
            members.append(UdpSockets(port, fwmark=fwmark, groups=groups, coalesces=coalesces, shares=True))
        program = _steering(count)
        for one in members[0]:
            buffer = ctypes.create_string_buffer(program)
            request = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
            one.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, request)
    except BaseException:
        for member in members:
            member.close()
        raise
    return members


def _steering(count: int) -> bytes:
    """A classic BPF program that says, from the payload, which socket of the group a datagram belongs to.

    The index of a session or handshake is little-endian, so its first octet in the datagram is its lowest; see
    `Shard.may_use`. A number that no socket has leaves the choice to the kernel, which goes by the addresses.
    """
    load_word, load_octet, jump, jump_equal, modulo, give, give_a = 0x20, 0x30, 0x05, 0x15, 0x94, 0x06, 0x16
    program = [
        (load_word, 0, 0, 0),
        (jump_equal, 3, 0, 0x04000000),  # transport data
        (jump_equal, 2, 0, 0x03000000),  # cookie reply
        (jump_equal, 3, 0, 0x02000000),  # response
        (give, 0, 0, 0xFFFFFFFF),
        (load_octet, 0, 0, 4),
        (jump, 0, 0, 1),
        (load_octet, 0, 0, 8),
        (modulo, 0, 0, count),
        (give_a, 0, 0, 0),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def _explained(error: OSError, port: int, fwmark: int, interface: str | None = None) -> DeviceError:
    match error.errno:
        case errno.ENODEV if interface is not None:
            return DeviceError(error.errno, f"there is no interface {interface!r} to bind to: `ip link` lists them")
        case errno.EPERM if interface is not None and not fwmark:
            return DeviceError(error.errno, f"to bind to {interface!r} needs CAP_NET_RAW")
        case errno.EADDRINUSE:
            return DeviceError(error.errno, f"UDP port {port} is taken: choose another, or stop who has it")
        case errno.EPERM if fwmark:
            return DeviceError(error.errno, f"fwmark {fwmark:#x} needs CAP_NET_ADMIN")
        case errno.EACCES:
            return DeviceError(error.errno, f"UDP port {port} needs CAP_NET_BIND_SERVICE: choose one above 1023")
        case _:
            return DeviceError(error.errno, f"UDP socket: {error.strerror}")


def _damages_groups(release: str) -> bool:
    """Linux 7.0 to 7.1.4 damages groups of datagrams of one length."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if match is None:
        return False
    version = tuple(int(part or 0) for part in match.groups())
    return (7, 0, 0) <= version <= (7, 1, 4)


def path_mtu(remote: Endpoint) -> int | None:
    """Greatest IP packet towards an address, as the kernel knows it without having tried; None if there is no way."""
    family = socket.AF_INET if remote.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((remote.host, remote.port))
            if remote.version == 4:
                return probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)
            return probe.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
    except OSError:
        return None
