"""Two streams joined: what comes out of one goes into the other, ends and failures included.

An end is passed on as an end (the other direction goes on), a reset as a reset. This is what makes a half-closed
connection survive every proxy and every socket of ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio

from wgpy.adapters.net import abort

if TYPE_CHECKING:
    from wgpy.adapters.net import Stream

__all__ = ["Traffic", "relay"]

_CHUNK: Final = 256 * 1024


@dataclass(slots=True)
class Traffic:
    """Octets that went through, counted while they go.

    Attributes:
        up: from the first stream to the second.
        down: from the second to the first.
    """

    up: int = 0
    down: int = 0


async def relay(
    first: Any,
    second: Any,
    *,
    idle_timeout: float = math.inf,
    half_closed_timeout: float = math.inf,
    traffic: Traffic | None = None,
) -> BaseException | None:
    """Copy both ways until both directions have ended, one stream broke, or nothing has moved for too long.

    Args:
        first: a `Stream`.
        second: a `Stream`.
        idle_timeout: seconds without a single octet in either direction.
        half_closed_timeout: the same once one direction has ended: its sender may have gone for good.
        traffic: counts.

    Returns:
        What broke it off, None for an orderly end. Both streams are closed: orderly, or by a reset.
    """
    counted = traffic or Traffic()
    broken: list[BaseException] = []
    is_over = False
    patience = idle_timeout
    # The deadline moves on with every octet.
    whole = trio.CancelScope(deadline=trio.current_time() + idle_timeout)

    async def copy(source: Stream, target: Stream, *, is_up: bool) -> None:
        nonlocal patience
        try:
            while data := await source.receive_some(_CHUNK):
                whole.deadline = trio.current_time() + patience
                await target.send_all(data)
                whole.deadline = trio.current_time() + patience
                if is_up:
                    counted.up += len(data)
                else:
                    counted.down += len(data)
            patience = min(patience, half_closed_timeout)
            whole.deadline = trio.current_time() + patience
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as problem:
            broken.append(problem)
            whole.cancel()

    async def copy_down() -> None:
        await copy(second, first, is_up=False)

    try:
        with whole:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(copy_down)
                await copy(first, second, is_up=True)
        if not broken and whole.cancelled_caught:
            broken.append(TimeoutError(f"nothing moved for {patience:g} s"))
        if not broken:
            await first.aclose()
            await second.aclose()
            is_over = True
    finally:
        if not is_over:
            with trio.CancelScope(shield=True):
                await abort(first)
                await abort(second)
    return broken[0] if broken else None
