"""The UDP sockets of a device: one port, IPv4 and IPv6; batches in by UDP_GRO, batches out by UDP_SEGMENT.

Each datagram says which local address it hit, and answers leave from there. Where the kernel or the path refuses
grouped sends, the same datagrams leave singly, without loss. Nothing here waits: who calls `send` waits for room.

Source: Linux Documentation/networking/segmentation-offloads.rst, ip(7), ipv6(7), udp(7).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from wgpy import foreign
from wgpy.config import Endpoint
from wgpy.constants import MAX_SEGMENTS, MAX_UDP_PAYLOAD_IPV4
from wgpy.dataplane.slab import Arena
from wgpy.errors import ConfigError, DropReason
from wgpy.protocol.datagrams import DatagramBatch
from wgpy.runtime.binding import MARK, Member, bind_members, explained

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Failure", "Local", "UdpSocket", "UdpSockets", "bind_group", "path_mtu"]

_log = logging.getLogger("wgpy.device")

_UDP_SEGMENT, _UDP_GRO = 103, 104
_IP_PKTINFO, _IP_TOS = 8, 1
_IP_MTU, _IPV6_MTU = 14, 24
# Receives drained before anything is opened: numpy and the cipher are paid once for all of them.
_SLOTS: Final = 16
_SLOT_SIZE: Final = 65536
# At a door, where no message is longer than 148 octets.
_DOOR_SLOTS: Final = 64
_DOOR_SLOT_SIZE: Final = 256
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

    @property
    def as_source(self) -> bytes:
        """Control data that asks for this address, and leaves the way to the routes.

        Answers need not go by the interface that the question came in on. A link-local address means nothing without.
        """
        if self.version == 4:
            return bytes(4) + self.octets[4:8] + bytes(4)
        is_link_local = self.octets[0] == 0xFE and self.octets[1] & 0xC0 == 0x80
        return self.octets if is_link_local else self.octets[:16] + bytes(4)


class Failure(NamedTuple):
    """A batch that was not sent."""

    batch: DatagramBatch
    reason: DropReason


class UdpSocket:
    """One socket of one family.

    Attributes:
        version: 4 or 6.
        socket: non-blocking, unconnected.
        is_door: takes handshake messages only; see `binding`.
        groups: whether sends are grouped.
        coalesces: whether receives are.
        octets: received and sent by it.
        has_more: the last `receive` stopped at a lone datagram, so that it is answered before anything else: ask again.
    """

    def __init__(self, bound: socket.socket, *, groups: bool, coalesces: bool, is_door: bool = False) -> None:
        """Take over a bound UDP socket."""
        self.is_door = is_door
        self.octets = 0
        self.version = 4 if bound.family == socket.AF_INET else 6
        self.socket = bound
        self.groups = groups and self._can(_UDP_SEGMENT)
        self.coalesces = coalesces and self._can(_UDP_GRO)
        if self.coalesces:
            self.socket.setsockopt(socket.SOL_UDP, _UDP_GRO, 1)
        self.has_more = False
        count, size = (_DOOR_SLOTS, _DOOR_SLOT_SIZE) if is_door else (_SLOTS, _SLOT_SIZE)
        self._limit = self._most = count
        self._slot_size = size
        self._arena = Arena(count * size)
        self._slots = [[self._arena.view[i * size : (i + 1) * size]] for i in range(count)]
        self._endpoints: dict[tuple[object, ...], Endpoint] = {}
        self._received: dict[tuple[tuple[int, int, bytes], ...], tuple[Local | None, int, int]] = {}
        self._locals: dict[bytes, Local] = {}
        self._ancillaries: dict[tuple[Local | None, int, int, int], Ancillary] = {}
        self._addresses: dict[Endpoint, tuple[object, ...]] = {}
        # Of the last send: whoever sends to one endpoint looks everything up once.
        self._last_remote: Endpoint | None = None
        self._last_address: tuple[object, ...] = ()
        self._last_way: tuple[object, int, int, int] | None = None
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
        """What waits, up to 16 groups, or 64 messages at a door; the buffers are used again by the next call.

        ICMP errors that wait on the socket are passed over: whoever can send us one must not stop us.
        """
        batches: list[DatagramBatch] = []
        receive = self.socket.recvmsg_into
        refused = slot = octets = 0
        limit, slot_size = self._limit, self._slot_size
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
                    start=slot * slot_size,
                    length=length,
                    local=local,
                    tos=tos,
                )
            )
            slot += 1
            octets += length
        self.octets += octets
        if self.is_door:
            return batches
        # Where datagrams come one at a time, looking for a second one would only delay the first.
        self.has_more = limit == 1 and slot == 1
        is_quiet = slot == 0 or (slot == 1 and batches[0].length <= batches[0].segment_size)
        self._limit = 1 if is_quiet and not self.has_more else self._most
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
                    scope = _scope(zone)
                address = (host, endpoint.port, 0, scope)
            if len(self._addresses) >= _ENDPOINTS_KEPT:
                self._addresses.clear()
            self._addresses[endpoint] = address
        return address

    def _ancillary(self, local: Local | None, tos: int, segment_size: int, hop_limit: int) -> Ancillary:
        key = local, tos, segment_size, hop_limit
        known = self._ancillaries.get(key)
        if known is not None:
            return known
        ancillary: Ancillary = []
        if segment_size:
            ancillary.append((socket.SOL_UDP, _UDP_SEGMENT, struct.pack("=H", segment_size)))
        if self.version == 4:
            if local is not None:
                ancillary.append((socket.IPPROTO_IP, _IP_PKTINFO, local.as_source))
            if tos:
                ancillary.append((socket.IPPROTO_IP, _IP_TOS, struct.pack("=i", tos)))
            if hop_limit:
                ancillary.append((socket.IPPROTO_IP, socket.IP_TTL, struct.pack("=i", hop_limit)))
        else:
            if local is not None:
                ancillary.append((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local.as_source))
            if tos:
                ancillary.append((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, struct.pack("=i", tos)))
            if hop_limit:
                ancillary.append((socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, struct.pack("=i", hop_limit)))
        if len(self._ancillaries) >= _ANCILLARIES_KEPT:
            self._ancillaries.clear()
        self._ancillaries[key] = ancillary
        return ancillary

    def may_group(self, endpoint: Endpoint, segment_size: int) -> bool:
        """Whether datagrams of this size to this endpoint may leave in one send."""
        return self.groups and (not self._ungrouped or segment_size < self._ungrouped.get(endpoint, 65536))

    def forget_paths(self) -> None:
        """Routes or interfaces changed: grouped sends may work again, and zones may have other numbers."""
        self._ungrouped.clear()
        self._addresses = {endpoint: found for endpoint, found in self._addresses.items() if "%" not in endpoint.host}
        self._endpoints = {found: endpoint for found, endpoint in self._endpoints.items() if "%" not in endpoint.host}
        self._last_remote = None

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
        way = local, batch.tos, batch.segment_size if count > 1 else 0, batch.hop_limit
        if way != self._last_way:
            known = local if isinstance(local, Local) and local.version == self.version else None
            self._last_way, self._last_ancillary = way, self._ancillary(known, *way[1:])
        remote = batch.remote
        if remote is not self._last_remote:
            self._last_remote, self._last_address = remote, self._address(remote)
        self.octets += self.socket.sendmsg(buffers, self._last_ancillary, 0, self._last_address)

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
        v4: for data over IPv4, and all that is sent; None where the family is missing.
        v6: likewise.
        doors: for handshake messages, at most one of each family; none where the kernel does not steer them.
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
    ) -> None:
        """Bind both families to one port.

        Args:
            port: 0 for any that is free in both families.
            fwmark: 0 for none.
            interface: or VRF that everything leaves and enters by; None for whatever the routes say.
            groups: use UDP_SEGMENT where it works.
            coalesces: use UDP_GRO where it works.

        Raises:
            DeviceError: the port is taken, the mark is not allowed, there is no such interface, or no family at all.
        """
        (member,) = bind_members(port, 1, fwmark=fwmark, interface=interface)
        self._take(member, interface, groups=groups, coalesces=coalesces)

    @classmethod
    def of(cls, member: Member, *, groups: bool = True, coalesces: bool = True) -> UdpSockets:
        """Use sockets that are bound already."""
        made = cls.__new__(cls)
        made._take(member, None, groups=groups, coalesces=coalesces)
        return made

    @classmethod
    def adopt(cls, sockets: Sequence[socket.socket], *, groups: bool = True, coalesces: bool = True) -> UdpSockets:
        """Use sockets that another process has bound; of each family at most two, the second one is the door."""
        four = [one for one in sockets if one.family == socket.AF_INET]
        six = [one for one in sockets if one.family == socket.AF_INET6]
        (v4, door4), (v6, door6) = ((*family, None, None)[:2] for family in (four, six))
        return cls.of(Member(v4, v6, door4, door6), groups=groups, coalesces=coalesces)

    def _take(self, member: Member, interface: str | None, *, groups: bool, coalesces: bool) -> None:
        groups = groups and not _damages_groups(os.uname().release)
        self.interface = interface
        self.v4, self.v6 = (
            None if bound is None else UdpSocket(bound, groups=groups, coalesces=coalesces)
            for bound in (member.v4, member.v6)
        )
        self.doors = [
            UdpSocket(bound, groups=False, coalesces=False, is_door=True)
            for bound in (member.door4, member.door6)
            if bound is not None
        ]
        self.port = next(one.port for one in self)
        self.failures: list[Failure] = []
        self.stale: list[DatagramBatch] = []

    def __iter__(self) -> Iterator[UdpSocket]:
        """The sockets that exist: those for data, then their doors."""
        for one in (self.v4, self.v6, *self.doors):
            if one is not None:
                yield one

    @property
    def octets(self) -> int:
        """How many octets of data were received and sent."""
        return sum(one.octets for one in (self.v4, self.v6) if one is not None)

    def close(self) -> None:
        """Give the port back."""
        for one in self:
            one.close()
        self.v4 = self.v6 = None
        self.doors = []

    def set_fwmark(self, fwmark: int) -> None:
        """Mark what is sent from now on; 0 for no mark.

        Raises:
            DeviceError: not permitted; nothing has changed then.
        """
        done: list[tuple[UdpSocket, bytes]] = []
        try:
            for one in self:
                before = one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK.size)
                one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK.pack(fwmark))
                done.append((one, before))
        except OSError as error:
            for one, before in done:
                with contextlib.suppress(OSError):
                    one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, before)
            raise explained(error, self.port, fwmark) from None

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
                or following.hop_limit != batch.hop_limit
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


def bind_group(port: int, count: int, *, fwmark: int, groups: bool, coalesces: bool) -> list[UdpSockets]:
    """Sockets of several workers behind one port: each receives what carries a receiver index of its shard.

    Args:
        port: 0 for any that is free.
        count: of workers, 1 to 128.
        fwmark: 0 for none.
        groups: use UDP_SEGMENT where it works.
        coalesces: use UDP_GRO where it works.

    Raises:
        DeviceError: the port is taken, or the mark not allowed.
    """
    members = bind_members(port, count, fwmark=fwmark, interface=None)
    return [UdpSockets.of(member, groups=groups, coalesces=coalesces) for member in members]


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


def _scope(zone: str) -> int:
    """The number of the interface that a zone names.

    Raises:
        OSError: there is none.
    """
    if not (zone.isascii() and zone.isdigit()):
        return socket.if_nametoindex(zone)
    try:
        return foreign.decimal(zone, 2**31 - 1)
    except ConfigError:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None
