"""One lazy heap of deadlines for all sockets: re-arming a timer is an attribute write, not a heap operation."""

from __future__ import annotations

import heapq
from typing import Final, Protocol

from wgpy.netstack.constants import NEVER

__all__ = ["DeadlineHeap", "Waiting"]

# Below this many dead entries a rebuild costs more than it frees.
_FEW: Final = 64


class Waiting(Protocol):
    """Something with a deadline; `wakes_at` is the heap's own note, NEVER at first."""

    wakes_at: float

    @property
    def deadline(self) -> float:
        """When it wants to be woken, as of now."""
        ...


class DeadlineHeap:
    """Owners by a time that is never later than their deadline, each at most once alive.

    A deadline that moved later is not touched: its owner comes up at the earlier time, says what it waits for now, and
    is entered again.
    """

    __slots__ = ("_alive", "_heap", "_serial")

    def __init__(self) -> None:
        """Start empty."""
        self._heap: list[tuple[float, int, Waiting]] = []
        self._serial = 0
        self._alive = 0

    def wake_by(self, owner: Waiting, deadline: float) -> None:
        """Make sure that `owner` is woken no later than at `deadline`."""
        if deadline >= owner.wakes_at:
            return
        if owner.wakes_at == NEVER:
            self._alive += 1
        owner.wakes_at = deadline
        self._serial += 1
        heapq.heappush(self._heap, (deadline, self._serial, owner))
        if len(self._heap) - self._alive > max(_FEW, self._alive):
            self._forget_dead()

    def discard(self, owner: Waiting) -> None:
        """Never wake `owner` again, and keep no reference to it for long."""
        if owner.wakes_at != NEVER:
            owner.wakes_at = NEVER
            self._alive -= 1
            if len(self._heap) - self._alive > max(_FEW, self._alive):
                self._forget_dead()

    def pop_due(self, now: float) -> Waiting | None:
        """Take out one owner whose deadline has come, None when there is no more."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, owner = heapq.heappop(heap)
            if owner.wakes_at != at:
                continue
            owner.wakes_at = NEVER
            self._alive -= 1
            deadline = owner.deadline
            if deadline <= now:
                return owner
            self.wake_by(owner, deadline)
        return None

    def next_deadline(self) -> float:
        """The earliest time at which an owner may want to be woken, NEVER if none does."""
        heap = self._heap
        while heap:
            at, _, owner = heap[0]
            if owner.wakes_at == at:
                # The true deadline may be later by now: say that one, or nobody would ever sleep long.
                deadline = owner.deadline
                if deadline <= at:
                    return at
                heapq.heappop(heap)
                owner.wakes_at = NEVER
                self._alive -= 1
                self.wake_by(owner, deadline)
            else:
                heapq.heappop(heap)
        return NEVER

    def _forget_dead(self) -> None:
        seen: set[int] = set()
        alive: list[tuple[float, int, Waiting]] = []
        for entry in self._heap:
            at, _, owner = entry
            if owner.wakes_at == at and id(owner) not in seen:
                seen.add(id(owner))
                alive.append(entry)
        heapq.heapify(alive)
        self._heap = alive
