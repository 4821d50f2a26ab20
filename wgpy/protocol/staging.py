"""Packets that wait for a session: bounded per peer and per device, the oldest dropped first."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from wgpy.constants import MAX_STAGED_OCTETS_PER_DEVICE, MAX_STAGED_PACKETS, MAX_STAGED_PER_DEVICE
from wgpy.errors import DropReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from wgpy.dataplane.slab import Slab

__all__ = ["StagedPackets", "StagingLimit"]


class StagedPackets:
    """The packets of one peer, oldest first.

    Holds copies: the buffers that packets arrive in are used again at once.
    """

    __slots__ = ("_drop", "_limit", "_slabs", "count", "octets")

    def __init__(self, limit: StagingLimit, drop: Callable[[DropReason, int], None]) -> None:
        """Start empty.

        Args:
            limit: what all peers of the device may hold together.
            drop: called with the reason and the number of packets given up.
        """
        # Not a deque: an empty one takes 600 octets, and most peers stage nothing most of the time.
        self._slabs: list[Slab] = []
        self._limit = limit
        self._drop = drop
        self.count = 0
        self.octets = 0

    def append(self, slab: Slab) -> None:
        """Stage a copy of every row, and give up the oldest packets that no longer fit."""
        copy = slab.copy()
        self._slabs.append(copy)
        self._add(copy.count, copy.octets)
        if self.count > MAX_STAGED_PACKETS:
            self.drop_oldest(self.count - MAX_STAGED_PACKETS)
        self._limit.grown(self)

    def take(self) -> list[Slab]:
        """Everything staged, oldest first; afterwards nothing is."""
        slabs, self._slabs = self._slabs, []
        self._add(-self.count, -self.octets)
        return slabs

    def put_back(self, slabs: list[Slab]) -> None:
        """Stage again what `take` gave and could not be sent."""
        self._slabs[:0] = slabs
        self._add(sum(slab.count for slab in slabs), sum(slab.octets for slab in slabs))

    def flush(self) -> None:
        """Give up everything."""
        count = self.count
        self.take()
        if count:
            self._drop(DropReason.STAGING_FLUSHED, count)

    def drop_oldest(self, count: int) -> None:
        """Give up the `count` oldest packets."""
        left = count
        while left and self._slabs:
            slab = self._slabs[0]
            if slab.count <= left:
                del self._slabs[0]
                self._add(-slab.count, -slab.octets)
                left -= slab.count
            else:
                shorter = slab.part(left, slab.count - left)
                self._slabs[0] = shorter
                self._add(shorter.count - slab.count, shorter.octets - slab.octets)
                left = 0
        self._drop(DropReason.STAGING_OVERFLOW, count - left)

    def _add(self, count: int, octets: int) -> None:
        self.count += count
        self.octets += octets
        self._limit.count += count
        self._limit.octets += octets


class StagingLimit:
    """What all peers of one device hold together: thousands of silent peers must not fill the memory (R6).

    Over the limit the peer with the longest queue loses its oldest packet, so that few noisy peers pay before many
    quiet ones. Queues are found by a heap of lengths as they were when they grew; an entry that is no longer true is
    put right when it is met.
    """

    __slots__ = ("_longest", "_serial", "count", "octets")

    def __init__(self) -> None:
        """Start with nothing staged."""
        self.count = 0
        self.octets = 0
        self._longest: list[tuple[int, int, StagedPackets]] = []
        self._serial = 0

    def grown(self, staged: StagedPackets) -> None:
        """Note that a queue grew, and evict until the limit holds again."""
        self._serial += 1
        heapq.heappush(self._longest, (-staged.count, self._serial, staged))
        if len(self._longest) > 2 * MAX_STAGED_PER_DEVICE:
            queues = {id(queue): queue for _, _, queue in self._longest if queue.count}
            self._longest = [(-queue.count, serial, queue) for serial, queue in enumerate(queues.values())]
            heapq.heapify(self._longest)
        while self.count > MAX_STAGED_PER_DEVICE or self.octets > MAX_STAGED_OCTETS_PER_DEVICE:
            length, serial, queue = heapq.heappop(self._longest)
            if queue.count == -length:
                queue.drop_oldest(1)
            if queue.count:
                heapq.heappush(self._longest, (-queue.count, serial, queue))
        if not self.count:
            self._longest.clear()
