"""A tunnel in a thread of its own, for programs that do not run trio: `wgpy.sync` and `wgpy.adapters.asyncio`.

The thread runs trio and nothing else. Other threads hand it functions to run (`submit`) and get a future; connections
cross as sockets (`wgpy.adapters.socketpair`), so that bytes never wait for a future.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from wgpy.adapters.net import DIAL_ERRORS, abort, as_os_error, ends_of
from wgpy.adapters.socketpair import DatagramSocket, datagram_pair, pump_datagrams, socket_of
from wgpy.runtime.groups import unwrapped

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from wgpy.adapters.net import Address, Net

__all__ = ["RemoteListener", "TunnelThread"]

T = TypeVar("T")


def _closed() -> OSError:
    return OSError(errno.ENETDOWN, "the tunnel is closed")


class TunnelThread:
    """A tunnel, held open by a thread.

    Attributes:
        tunnel: what `wgpy.open_tunnel` gave; to be touched in the thread only.
    """

    def __init__(self, open_tunnel: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        """Nothing happens until `start`."""
        self.tunnel: Any = None
        self._open_tunnel = open_tunnel
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), name="wgpy-tunnel", daemon=True)
        self._token: trio.lowlevel.TrioToken
        self._nursery: trio.Nursery
        self._stop: trio.Event
        self._is_open = False

    @property
    def net(self) -> Net:
        """The network of the tunnel; to be touched in the thread only."""
        net: Net = self.tunnel.net
        return net

    def start(self) -> None:
        """Return when the tunnel is open.

        Raises:
            WgpyError: whatever `wgpy.open_tunnel` raises.
        """
        self._thread.start()
        self._opened.result()

    def close(self) -> None:
        """Close the tunnel and all that was opened through it; return when that is done."""
        self.close_soon()
        self._thread.join()

    def close_soon(self) -> None:
        """Begin to close it."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._stop.set)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        try:
            with unwrapped():
                async with self._open_tunnel() as self.tunnel, trio.open_nursery() as self._nursery:
                    self._is_open = True
                    self._opened.set_result(None)
                    await self._stop.wait()
                    self._is_open = False
                    self._nursery.cancel_scope.cancel()
        except Exception as problem:
            # A tunnel that ended by itself fails whoever asks it from now on.
            if not self._opened.done():
                self._opened.set_exception(problem)
        finally:
            self._is_open = False

    def submit(
        self, function: Callable[..., Awaitable[T]], *arguments: Any, dispose: Callable[[T], object] | None = None
    ) -> concurrent.futures.Future[T]:
        """Run an asynchronous function in the thread.

        Args:
            function: to run; its OSErrors become those of a kernel socket.
            *arguments: for it.
            dispose: what to do with a result that nobody waits for any more.

        Returns:
            A future; cancelling it cancels the function.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        async def run() -> None:
            with trio.CancelScope() as scope:
                future.add_done_callback(lambda done: self._cancel_if(done, scope))
                try:
                    result = await function(*arguments)
                except DIAL_ERRORS as problem:
                    _settle(future, as_os_error(problem))
                except trio.Cancelled:
                    _settle(future, _closed())
                    raise
                except Exception as problem:
                    _settle(future, problem)
                else:
                    try:
                        future.set_result(result)
                    except concurrent.futures.InvalidStateError:
                        if dispose is not None:
                            dispose(result)

        def begin() -> None:
            if self._is_open:
                self._nursery.start_soon(run)
            else:
                _settle(future, _closed())

        try:
            self._token.run_sync_soon(begin)
        except trio.RunFinishedError:
            _settle(future, _closed())
        return future

    def _cancel_if(self, done: concurrent.futures.Future[Any], scope: trio.CancelScope) -> None:
        if done.cancelled():
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(scope.cancel)

    # --- what both faces offer ---------------------------------------------------------------------------------------

    async def connect(self, host: str, port: int) -> socket.socket:
        """A socket that is connected through the tunnel."""
        return await self._as_socket(await self.net.open_tcp_stream(host, port))

    async def _as_socket(self, stream: Any) -> socket.socket:
        try:
            return socket_of(stream, self._nursery)
        except BaseException:
            await abort(stream)
            raise

    async def listen(self, port: int, host: str | None) -> RemoteListener:
        """Accept connections in the tunnel."""
        return RemoteListener(self, await self.net.open_tcp_listeners(port, host=host))

    async def open_datagrams(self, remote: Address) -> DatagramSocket:
        """A socket for datagrams to one host."""
        inside = await self.net.open_udp(remote=remote)
        theirs, ours = datagram_pair()
        scope = trio.CancelScope()

        async def pump() -> None:
            with scope:
                await pump_datagrams(inside, ours)

        def end() -> None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(scope.cancel)

        theirs.on_close = end
        self._nursery.start_soon(pump)
        return theirs


class RemoteListener:
    """Listeners of the tunnel; to be touched in the thread only."""

    def __init__(self, thread: TunnelThread, listeners: Sequence[Any]) -> None:
        """Accept on all of them, one connection ahead."""
        self._thread, self._listeners = thread, list(listeners)
        sender, self._accepted = trio.open_memory_channel[Any](0)
        self._scope = trio.CancelScope()
        thread._nursery.start_soon(self._run, sender)

    async def _run(self, sender: trio.MemorySendChannel[Any]) -> None:
        async def accept(listener: Any) -> None:
            async with listener:
                while True:
                    await sender.send(await listener.accept())

        with self._scope:
            async with sender, trio.open_nursery() as nursery:
                for listener in self._listeners:
                    nursery.start_soon(accept, listener)

    async def accept(self) -> tuple[socket.socket, Address]:
        """The next connection as a socket, and who it is in the tunnel."""
        try:
            stream = await self._accepted.receive()
        except trio.EndOfChannel:
            raise OSError(errno.EBADF, "the listener is closed") from None
        _, remote = ends_of(stream)
        return await self._thread._as_socket(stream), remote

    async def close(self) -> None:
        """Close it."""
        self._scope.cancel()
        await trio.lowlevel.checkpoint()


def _settle(future: concurrent.futures.Future[Any], problem: BaseException) -> None:
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        future.set_exception(problem)
