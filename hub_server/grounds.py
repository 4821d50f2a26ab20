"""What every open stream stands on, and the one place that ends a stream when its ground is gone.

    kubectl's request, panel line, page stream -> standing_on(ground) -> runs until it ends by itself
    a commit of this process, or two seconds   -> look -> `lost` is asked about all grounds at once -> cut

A ground is a credential, and what it must still allow. Nobody has to remember to end streams: whatever takes a right
away writes to the database, through this process or another one, and the next look finds it. What becomes of the edge
behind a stream is seen by the wire (`Wire.cut`), which ends the connections themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import trio

from hub_server import supervise
from hub_server.domain.errors import Unauthenticated
from hub_server.domain.roles import Right

__all__ = ["Ground", "GroundLost", "Grounds", "Lost"]

# A right that is lost must cut within five seconds, whoever took it away.
LOOK_EVERY: Final = 2.0
# A busy hub commits many times a second; one look serves all that was committed until it begins.
LOOK_AT_MOST_EVERY: Final = 0.5


@dataclass(frozen=True, slots=True)
class Ground:
    """What a stream stands on.

    Attributes:
        credential: of which kind.
        id: of its row.
        tenant_id: where its owner must be a member.
        right: what the credential and its owner must still allow there.
        cluster_id: that must be there and not be blocked; None for none.
    """

    credential: Literal["kubeconfig", "session", "token"]
    id: str
    tenant_id: str
    right: Right
    cluster_id: str | None = None


# Asked about many grounds: those that are gone, each with the reason, a sentence for people.
Lost: TypeAlias = Callable[[Collection[Ground]], Awaitable[Mapping[Ground, str]]]


class GroundLost(Unauthenticated):
    """The ground of a stream is gone; the text says why."""

    code = "ground_lost"


@dataclass(eq=False, slots=True)
class _Stream:
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    reason: str = ""


class Grounds:
    """Every stream that is open, by its ground."""

    def __init__(self, lost: Lost) -> None:
        """Know none yet.

        Args:
            lost: which of some grounds are gone.
        """
        self._lost = lost
        self._streams: dict[Ground, set[_Stream]] = {}
        self._wake = trio.Event()

    @property
    def streams(self) -> int:
        """How many are open."""
        return sum(map(len, self._streams.values()))

    @contextmanager
    def standing_on(self, ground: Ground) -> Iterator[None]:
        """Run what is inside for as long as the ground is there; then it is cancelled.

        Raises:
            GroundLost: in its place, when it was cancelled for that.
        """
        stream = _Stream()
        self._streams.setdefault(ground, set()).add(stream)
        try:
            with stream.scope:
                yield
        finally:
            self._streams[ground].remove(stream)
            if not self._streams[ground]:
                del self._streams[ground]
        if stream.scope.cancelled_caught:
            raise GroundLost(stream.reason)

    def look_soon(self) -> None:
        """Something was written that may have taken a right away."""
        self._wake.set()

    async def look(self) -> None:
        """Look once, and cut what lost its ground."""
        if not self._streams:
            return
        for ground, reason in (await self._lost(tuple(self._streams))).items():
            for stream in self._streams.get(ground, ()):
                stream.reason = reason
                stream.scope.cancel()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            with trio.move_on_after(LOOK_EVERY):
                await self._wake.wait()
            self._wake = trio.Event()
            # A database that cannot be read now is looked at again; new requests are refused meanwhile.
            with supervise.confined("grounds of streams"):
                await self.look()
            await trio.sleep(LOOK_AT_MOST_EVERY)
