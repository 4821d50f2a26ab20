"""The Linux TUN device: superpackets in, slabs out, and back.

Reading: `readv` puts the payload of a superpacket into the rows of a slab as the last one was cut, because the next one
of a stream is cut likewise; what turns out otherwise is copied. Then `dataplane/split` writes the headers. Small
packets to one place become rows of one slab. Writing: `dataplane/merge` says what goes together, and `writev` takes it
from where it lies.

Source: Linux Documentation/networking/tuntap.rst, drivers/net/tun.c.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import errno
import fcntl
import itertools
import os
import struct
from collections import Counter
from typing import TYPE_CHECKING, Final

import trio

from wgpy.constants import MAX_MTU, MAX_SEGMENTS, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.dataplane import merge, split
from wgpy.dataplane.slab import Arena, Slab, padded_length
from wgpy.errors import BadPacket, DeviceError, DropReason, TunnelClosed
from wgpy.tun.netlink import Link, Netlink
from wgpy.wire import ip, virtio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["LinuxTun", "another_queue", "open_tun", "tun_of_fd"]

_PATH: Final = "/dev/net/tun"
_TUNSETIFF, _TUNGETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x800454D2, 0x400454D0
_TUNGETVNETHDRSZ, _TUNSETVNETHDRSZ, _TUNGETDEVNETNS = 0x800454D7, 0x400454D8, 0x54E3
_IFF_TUN, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x0100, 0x1000, 0x4000
_CSUM, _TSO4, _TSO6, _USO4, _USO6 = 0x01, 0x02, 0x04, 0x20, 0x40
_IFREQ: Final = struct.Struct("=16sH22x")

# Superpackets read before anything is sealed: numpy is paid once for all of them, and 16 still fit into a second-level
# cache.
_SLOTS: Final = 16
# Distance of slots: room for 45 rows of 1452 octets, and equal, so that numpy takes all of them as one grid.
_SLOT_SIZE: Final = 65536
# Packets read at most before they are sent, so that what arrives gets its turn.
_READS: Final = 128
# Longer ones stay where they were read; shorter ones are worth a copy, because together they cost one seal and one
# send.
_SMALL: Final = 512
# What a packet of a TUN device may be at most, before which IP header says so.
_OVERFLOW: Final = 65536 + 64
_COMMON_HEADER: Final = 52  # IPv4 and TCP with timestamps: the first guess


class LinuxTun:
    """A TUN device behind the PacketDevice door.

    Attributes:
        name: as it was when the device was made; a link can be renamed.
        index: interface number in the namespace where it was made.
        mtu: greatest inner packet.
        drops: packets refused, by reason.
        fd: of the device.
        has_header: packets come and go with an offload header.
        joins_udp: whether the kernel takes UDP superpackets.
        merges: whether writes are joined.
        has_more: see `PacketDevice`.
        on_warning: called with what the operator should read.
        admits: whether a received packet may reach the kernel; None for all of them.
    """

    def __init__(
        self, fd: int, *, name: str, index: int, mtu: int, has_header: bool, joins_udp: bool, merges: bool = True
    ) -> None:
        """Take over an open, configured device; `open_tun` and `tun_of_fd` make them."""
        os.set_blocking(fd, False)
        self.fd = fd
        self.name = name
        self.index = index
        self.drops: Counter[DropReason] = Counter()
        self.joins_udp = joins_udp
        self.merges = merges and has_header
        self.has_more = False
        self._limit = _READS
        self.on_warning: Callable[[str], None] = lambda _: None
        self.admits: Callable[[memoryview], bool] | None = None
        self.has_header = has_header
        self._header = virtio.HEADER_SIZE if has_header else 0
        self._slots = Arena(_SLOTS * _SLOT_SIZE)
        self._small = Arena(_READS * (_SMALL + TRANSPORT_OVERHEAD))
        self._headers = [memoryview(bytearray(virtio.HEADER_SIZE)) for _ in range(_SLOTS)]
        self._overflow = memoryview(bytearray(_OVERFLOW))
        self._layouts: dict[tuple[int, int], list[list[memoryview]]] = {}
        self._mtu = 0
        self.mtu = mtu

    @property
    def mtu(self) -> int:
        """Greatest inner packet; setting it changes how the next superpackets are expected."""
        return self._mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        mtu = min(mtu, MAX_MTU)
        if mtu != self._mtu:
            self._mtu = mtu
            self._layouts.clear()
            self._expect(min(_COMMON_HEADER, mtu // 2), max(1, mtu - _COMMON_HEADER))

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def descriptor(self) -> int:
        """See `PacketDevice`."""
        return self.fd

    async def wait_readable(self) -> None:
        """Return when there is something to read.

        Raises:
            TunnelClosed: the device was closed.
        """
        if self.fd < 0:
            raise TunnelClosed(f"{self.name} is closed")
        try:
            await trio.lowlevel.wait_readable(self.fd)
        except trio.ClosedResourceError:
            raise TunnelClosed(f"{self.name} is closed") from None

    def read_batch(self) -> list[Slab]:
        """What waits, up to 16 superpackets or 64 small packets for each.

        Raises:
            TunnelClosed: the device was deleted.
        """
        slabs: list[Slab] = []
        superpackets: list[split.Superpacket] = []
        slot = small = 0
        readv, fd, has_header = os.readv, self.fd, self.has_header
        if fd < 0:
            raise TunnelClosed(f"{self.name} is closed")
        limit = self._limit
        for _ in range(limit):
            if slot == _SLOTS:
                break
            try:
                size = readv(fd, self._layout[slot])
            except BlockingIOError:
                break
            except OSError as error:
                raise self._closed(error) from None
            length = size - self._header
            if length < ip.IPV4_HEADER_SIZE:
                self.drops[DropReason.INNER_MALFORMED] += 1
                continue
            start = slot * _SLOT_SIZE
            at = start + TRANSPORT_HEADER_SIZE
            is_in_first_row = length <= self._first_row
            packet = self._slots.view[at : at + min(length, self._first_row)]
            offload = virtio.WHOLE
            if has_header:
                header = self._headers[slot]
                if header.tobytes() != virtio.PLAIN:
                    try:
                        offload = virtio.offload_untrusted(header, packet)
                    except BadPacket as bad:
                        self.drops[bad.reason] += 1
                        continue
            payload = offload.gso_size
            if payload and length > offload.header_length + payload:
                is_in_place = length <= self._first_row + self._payload * (self._count - 1)
                if is_in_place and offload.header_length == self._header_length and payload == self._payload:
                    superpacket = self._in_place(start, length, offload)
                    superpackets.append(superpacket)
                    slabs.append(superpacket.slab)
                    slot += 1
                else:
                    pieces = split.cut(memoryview(self._gathered(slot, length)), offload, self._mtu)
                    superpackets += pieces
                    slabs += [piece.slab for piece in pieces]
                    if offload.header_length + payload <= self._mtu:
                        self._expect(offload.header_length, payload)
                continue
            if not is_in_first_row:
                packet = memoryview(self._gathered(slot, length))
            if offload.csum_start:
                split.finish_checksum(packet, offload)
            true_length = ip.true_length_untrusted(packet)
            if not true_length:
                self.drops[DropReason.INNER_MALFORMED] += 1
                continue
            packet = packet[:true_length]
            padded = padded_length(true_length, self._mtu)
            if padded <= _SMALL:
                small = self._add_small(slabs, packet, padded, small)
            elif is_in_first_row:
                view = self._slots.view
                view[at + true_length : at + padded] = bytes(padded - true_length)
                slabs.append(Slab(self._slots, start, padded + TRANSPORT_OVERHEAD, 1, padded))
                slot += 1
            else:
                slabs.append(Slab.of_packet(packet, self._mtu))
        if superpackets:
            split.finish(superpackets)
        # Where packets come one at a time, looking for a second one would only delay the first.
        is_quiet = not slabs or (len(slabs) == 1 and slabs[0].count == 1)
        self.has_more = limit == 1 and bool(slabs)
        self._limit = 1 if is_quiet and not self.has_more else _READS
        return slabs

    def _in_place(self, start: int, length: int, offload: virtio.Offload) -> split.Superpacket:
        left = length - offload.header_length
        count = -(-left // offload.gso_size)
        last_length = offload.header_length + left - (count - 1) * offload.gso_size
        padded = self._padded
        last_padded = padded if last_length == self._first_row else padded_length(last_length, self._mtu)
        slab = Slab(self._slots, start, padded + TRANSPORT_OVERHEAD, count, padded, last_padded)
        return split.Superpacket(slab, offload, last_length)

    def _add_small(self, slabs: list[Slab], packet: memoryview, padded: int, at: int) -> int:
        """Put a small packet behind the last one, as a row of its slab where it goes the same way."""
        stride = padded + TRANSPORT_OVERHEAD
        view, length = self._small.view, len(packet)
        first = at + TRANSPORT_HEADER_SIZE
        view[first : first + length] = packet
        view[first + length : first + padded] = bytes(padded - length)
        before = slabs[-1] if slabs else None
        slab = Slab(self._small, at, stride, 1, padded)
        if (
            before is not None
            and before.arena is self._small
            and before.stride == stride
            and before.count < MAX_SEGMENTS
            and before.destination == slab.destination
            and before.traffic_class == slab.traffic_class
        ):
            before.count += 1
        else:
            slabs.append(slab)
        return at + stride

    def _expect(self, header_length: int, payload: int) -> None:
        """Lay the buffers out for superpackets of this cut."""
        self._header_length, self._payload = header_length, payload
        self._first_row = header_length + payload
        self._padded = padded_length(self._first_row, self._mtu)
        stride = self._padded + TRANSPORT_OVERHEAD
        self._count = min(split.rows_per_slab(stride), max(1, _SLOT_SIZE // stride))
        layout = self._layouts.get((header_length, payload))
        if layout is None:
            if len(self._layouts) > 16:
                self._layouts.clear()
            layout = self._layouts[header_length, payload] = []
            view = self._slots.view
            for slot in range(_SLOTS):
                at = slot * _SLOT_SIZE + TRANSPORT_HEADER_SIZE
                buffers = [self._headers[slot]] if self.has_header else []
                buffers.append(view[at : at + self._first_row])
                for row in range(1, self._count):
                    place = at + row * stride + header_length
                    buffers.append(view[place : place + payload])
                buffers.append(self._overflow)
                layout.append(buffers)
        self._layout = layout

    def _gathered(self, slot: int, length: int) -> bytearray:
        """A packet that was read into the rows of a slot, in one piece."""
        buffers = self._layout[slot][1 if self.has_header else 0 :]
        return bytearray(b"".join(buffers)[:length])

    def _closed(self, error: OSError) -> TunnelClosed:
        reason = "was deleted" if error.errno in (errno.EBADFD, errno.EBADF) else f"failed: {error}"
        return TunnelClosed(f"{self.name} {reason}")

    # --- writing -----------------------------------------------------------------------------------------------------

    def write_batch(self, slabs: Sequence[Slab]) -> None:
        """Hand received packets to the kernel.

        Raises:
            TunnelClosed: the device was deleted.
        """
        if self.admits is not None:
            slabs = self._admitted(slabs, self.admits)
        if not self.merges:
            for slab in slabs:
                self._write_singly(slab)
            return
        fd = self.fd
        if fd < 0:
            raise TunnelClosed(f"{self.name} is closed")
        for buffers, packets in merge.merge(slabs, joins_udp=self.joins_udp):
            try:
                os.writev(fd, buffers)
            except OSError as error:
                if error.errno == errno.EINVAL and packets > 1:
                    self._write_apart(buffers)
                else:
                    self._refused(error, packets)

    def _admitted(self, slabs: Sequence[Slab], admits: Callable[[memoryview], bool]) -> list[Slab]:
        """The rows that may reach the kernel, those next to each other still in one slab."""
        kept: list[Slab] = []
        for slab in slabs:
            verdicts = [admits(packet) for packet in slab]
            self.drops[DropReason.NOT_ADMITTED] += verdicts.count(False)
            first = 0
            for is_admitted, run in itertools.groupby(verdicts):
                count = len(list(run))
                if is_admitted:
                    kept.append(slab.part(first, count))
                first += count
        return kept

    def _write_singly(self, slab: Slab) -> None:
        for packet in slab:
            self._write(packet)

    def _write(self, packet: memoryview | bytes) -> None:
        try:
            os.writev(self.fd, [virtio.PLAIN, packet] if self.has_header else [packet])
        except OSError as error:
            self._refused(error, 1)

    def _write_apart(self, buffers: list[memoryview]) -> None:
        """Kernels around 6.6.44 refuse some superpackets: write the packets singly, and join none from now on."""
        self.merges = False
        self.on_warning(f"{self.name}: this kernel refuses joined packets; receive coalescing is off from now on")
        whole = bytearray(b"".join(buffers))
        header, packet = whole[: virtio.HEADER_SIZE], memoryview(whole)[virtio.HEADER_SIZE :]
        pieces = split.cut(packet, virtio.offload_untrusted(header, packet), MAX_MTU)
        split.finish(pieces)
        for piece in pieces:
            slab = piece.slab
            for packet in slab:
                self._write(packet[: ip.true_length_untrusted(packet)])

    def _refused(self, error: OSError, packets: int) -> None:
        if error.errno in (errno.EBADFD, errno.EBADF):
            raise self._closed(error) from None
        # EIO: the interface is down. Others are the kernel's own view of the packet.
        self.drops[DropReason.TUN_WRITE_FAILED] += packets

    def close(self) -> None:
        """Give the device up; an interface that is not persistent disappears."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            with contextlib.suppress(RuntimeError):  # outside of trio nobody waits
                trio.lowlevel.notify_closing(fd)
            os.close(fd)

    # --- the link ----------------------------------------------------------------------------------------------------

    def current_name(self) -> str:
        """The name of the link now, wherever it was moved to.

        Raises:
            TunnelClosed: the device was deleted.
        """
        request = bytearray(_IFREQ.size)
        try:
            fcntl.ioctl(self.fd, _TUNGETIFF, request)
        except OSError as error:
            raise self._closed(error) from None
        return bytes(request[:16]).rstrip(b"\0").decode(errors="replace")

    def open_namespace(self) -> int | None:
        """An fd of the network namespace that the link is in, or None without the privilege to ask.

        Keep it no longer than one query: it keeps a deleted namespace alive, and the interface with it.
        """
        try:
            return fcntl.ioctl(self.fd, _TUNGETDEVNETNS)
        except OSError:
            return None

    def limit_superpackets(self) -> None:
        """Ask the kernel for superpackets that fit one UDP send; only possible while the link is in our namespace."""
        segments = split.rows_per_slab(padded_length(self._mtu, self._mtu) + TRANSPORT_OVERHEAD)
        with contextlib.suppress(DeviceError), Netlink() as netlink:
            netlink.set_link(self.index, gso_max_segs=segments)


