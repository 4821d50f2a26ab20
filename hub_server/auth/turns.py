"""Who is next where each turn costs much: a few at once, a bounded number waiting, sources served in rotation.

Those who are known already (a session, a device that signed in before) have a line of their own, which goes first: a
thousand strangers do not make the owner wait. Beyond its bounds a line refuses at once instead of growing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from hub_server.domain.errors import Unavailable

__all__ = ["Turns"]

WAITING: Final = 64  # in each of the two lines
WAITING_OF_SOURCE: Final = 8
RETRY_AFTER: Final = 2.0


class _Line:
    """Waiting ones by source; the sources take turns."""

    def __init__(self) -> None:
        self._sources: OrderedDict[str, deque[trio.Event]] = OrderedDict()
        self._count = 0

    def join(self, source: str) -> trio.Event:
        mine = self._sources.get(source, ())
        if self._count >= WAITING or len(mine) >= WAITING_OF_SOURCE:
            raise Unavailable("too many are signing in at this moment: try again shortly", retry_after=RETRY_AFTER)
        turn = trio.Event()
        self._sources.setdefault(source, deque()).append(turn)
        self._count += 1
        return turn

    def leave(self, source: str, turn: trio.Event) -> None:
        self._sources[source].remove(turn)
        self._count -= 1
        if not self._sources[source]:
            del self._sources[source]

    def next(self) -> trio.Event | None:
        if not self._sources:
            return None
        source, waiting = self._sources.popitem(last=False)
        turn = waiting.popleft()
        self._count -= 1
        if waiting:
            self._sources[source] = waiting  # behind all others
        return turn


class Turns:
    """So many at once; the others wait for their turn."""

    def __init__(self, at_once: int) -> None:
        """Nobody is at it."""
        self._free = at_once
        self._known, self._strangers = _Line(), _Line()

    @asynccontextmanager
    async def turn(self, source: str, *, known: bool) -> AsyncIterator[None]:
        """Wait for a turn and have it.

        Raises:
            Unavailable: too many are waiting, of this source or in all.
        """
        if self._free:
            self._free -= 1
        else:
            line = self._known if known else self._strangers
            turn = line.join(source)
            try:
                await turn.wait()
            except trio.Cancelled:
                if turn.is_set():
                    self._pass_on()
                else:
                    line.leave(source, turn)
                raise
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        turn = self._known.next()
        if turn is None:
            turn = self._strangers.next()
        if turn is not None:
            turn.set()
        else:
            self._free += 1
