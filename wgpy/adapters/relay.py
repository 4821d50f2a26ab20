"""Two streams joined: what one says, the other hears, and each direction ends on its own."""

from __future__ import annotations

import trio

__all__ = ["relay"]


async def relay(one: trio.abc.Stream, other: trio.abc.Stream, *, idle: float | None = None) -> None:
    """Carry octets both ways until both directions have ended; both streams are closed then.

    The end of one direction is passed on as such where the stream can say so (half-close). A direction that breaks
    breaks both: the streams are closed without ceremony.

    Args:
        one: a stream.
        other: likewise.
        idle: give up when nothing moved in either direction for so many seconds.
    """
    async with one, other:
        try:
            async with trio.open_nursery() as nursery:
                if idle is not None:
                    nursery.cancel_scope.deadline = trio.current_time() + idle
                nursery.start_soon(_carry, one, other, nursery.cancel_scope, idle)
                nursery.start_soon(_carry, other, one, nursery.cancel_scope, idle)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(one)
            await trio.aclose_forcefully(other)


async def _carry(source: trio.abc.Stream, target: trio.abc.Stream, scope: trio.CancelScope, idle: float | None) -> None:
    async for octets in source:
        await target.send_all(octets)
        if idle is not None:
            scope.deadline = trio.current_time() + idle
    if isinstance(target, trio.abc.HalfCloseableStream):
        await target.send_eof()
    else:
        # Nothing but a close can tell the end (TLS): the other direction ends too.
        scope.cancel()