def open_tun(
    name: str, *, mtu: int | None = 1420, offload: bool = True, merges: bool = True, has_queues: bool = False
) -> LinuxTun:
    """Make a TUN interface in this network namespace; it is down.

    Args:
        name: 1 to 15 characters.
        mtu: of the link; None leaves the kernel's 1500.
        offload: take and give superpackets where the kernel can.
        merges: join what is written; without, only reading is offloaded.
        has_queues: `another_queue` will be asked for.

    Raises:
        DeviceError: no TUN driver, no permission, or the name is taken or not allowed.
    """
    if not 1 <= len(name.encode()) <= 15 or "/" in name or any(character.isspace() for character in name):
        raise DeviceError(errno.EINVAL, f"an interface name has 1 to 15 characters, no space and no slash: {name!r}")
    fd = _open_device()
    try:
        flags = _IFF_TUN | _IFF_NO_PI | (_IFF_VNET_HDR if offload else 0) | (_IFF_MULTI_QUEUE if has_queues else 0)
        try:
            request = fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
        except OSError as error:
            if error.errno == errno.EINVAL and offload:
                os.close(fd)
                fd = -1
                return open_tun(name, mtu=mtu, offload=False, has_queues=has_queues)
            raise _explained(error, name) from None
        final = bytes(request[:16]).rstrip(b"\0").decode()
        joins_udp = offload and _enable_offload(fd)
        with Netlink() as netlink:
            link = netlink.link(name=final)
            if mtu is not None and mtu != link.mtu:
                netlink.set_link(link.index, mtu=mtu)
                link = dataclasses.replace(link, mtu=mtu)
        tun = _tun(fd, link, has_header=offload, joins_udp=joins_udp, merges=merges)
    except BaseException:
        if fd >= 0:
            os.close(fd)
        raise
    tun.limit_superpackets()
    return tun


