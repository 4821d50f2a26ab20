"""The userspace stack behind the PacketDevice door, and the tasks that wait for its sockets.

    Device reads    -> read_batch  -> Stack.emit(now, budget)     what it does not ask for stays in the stack
    Device delivers -> write_batch -> Stack.receive(slabs, now)   -> each socket that is ready wakes its task, once
    timer           -> Stack.handle_timer(now)                    -> likewise

There is one timer task for all sockets and none for any. A task that waits stands in a table under its socket; whoever
calls a verb of the stack says so with `changed`, and the packet reader fetches what there is to send in its turn, so
that all that happened in one turn of the loop shares its packets.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Final

import trio

from wgpy.errors import TunnelClosed
from wgpy.runtime import world

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from wgpy.dataplane.slab import Slab
    from wgpy.errors import DropReason
    from wgpy.netstack.stack import Socket, Stack

__all__ = ["NetDevice"]

# Rows fetched at once: a few sends of 45, so that acknowledgements are looked at in between.
_BUDGET: Final = 192
# A suspended machine stops trio's clock, not that of the stack.
_LONGEST_SLEEP: Final = 20.0


class NetDevice:
    """A PacketDevice whose packets come from and go to sockets of this process.

    Attributes:
        name: what people call it.
        stack: without I/O.
        drops: packets that the stack refused.
        has_more: never; the stack gives what it has.
        watchers: called with the slabs that come and go, for captures.
    """

    def __init__(self, name: str, stack: Stack) -> None:
        """Put a stack behind the door.

        Args:
            name: what people call it.
            stack: made with the addresses of the tunnel.
        """
        self.name = name
        self.stack = stack
        self.drops: Counter[DropReason] = stack.drops
        self.has_more = False
        self.watchers: list[Callable[[Sequence[Slab]], None]] = []
        self._readers: dict[Socket, trio.lowlevel.Task] = {}
        self._writers: dict[Socket, trio.lowlevel.Task] = {}
        self._fetcher: trio.lowlevel.Task | None = None
        self._has_output = False
        self._woke_somebody = False
        self._timer = trio.CancelScope()
        self._drained: trio.Event | None = None
        self._is_closed = False
        self._cause: Exception | None = None

    # --- the door ----------------------------------------------------------------------------------------------------

    @property
    def descriptor(self) -> None:
        """See `PacketDevice`: tasks of the program wake it, not the kernel."""

    @property
    def mtu(self) -> int:
        """Greatest inner packet."""
        return self.stack.mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        self.stack.set_mtu(mtu)

    async def wait_readable(self) -> None:
        """See `PacketDevice.wait_readable`."""
        if self._has_output:
            await trio.lowlevel.checkpoint()
        while not self._has_output:
            if self._is_closed:
                raise TunnelClosed(f"{self.name} was closed")
            self._fetcher = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_fetching)
        if self._woke_somebody:
            # Let them answer first: an acknowledgement then travels with the answer, and not in a packet of its own.
            self._woke_somebody = False
            await trio.lowlevel.checkpoint()

    def _stop_fetching(self, _: object) -> trio.lowlevel.Abort:
        self._fetcher = None
        return trio.lowlevel.Abort.SUCCEEDED

    def read_batch(self) -> list[Slab]:
        """See `PacketDevice.read_batch`."""
        if self._is_closed:
            raise TunnelClosed(f"{self.name} was closed")
        now = world.now()
        slabs = self.stack.emit(now, _BUDGET)
        # What is left when the budget was not used up waits for its time or for a session; `changed` is called then.
        self._has_output = sum(slab.count for slab in slabs) >= _BUDGET or self.stack.has_looped
        for watch in self.watchers:
            watch(slabs)
        self._wake(self.stack.take_ready())
        if self._drained is not None and not self.stack.has_orphans:
            self._drained.set()
        self._set_timer(now)
        return slabs

    def write_batch(self, slabs: Sequence[Slab]) -> None:
        """See `PacketDevice.write_batch`."""
        if self._is_closed:
            raise TunnelClosed(f"{self.name} was closed")
        for watch in self.watchers:
            watch(slabs)
        self._wake(self.stack.receive(slabs, world.now()))
        self._fetch()

    def last_batch(self) -> list[Slab]:
        """Resets for all that is still open, so that nobody at the other end waits for us."""
        now = world.now()
        self.stack.abort(now)
        return self.stack.emit(now, _BUDGET)

    def close(self) -> None:
        """See `PacketDevice.close`; tasks that wait get ClosedResourceError, or BrokenResourceError if it failed."""
        if self._is_closed:
            return
        self._is_closed = True
        problem = sys.exception()
        self._cause = problem if isinstance(problem, Exception) else None
        self.stack.close()
        for waiting in (self._readers, self._writers):
            for task in waiting.values():
                trio.lowlevel.reschedule(task)
            waiting.clear()
        self._fetch()

    @property
    def is_open(self) -> bool:
        """Whether packets come and go."""
        return not self._is_closed

    # --- for the sockets ---------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """A verb of the stack was called, or the tunnel may carry more.

        `read_batch` sees in its turn what there is to send, to wait for and to wake.
        """
        self._fetch()

    def resume(self, leads_to: Callable[[bytes], bool]) -> None:
        """See `Stack.resume`."""
        if not self._is_closed:
            self.stack.resume(leads_to, world.now())
            self._fetch()

    def check_open(self) -> None:
        """Whether the tunnel is there.

        Raises:
            ClosedResourceError: it was left by its owner.
            BrokenResourceError: it failed.
        """
        if self._is_closed:
            if self._cause is not None:
                raise trio.BrokenResourceError("the tunnel failed") from self._cause
            raise trio.ClosedResourceError("the tunnel was closed")

    async def until_readable(self, socket: Socket) -> None:
        """Wait for `socket.is_readable`; a checkpoint in any case.

        Raises:
            BusyResourceError: another task waits for the same.
            ClosedResourceError, BrokenResourceError: the tunnel is no more.
        """
        await self._until(self._readers, socket)

    async def until_writable(self, socket: Socket) -> None:
        """Wait for `socket.is_writable`; otherwise like `until_readable`."""
        await self._until(self._writers, socket)

    async def _until(self, waiting: dict[Socket, trio.lowlevel.Task], socket: Socket) -> None:
        self.check_open()
        if socket in waiting:
            raise trio.BusyResourceError("another task uses this socket in the same direction")
        waiting[socket] = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            del waiting[socket]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        self.check_open()

    def wake(self, socket: Socket) -> None:
        """Let whoever waits for a socket look at it, because it was closed under their feet."""
        for waiting in (self._readers, self._writers):
            task = waiting.pop(socket, None)
            if task is not None:
                trio.lowlevel.reschedule(task)

    def _wake(self, ready: Sequence[Socket]) -> None:
        readers, writers = self._readers, self._writers
        for socket in ready:
            if socket in readers and socket.is_readable:
                trio.lowlevel.reschedule(readers.pop(socket))
                self._woke_somebody = True
            if socket in writers and socket.is_writable:
                trio.lowlevel.reschedule(writers.pop(socket))
                self._woke_somebody = True

    def _fetch(self) -> None:
        """Let the packet reader ask for output in its turn."""
        self._has_output = True
        if self._fetcher is not None:
            task, self._fetcher = self._fetcher, None
            trio.lowlevel.reschedule(task)

    async def until_drained(self) -> None:
        """Wait until everything sent on streams that were closed is delivered, or given up."""
        while self.stack.has_orphans:
            self._drained = trio.Event()
            await self._drained.wait()

    # --- time --------------------------------------------------------------------------------------------------------

    async def run_timer(self) -> None:
        """Do what is due, for ever."""
        while True:
            with trio.CancelScope(deadline=self._next_wake(world.now())) as self._timer:
                await trio.sleep_forever()
            self.handle_timer()

    def handle_timer(self) -> None:
        """Do what is due."""
        self._wake(self.stack.handle_timer(world.now()))
        self._fetch()

    def _next_wake(self, now: float) -> float:
        deadline = self.stack.next_deadline()
        return trio.current_time() + min(math.inf if deadline is None else deadline - now, _LONGEST_SLEEP)

    def _set_timer(self, now: float) -> None:
        """The timer sleeps until a deadline that may have moved closer; one that moved away costs a short wake-up."""
        wake = self._next_wake(now)
        if wake < self._timer.deadline:
            self._timer.deadline = wake
