"""CPU time of this thread, taken piece by piece: what else the machine does stays out of it, caches aside."""

from __future__ import annotations

import time
from typing import Self


class Stopwatch:
    """Adds up the CPU seconds spent inside `with stopwatch:`.

    Attributes:
        seconds: so far.
        last: of the last piece.
    """

    __slots__ = ("_start", "last", "seconds")

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds = 0.0
        self.last = 0.0
        self._start = 0.0

    def __enter__(self) -> Self:
        """Begin a piece."""
        self._start = time.thread_time()
        return self

    def __exit__(self, *error: object) -> None:
        """End it."""
        self.last = time.thread_time() - self._start
        self.seconds += self.last