def another_queue(tun: LinuxTun) -> LinuxTun:
    """One more queue of an interface that was made with `has_queues`.

    The kernel steers a flow to the queue where its other direction was written last.

    Raises:
        DeviceError: no permission, or the interface has as many queues as there can be.
    """
    fd = _open_device()
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_MULTI_QUEUE | (_IFF_VNET_HDR if tun.has_header else 0)
        fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(tun.name.encode(), flags))
    except OSError as error:
        os.close(fd)
        raise _explained(error, tun.name) from None
    if tun.has_header:
        _enable_offload(fd)
    link = Link(tun.index, tun.name, tun.mtu, False)
    return _tun(fd, link, has_header=tun.has_header, joins_udp=tun.joins_udp, merges=tun.merges)


def tun_of_fd(fd: int, *, merges: bool = True) -> LinuxTun:
    """Use a TUN device that somebody opened for us; with IFF_VNET_HDR it takes part in offload.

    Raises:
        DeviceError: not a TUN device.
    """
    request = bytearray(_IFREQ.size)
    try:
        fcntl.ioctl(fd, _TUNGETIFF, request)
    except OSError as error:
        raise DeviceError(error.errno, f"file descriptor {fd} is not a TUN device: {error.strerror}") from None
    name, flags = _IFREQ.unpack(request)
    has_header = bool(flags & _IFF_VNET_HDR)
    text = name.rstrip(b"\0").decode(errors="replace")
    joins_udp = has_header and _enable_offload(fd)
    with contextlib.suppress(DeviceError), Netlink() as netlink:
        link = netlink.link(name=text)
        return _tun(fd, link, has_header=has_header, joins_udp=joins_udp, merges=merges)
    # It lives in another namespace already.
    return _tun(fd, Link(0, text, 1420, True), has_header=has_header, joins_udp=joins_udp, merges=merges)


