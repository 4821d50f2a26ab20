"""One heap of deadlines for all peers: what grows with peers is a heap, never a task or a scan per peer."""

from __future__ import annotations

import heapq
from typing import Final, Generic, TypeVar

from wgpy.protocol.timers import NEVER

__all__ = ["DeadlineHeap"]

Owner = TypeVar("Owner")

# Below this many dead entries a rebuild costs more than it frees.
_FEW: Final = 64


class DeadlineHeap(Generic[Owner]):
    """Owners by their earliest deadline, each in the heap at most once alive.

    A deadline that moves later is not touched: its owner is woken at the earlier time, says what it waits for now, and
    is entered again. So a busy peer costs nothing per packet.
    """

    __slots__ = ("_alive", "_heap", "_serial")

    def __init__(self) -> None:
        """Start empty."""
        self._heap: list[tuple[float, int, Owner]] = []
        self._alive: dict[Owner, tuple[float, int]] = {}
        self._serial = 0

    def wake_by(self, owner: Owner, deadline: float) -> None:
        """Make sure that `owner` is woken no later than at `deadline`."""
        entry = self._alive.get(owner)
        if deadline == NEVER or (entry is not None and entry[0] <= deadline):
            return
        self._serial += 1
        self._alive[owner] = (deadline, self._serial)
        heapq.heappush(self._heap, (deadline, self._serial, owner))
        if entry is not None:
            self._forget_dead()

    def discard(self, owner: Owner) -> None:
        """Never wake `owner` again, and keep no reference to it for long."""
        if self._alive.pop(owner, None) is not None:
            self._forget_dead()

    def pop_due(self, now: float) -> Owner | None:
        """Take out one owner whose time has come, None when there is no more."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            deadline, serial, owner = heapq.heappop(heap)
            if self._alive.get(owner) == (deadline, serial):
                del self._alive[owner]
                return owner
        return None

    def next_deadline(self) -> float:
        """The earliest time at which an owner waits to be woken, NEVER if none does."""
        heap = self._heap
        while heap:
            deadline, serial, owner = heap[0]
            if self._alive.get(owner) == (deadline, serial):
                return deadline
            heapq.heappop(heap)
        return NEVER

    def _forget_dead(self) -> None:
        if len(self._heap) - len(self._alive) > max(_FEW, len(self._alive)):
            self._heap = [(deadline, serial, owner) for owner, (deadline, serial) in self._alive.items()]
            heapq.heapify(self._heap)
