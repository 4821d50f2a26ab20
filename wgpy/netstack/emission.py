"""Rows for WireGuard: packets of the stack's own one by one, runs of TCP octets as whole slabs.

A run is laid into the rows of a slab with one call, and the headers of all rows of all slabs of one emission are
written together at the end (`dataplane.split.finish`); only what fits one row is built as a packet.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from wgpy.constants import MAX_SEGMENTS, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.dataplane import split
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.selected import rows as selected
from wgpy.dataplane.slab import Arena, Slab, padded_length
from wgpy.dataplane.split import Superpacket, rows_per_slab
from wgpy.errors import LocalProtocolError
from wgpy.wire import ip, tcp
from wgpy.wire.checksum import folded, partial_sum
from wgpy.wire.virtio import TCP_CSUM_OFFSET, Offload

if TYPE_CHECKING:
    from wgpy.dataplane.slab import Buffer

__all__ = ["Emission", "Headers"]

# Room for sixteen full slabs; equal distances within it let the header writer work on all of them at once.
_ARENA: Final = 2**20
_SMALL_ARENA: Final = 2**16
_IPV4: Final = struct.Struct("!BBHHHBBH")
_IPV6: Final = struct.Struct("!IHBB")
_DONT_FRAGMENT: Final = 0x4000


class Headers:
    """What is the same in every packet of one connection."""

    __slots__ = ("_addresses", "_ports", "_sum", "destination", "is_v4", "size")

    def __init__(self, local: bytes, local_port: int, remote: bytes, remote_port: int) -> None:
        """Remember addresses (4 or 16 octets) and ports."""
        self.is_v4 = len(local) == 4
        self.size = ip.IPV4_HEADER_SIZE if self.is_v4 else ip.IPV6_HEADER_SIZE
        self.destination = remote
        self._addresses = local + remote
        self._ports = local_port, remote_port
        self._sum = partial_sum(self._addresses)

    def packet(
        self,
        sequence: int,
        acknowledgement: int,
        flags: int,
        window: int,
        options: bytes = b"",
        payload: bytes | memoryview = b"",
        traffic_class: int = 0,
    ) -> bytes:
        """One whole packet with its checksums; sequence numbers may be absolute."""
        words = (tcp.HEADER_SIZE + len(options)) << 2
        local_port, remote_port = self._ports
        sequence &= 0xFFFFFFFF
        acknowledgement &= 0xFFFFFFFF
        tail = options + payload
        length = tcp.HEADER_SIZE + len(tail)
        # Words of the header summed as numbers: 2**16 is congruent to 1.
        total = self._sum + ip.TCP + length + local_port + remote_port + sequence + acknowledgement
        total += (words << 8 | flags) + window + partial_sum(tail)
        header = tcp.HEADER.pack(
            local_port, remote_port, sequence, acknowledgement, words, flags, window, 0xFFFF - folded(total), 0
        )
        return self._ip(length, traffic_class) + header + tail

    def first_row(
        self, sequence: int, acknowledgement: int, flags: int, window: int, options: bytes, traffic_class: int
    ) -> bytes:
        """The headers of a full segment; lengths and checksums are written by `split.finish`."""
        header = tcp.HEADER.pack(
            *self._ports,
            sequence & 0xFFFFFFFF,
            acknowledgement & 0xFFFFFFFF,
            (tcp.HEADER_SIZE + len(options)) << 2,
            flags,
            window,
            0,
            0,
        )
        return self._ip(0, traffic_class) + header + options

    def _ip(self, length: int, traffic_class: int) -> bytes:
        if self.is_v4:
            length += ip.IPV4_HEADER_SIZE
            # RFC 6864: with DF the identification may be anything, so it is zero.
            total = self._sum + (0x4500 | traffic_class) + length + _DONT_FRAGMENT
            total += ip.DEFAULT_HOP_LIMIT << 8 | ip.TCP
            return (
                _IPV4.pack(
                    0x45,
                    traffic_class,
                    length,
                    0,
                    _DONT_FRAGMENT,
                    ip.DEFAULT_HOP_LIMIT,
                    ip.TCP,
                    0xFFFF - folded(total),
                )
                + self._addresses
            )
        return _IPV6.pack(6 << 28 | traffic_class << 20, length, ip.TCP, ip.DEFAULT_HOP_LIMIT) + self._addresses


class Emission:
    """What one call of `Stack.emit` gives; its buffers are used again by the next one."""

    __slots__ = (
        "_arenas",
        "_at",
        "_current",
        "_mtu",
        "_packets",
        "_rows",
        "_runs",
        "_slabs",
        "_small",
        "_small_at",
        "left",
        "sent",
    )

    def __init__(self, mtu: int, rows: Rows = selected) -> None:
        """Make one for packets of at most `mtu` octets, with the row functions to use."""
        self._mtu = mtu
        self._rows = rows
        self._arenas: list[Arena] = []
        self._current = -1
        self._at = _ARENA
        self._small = Arena(_SMALL_ARENA)
        self._small_at = 0
        self._slabs: list[Slab] = []
        self._runs: list[Superpacket] = []
        # The slab that more packets of the same size may join.
        self._packets: tuple[Slab, int, bytes] | None = None
        self.left = 0
        self.sent = 0

    def begin(self, budget: int, mtu: int) -> None:
        """Start over: so many rows may be sent."""
        self._mtu = mtu
        self._current = -1
        self._at = _ARENA
        self._small_at = 0
        self._slabs = []
        self._runs = []
        self._packets = None
        self.left = budget
        self.sent = 0

    def packet(self, packet: bytes) -> None:
        """One whole packet as a row; neighbours of one size, destination and traffic class share a slab."""
        if len(packet) > self._mtu:
            raise LocalProtocolError(f"a packet of {len(packet)} octets is above the MTU of {self._mtu}")
        length = padded_length(len(packet), self._mtu)
        stride = length + TRANSPORT_OVERHEAD
        alike = packet[1:2] + ip.destination(packet) if packet[0] >> 4 == 4 else packet[:2] + packet[24:40]
        self.left -= 1
        self.sent += 1
        if self._packets is not None and self._small_at + stride <= len(self._small.view):
            slab, end, before = self._packets
            if (
                before == alike
                and slab.length == length
                and end == self._small_at
                and slab.count < min(MAX_SEGMENTS, rows_per_slab(stride))
            ):
                self._lay(end, packet, length)
                slab.count += 1
                self._small_at = end + stride
                self._packets = slab, self._small_at, alike
                return
        if self._small_at + stride > len(self._small.view):
            self._small = Arena(max(_SMALL_ARENA, stride))
            self._small_at = 0
        at = self._small_at
        self._lay(at, packet, length)
        slab = Slab(self._small, at, stride, 1, length)
        self._slabs.append(slab)
        self._small_at = at + stride
        self._packets = slab, self._small_at, alike

    def _lay(self, at: int, packet: bytes, length: int) -> None:
        view = self._small.view
        at += TRANSPORT_HEADER_SIZE
        view[at : at + len(packet)] = packet
        if length != len(packet):
            view[at + len(packet) : at + length] = bytes(length - len(packet))

    def segments(self, header: bytes, start: int, octets: Buffer, payload: int) -> None:
        """A run of segments as one slab.

        Args:
            header: of a full segment, as `Headers.first_row` gives; FIN and PSH go to the last row.
            start: where the TCP header begins.
            octets: more than `payload`, of no more segments than `rows_per_slab` allows.
            payload: octets of each segment but the last.
        """
        header_length = len(header)
        length = header_length + payload
        if length > self._mtu:
            raise LocalProtocolError(f"a segment of {length} octets is above the MTU of {self._mtu}")
        size = len(octets)
        count = -(-size // payload)
        last_length = header_length + size - (count - 1) * payload
        padded = padded_length(length, self._mtu)
        stride = padded + TRANSPORT_OVERHEAD
        arena, at = self._place(count * stride)
        slab = Slab(arena, at, stride, count, padded, padded_length(last_length, self._mtu))
        at += TRANSPORT_HEADER_SIZE
        arena.view[at : at + header_length] = header
        self._rows.write_payloads(slab, header_length, payload, octets)
        offload = Offload(header_length, payload, start, TCP_CSUM_OFFSET, False)
        self._runs.append(Superpacket(slab, offload, last_length))
        self._slabs.append(slab)
        self._packets = None
        self.left -= count
        self.sent += count

    def _place(self, size: int) -> tuple[Arena, int]:
        if self._at + size > _ARENA:
            self._current += 1
            if self._current == len(self._arenas):
                self._arenas.append(Arena(_ARENA))
            self._at = 0
        at = self._at
        self._at = at + size
        return self._arenas[self._current], at

    def finish(self) -> list[Slab]:
        """Write what is not written yet: the slabs, in order."""
        if self._runs:
            split.finish(self._runs, self._rows)
        return self._slabs
