"""Time and randomness: the one module that asks for them."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable

import trio

__all__ = ["boot_time", "clock", "epoch", "now", "random", "wall_clock"]

random = secrets.token_bytes
wall_clock = time.time


def boot_time() -> float:
    """Seconds since boot, suspended time included: a session that was suspended past its end must not be used."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def clock() -> Callable[[], float]:
    """The source of engine time. Under trio's MockClock it is the mock's, so that tests decide how time passes."""
    # Not imported: whoever has a MockClock has done that, and it would load pytest where that is installed.
    testing = sys.modules.get("trio.testing")
    if testing is not None and isinstance(trio.lowlevel.current_clock(), testing.MockClock):
        return trio.current_time
    return boot_time


def now() -> float:
    """Engine time."""
    return clock()()


def epoch() -> float:
    """When engine time was 0: Unix seconds."""
    return wall_clock() - now()