def _tun(fd: int, link: Link, *, has_header: bool, joins_udp: bool, merges: bool) -> LinuxTun:
    return LinuxTun(
        fd, name=link.name, index=link.index, mtu=link.mtu, has_header=has_header, joins_udp=joins_udp, merges=merges
    )


def _open_device() -> int:
    try:
        return os.open(_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _explained(error, _PATH) from None


def _explained(error: OSError, what: str) -> DeviceError:
    match error.errno:
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            mend = "there is no TUN driver: `modprobe tun`, or pass /dev/net/tun into the container"
        case errno.EPERM | errno.EACCES:
            mend = "a TUN interface needs CAP_NET_ADMIN: run it as root, or use the userspace stack"
        case errno.EBUSY:
            mend = "an interface of this name exists already: choose another, or `ip link delete` the old one"
        case _:
            mend = error.strerror or "the kernel refused"
    return DeviceError(error.errno, f"{what}: {mend}")


def _enable_offload(fd: int) -> bool:
    """Ask for superpackets: with UDP, without, or none; says whether with UDP."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, array.array("i", [virtio.HEADER_SIZE]))
    for flags in (_CSUM | _TSO4 | _TSO6 | _USO4 | _USO6, _CSUM | _TSO4 | _TSO6, 0):
        try:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, flags)
        except OSError:
            continue
        return bool(flags & _USO4)
    return False
