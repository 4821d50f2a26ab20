"""What strangers do at the door all day, told briefly: at most one line of info for each kind of it in a minute."""

from __future__ import annotations

import math
from typing import Final

import structlog
import trio

__all__ = ["Chatter"]

_log = structlog.get_logger("hub.http")

LINE_EVERY: Final = 60.0


class Chatter:
    """Counts by kind, and the lines about them. A kind is one of few fixed texts of ours, never a peer's."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self.counts: dict[str, int] = {}
        self._told: dict[str, tuple[float, int]] = {}

    def note(self, kind: str, peer: str, detail: str = "") -> None:
        """Count one; say so when nothing of its kind was said for a minute, with the number of those since then.

        Args:
            kind: what happened, in a few words.
            peer: the last one who did it.
            detail: why, when known.
        """
        count = self.counts[kind] = self.counts.get(kind, 0) + 1
        told_at, told = self._told.get(kind, (-math.inf, 0))
        now = trio.current_time()
        if now - told_at < LINE_EVERY:
            return
        self._told[kind] = (now, count)
        plain = "".join(letter if letter.isprintable() else "?" for letter in detail[:200])
        more = {"detail": plain} if plain else {}
        _log.info(kind, peer=peer, times=count - told, **more)
