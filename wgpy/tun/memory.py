"""A packet device without a kernel: the program itself sends and receives the inner packets.

program -> send -> read_batch -> engine          engine -> write_batch -> receive -> program
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import groupby
from typing import TYPE_CHECKING, Final

import trio

from wgpy.constants import DEFAULT_MTU, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.dataplane.slab import Arena, Slab, padded_length
from wgpy.dataplane.split import rows_per_slab
from wgpy.errors import DropReason, TunnelClosed
from wgpy.wire import ip

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MemoryDevice"]

_READ_AT_ONCE: Final = 256


class MemoryDevice:
    """Inner packets in two bounded queues.

    Attributes:
        name: what people call it.
        mtu: greatest inner packet.
        has_more: never; `read_batch` takes whatever waits.
        drops: packets that found their queue full, or were not IP, by reason.

    Example:
        >>> device = wgpy.MemoryDevice("demo")
        >>> device.mtu
        1420
    """

    def __init__(self, name: str, *, mtu: int = DEFAULT_MTU, limit: int = 4096) -> None:
        """Make one.

        Args:
            name: what people call it.
            mtu: greatest inner packet, octets.
            limit: packets that may wait in each direction.
        """
        self.name = name
        self.mtu = mtu
        self.drops: Counter[DropReason] = Counter()
        self.has_more = False
        self._limit = limit
        self._outgoing: deque[bytes] = deque()
        self._incoming: deque[bytes] = deque()
        self._has_outgoing = trio.Event()
        self._has_incoming = trio.Event()
        self._has_room = trio.Event()
        self._is_closed = False

    # --- the side of the program -------------------------------------------------------------------------------------

    async def send(self, packets: Iterable[bytes]) -> None:
        """Hand IP packets to the tunnel; waits while the queue is full.

        Raises:
            TunnelClosed: the tunnel ended.
        """
        for packet in packets:
            while len(self._outgoing) >= self._limit and not self._is_closed:
                self._has_room = trio.Event()
                await self._has_room.wait()
            if self._is_closed:
                raise TunnelClosed(f"{self.name} was closed")
            self._outgoing.append(packet)
            self._has_outgoing.set()

    async def receive(self) -> list[bytes]:
        """The IP packets that came through the tunnel, at least one.

        Raises:
            TunnelClosed: the tunnel ended.
        """
        while not self._incoming:
            if self._is_closed:
                raise TunnelClosed(f"{self.name} was closed")
            self._has_incoming = trio.Event()
            await self._has_incoming.wait()
        packets = list(self._incoming)
        self._incoming.clear()
        return packets

    # --- the side of the device --------------------------------------------------------------------------------------

    @property
    def descriptor(self) -> None:
        """See `PacketDevice`."""

    async def wait_readable(self) -> None:
        """See `PacketDevice.wait_readable`."""
        while not self._outgoing:
            if self._is_closed:
                raise TunnelClosed(f"{self.name} was closed")
            self._has_outgoing = trio.Event()
            await self._has_outgoing.wait()
        await trio.lowlevel.checkpoint()

    def read_batch(self) -> list[Slab]:
        """See `PacketDevice.read_batch`."""
        packets = [self._outgoing.popleft() for _ in range(min(len(self._outgoing), _READ_AT_ONCE))]
        self._has_room.set()
        whole = [packet for packet in packets if 0 < ip.true_length_untrusted(packet) == len(packet)]
        if len(whole) != len(packets):
            self.drops[DropReason.INNER_MALFORMED] += len(packets) - len(whole)
        slabs: list[Slab] = []
        for shape, alike in groupby(
            whole, lambda packet: (len(packet), ip.destination(packet), ip.traffic_class(packet))
        ):
            run = list(alike)
            most = rows_per_slab(padded_length(shape[0], self.mtu) + TRANSPORT_OVERHEAD)
            slabs += (self._slab(run[i : i + most]) for i in range(0, len(run), most))
        return slabs

    def _slab(self, packets: Sequence[bytes]) -> Slab:
        length = padded_length(len(packets[0]), self.mtu)
        stride = length + TRANSPORT_OVERHEAD
        headroom, tailroom = bytes(TRANSPORT_HEADER_SIZE), bytes(stride - TRANSPORT_HEADER_SIZE - len(packets[0]))
        buffer = bytearray().join(part for packet in packets for part in (headroom, packet, tailroom))
        return Slab(Arena(buffer), 0, stride, len(packets), length)

    def write_batch(self, slabs: Sequence[Slab]) -> None:
        """See `PacketDevice.write_batch`."""
        if self._is_closed:
            raise TunnelClosed(f"{self.name} was closed")
        for slab in slabs:
            room = self._limit - len(self._incoming)
            if slab.count > room:
                self.drops[DropReason.TUN_WRITE_FAILED] += slab.count - room
            self._incoming.extend(bytes(row) for _, row in zip(range(room), slab, strict=False))
        self._has_incoming.set()

    def close(self) -> None:
        """See `PacketDevice.close`."""
        self._is_closed = True
        for event in (self._has_outgoing, self._has_incoming, self._has_room):
            event.set()
