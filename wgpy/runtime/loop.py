"""Who wakes the data path: trio, or an epoll loop of our own on which trio is a guest.

A step is a plain function that does what there is to do when its descriptor is readable. `TrioLoop` calls it from a
task, in any trio program. `HostLoop` calls it straight from epoll, with no task switch and without arming the
descriptor again, which halves what the loop costs a lone packet; trio runs on top of it. So what is rare (timers,
control socket, link, signals) is written once, as tasks, and so is every case in which the data path has to wait: a
step that cannot go on says False, and the task that serves it takes over.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import outcome
import trio

__all__ = ["HostLoop", "Loop", "TrioLoop"]

T = TypeVar("T")


class Loop(Protocol):
    """Calls steps."""

    async def serve(self, descriptor: int, step: Callable[[], bool]) -> None:
        """Call `step` whenever the descriptor is readable, until it returns False; what it raises is raised here.

        Raises:
            ClosedResourceError: see `forget`.
        """
        ...

    def forget(self, descriptor: int) -> None:
        """The descriptor is about to be closed: whoever serves it ends with ClosedResourceError."""
        ...

    def in_trio(self, function: Callable[..., None], *args: object) -> None:
        """Call a function that needs trio, from a step or from a task: at once, or soon."""
        ...


class TrioLoop:
    """Steps are called by trio tasks."""

    async def serve(self, descriptor: int, step: Callable[[], bool]) -> None:
        """See `Loop.serve`."""
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            if not step():
                return

    def forget(self, descriptor: int) -> None:
        """See `Loop.forget`."""
        trio.lowlevel.notify_closing(descriptor)

    def in_trio(self, function: Callable[..., None], *args: object) -> None:
        """See `Loop.in_trio`."""
        function(*args)


class _Server:
    """A step at work, and the task that waits for its end."""

    __slots__ = ("ended", "result", "step")

    def __init__(self, step: Callable[[], bool]) -> None:
        self.step = step
        self.ended = trio.Event()
        self.result: outcome.Outcome[None] = outcome.Value(None)


class HostLoop:
    """Steps are called by epoll, in the main thread; trio is a guest there."""

    def __init__(self) -> None:
        """Nothing is served yet."""
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._calls: deque[Callable[[], object]] = deque()
        self._servers: dict[int, _Server] = {}
        self._token: trio.lowlevel.TrioToken | None = None

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """As `trio.run`; everything that the function starts can be served by this loop."""
        ended: list[outcome.Outcome[T]] = []
        trio.lowlevel.start_guest_run(
            function, *args, run_sync_soon_threadsafe=self._call_soon, done_callback=ended.append
        )
        self._token = trio.lowlevel.current_trio_token()
        poll, servers = self._epoll.poll, self._servers
        while not ended:
            for descriptor, _ in poll():
                server = servers.get(descriptor)
                if server is None:
                    self._run_calls()
                    continue
                try:
                    if server.step():
                        continue
                except Exception as error:
                    server.result = outcome.Error(error)
                self._end(descriptor)
        self._epoll.close()
        os.close(self._wake)
        return ended[0].unwrap()

    def _call_soon(self, function: Callable[[], object]) -> None:
        self._calls.append(function)
        os.eventfd_write(self._wake, 1)

    def _run_calls(self) -> None:
        os.eventfd_read(self._wake)
        for _ in range(len(self._calls)):
            self._calls.popleft()()

    async def serve(self, descriptor: int, step: Callable[[], bool]) -> None:
        """See `Loop.serve`."""
        server = self._servers[descriptor] = _Server(step)
        self._epoll.register(descriptor, select.EPOLLIN)
        try:
            await server.ended.wait()
        finally:
            if self._servers.get(descriptor) is server:
                self._stop(descriptor)
        server.result.unwrap()

    def forget(self, descriptor: int) -> None:
        """See `Loop.forget`."""
        if descriptor in self._servers:
            self._servers[descriptor].result = outcome.Error(trio.ClosedResourceError("closed by another task"))
            self._end(descriptor)

    def in_trio(self, function: Callable[..., None], *args: object) -> None:
        """See `Loop.in_trio`."""
        assert self._token is not None, "steps run while trio does"
        self._token.run_sync_soon(function, *args)

    def _end(self, descriptor: int) -> None:
        self.in_trio(self._stop(descriptor).ended.set)

    def _stop(self, descriptor: int) -> _Server:
        self._epoll.unregister(descriptor)
        return self._servers.pop(descriptor)
