"""Time and randomness: the one module that asks for them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

import trio
import trio.testing

__all__ = ["boot_time", "clock", "now", "random", "wall_clock"]

random = secrets.token_bytes
wall_clock = time.time


def boot_time() -> float:
    """Seconds since boot, suspended time included: a session that was suspended past its end must not be used."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def clock() -> Callable[[], float]:
    """The source of engine time. Under trio's MockClock it is the mock's, so that tests decide how time passes."""
    if isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock):
        return trio.current_time
    return boot_time


def now() -> float:
    """Engine time."""
    return clock()()
