"""One failure, one victim: everything of the edge that runs by itself is started here, and fails alone.

    run_once     one piece of work: a request, a probe, a control line. A failure ends it, and it only.
    start_kept   a loop that must live: watches, tunnel, beats. After a failure it begins again, each time a bit later.
    confined     as `run_once`, for a block or a callback, which must not hurt who calls it.

A failure is logged once with the name of the work, and counted (`failures`, and the metric of that name); while the
same one comes again, it is one line a minute with their number. Only what is named here ends the process: the port of
the probes lost (`PortLost`), without which the kubelet takes us for dead. Cancellation always passes.
"""

from __future__ import annotations

import contextlib
import logging
import math
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVarTuple

import trio

__all__ = ["Fatal", "PortLost", "confined", "failures", "leaves_of", "run_kept", "run_once", "start_kept"]

_log = logging.getLogger("edge.supervise")

Ts = TypeVarTuple("Ts")

# Pauses of a loop that fails again and again, in seconds. One that ran so long was well.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
WELL_AFTER: Final = 60.0
# A failure that repeats is told so often, in seconds; so many different ones are told apart.
LINE_EVERY: Final = 60.0
_MOST_PLACES: Final = 200


class Fatal(Exception):
    """The process cannot go on: what it is there for is lost. The text says what, and what to do."""


class PortLost(Fatal):
    """The probes' port cannot be had: the kubelet would take us for dead."""


_counts: Counter[str] = Counter()

#: How often each kind of work failed since the process began, by its name.
failures: Final[Mapping[str, int]] = MappingProxyType(_counts)


def start_kept(nursery: trio.Nursery, name: str, work: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
    """Start a loop that must live. The arguments are those of `run_once`."""
    nursery.start_soon(lambda: run_kept(name, work, *args), name=name)


async def run_once(name: str, work: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> bool:
    """Run one piece of work; returns whether it did not fail.

    Args:
        name: of this kind of work, a few words; the counter has it too.
        work: what to run.
        args: its arguments.

    Raises:
        Fatal: what may end the process. Cancellation passes, too.
    """
    with confined(name):
        await work(*args)
        return True
    return False


async def run_kept(name: str, work: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
    """Run a loop that must live: begin it again after each failure, until it returns. Arguments as for `run_once`."""
    pause = FIRST_PAUSE
    while True:
        began = trio.current_time()
        if await run_once(name, work, *args):
            return
        if trio.current_time() - began >= WELL_AFTER:
            pause = FIRST_PAUSE
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


@contextlib.contextmanager
def confined(name: str) -> Iterator[None]:
    """Let no failure out of the block: it is logged and counted."""
    try:
        yield
    except BaseException as problem:
        passing = _take(name, problem)
        if passing is problem:
            raise
        if passing is not None:
            raise passing from None


def leaves_of(problem: BaseException) -> Iterator[BaseException]:
    """The exceptions of a group, of groups in it, or the one that it is.

    Taken apart by hand: `except*` wraps anew what is raised in it before Python 3.11.4.
    """
    if isinstance(problem, BaseExceptionGroup):
        for one in problem.exceptions:
            yield from leaves_of(one)
    else:
        yield problem


def _take(name: str, problem: BaseException) -> BaseException | None:
    """Log and count what failed; returns what must pass: an end of the process, or what is no failure at all."""
    leaves = list(leaves_of(problem))
    failed = [leaf for leaf in leaves if isinstance(leaf, Exception) and not isinstance(leaf, Fatal)]
    if failed:
        _counts[name] += 1
        _tell(name, failed[0])
    if (fatal := next((leaf for leaf in leaves if isinstance(leaf, Fatal)), None)) is not None:
        return fatal
    if isinstance(problem, BaseExceptionGroup):
        return problem.split(Exception)[1]
    return None if isinstance(problem, Exception) else problem


@dataclass(slots=True)
class _Repeated:
    """A failure at one place: when it was told, and how often it came since."""

    told_at: float = -math.inf
    untold: int = 0


_told: dict[tuple[str, ...], _Repeated] = {}


def _tell(name: str, problem: Exception) -> None:
    """One line with the traceback for what is new, one a minute for what repeats."""
    frame = next(reversed(traceback.extract_tb(problem.__traceback__)), None)
    place = (name, type(problem).__name__, f"{frame.filename}:{frame.lineno}" if frame is not None else "")
    if place not in _told and len(_told) >= _MOST_PLACES:
        _told.clear()
    seen = _told.setdefault(place, _Repeated())
    now = trio.current_time()
    if 0 <= now - seen.told_at < LINE_EVERY:
        seen.untold += 1
        return
    is_new = seen.told_at == -math.inf
    text = f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__
    if is_new:
        _log.error("%s failed: %s", name, text, exc_info=problem)
    else:
        _log.error("%s failed: %s (%d times since)", name, text, seen.untold + 1)
    seen.told_at, seen.untold = now, 0
