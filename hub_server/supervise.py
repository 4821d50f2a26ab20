"""One failure, one victim: everything of the hub that runs by itself is started here, and fails alone.

    start_once   one-off work: a delivery, a push of configuration. A failure ends it, and it only.
    start_kept   a loop that must live: rows, records, jobs, certificate. After a failure it begins again, a little
                 later each time.
    start_part   a part of one piece of work, in that work's own nursery: its failure is the work's failure.
    run_once     as `start_once`, in a task that a server started: a request, a control connection.
    confined     as `run_once`, for a callback, which must not hurt who calls it.

A failure is logged once with the name of the work and its victim, and counted (`failures`); while the same one comes
again, it is one line a minute with their number. Only what is named here ends the process: data lost, key lost, port
lost (`Fatal`). Cancellation always passes. No other module of the hub starts a task.
"""

from __future__ import annotations

import math
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVarTuple

import structlog
import trio

from hub_server.domain.errors import Unavailable

__all__ = [
    "DataLost",
    "Fatal",
    "KeyLost",
    "PortLost",
    "confined",
    "failed",
    "failures",
    "leaves",
    "run_kept",
    "run_once",
    "start_kept",
    "start_once",
    "start_part",
    "start_server",
]

_log = structlog.get_logger("hub.supervise")

Ts = TypeVarTuple("Ts")

# Pauses of a loop that fails again and again, in seconds. One that ran so long was well.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
WELL_AFTER: Final = 60.0
# A failure that repeats is told so often, in seconds; so many different ones are told apart.
LINE_EVERY: Final = 60.0
_MOST_PLACES: Final = 1000


class Fatal(Exception):
    """The process cannot go on: what it is there for is lost. The text says what, and what to do."""


class DataLost(Fatal):
    """What is written does not come back: the database file is damaged, or no longer where it was."""


class KeyLost(Fatal):
    """A key by which others know the hub is gone, or is another one."""


class PortLost(Fatal):
    """The hub no longer listens where everybody looks for it."""


_counts: Counter[str] = Counter()

#: How often each kind of work failed since the process began, by its name.
failures: Final[Mapping[str, int]] = MappingProxyType(_counts)


# --- starting --------------------------------------------------------------------------------------------------------


def start_once(
    nursery: trio.Nursery, name: str, work: Callable[[*Ts], Awaitable[object]], *args: *Ts, victim: str = ""
) -> None:
    """Start one-off work; a failure ends it and nothing else. The arguments are those of `run_once`."""
    nursery.start_soon(lambda: run_once(name, work, *args, victim=victim), name=name)


def start_kept(
    nursery: trio.Nursery, name: str, work: Callable[[*Ts], Awaitable[object]], *args: *Ts, victim: str = ""
) -> None:
    """Start a loop that must live. The arguments are those of `run_kept`."""
    nursery.start_soon(lambda: run_kept(name, work, *args, victim=victim), name=name)


def start_part(nursery: trio.Nursery, work: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
    """Start a part of the piece of work whose nursery this is; the whole has the name and the victim."""
    nursery.start_soon(work, *args)


async def start_server(nursery: trio.Nursery, name: str, serve: Callable[..., Awaitable[object]], *args: object) -> Any:
    """Start what holds a port, and wait until it listens; returns what it says then. Its failure is `PortLost`.

    Args:
        nursery: its failure ends this.
        name: in the text of the error.
        serve: as for `trio.Nursery.start`; confines its connections and requests itself.
        args: for `serve`.
    """

    async def hold(*, task_status: trio.TaskStatus[Any]) -> None:
        try:
            await serve(*args, task_status=task_status)
        except Fatal:
            raise
        except Exception as problem:
            raise PortLost(f"{name} ended: {_named(_first(problem))}") from problem

    return await nursery.start(hold, name=name)


# --- running ---------------------------------------------------------------------------------------------------------


async def run_once(name: str, work: Callable[[*Ts], Awaitable[object]], *args: *Ts, victim: str = "") -> bool:
    """Run one-off work; returns whether it did not fail.

    Args:
        name: of this kind of work, a few words; the counter has it too.
        work: what to run.
        args: its arguments.
        victim: who notices: a cluster, tenant or channel, by its id.

    Raises:
        Fatal: what may end the process. Cancellation passes, too.
    """
    with confined(name, victim):
        await work(*args)
        return True
    return False


async def run_kept(name: str, work: Callable[[*Ts], Awaitable[object]], *args: *Ts, victim: str = "") -> None:
    """Run a loop that must live: begin it again after each failure, until it returns. Arguments as for `run_once`."""
    pause = FIRST_PAUSE
    while True:
        began = trio.current_time()
        if await run_once(name, work, *args, victim=victim):
            return
        if trio.current_time() - began >= WELL_AFTER:
            pause = FIRST_PAUSE
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


@contextmanager
def confined(name: str, victim: str = "") -> Iterator[None]:
    """Let no failure out of the block: it is logged and counted. Arguments as for `run_once`."""
    try:
        yield
    except BaseException as problem:
        passing = _take(name, victim, problem)
        if passing is problem:
            raise
        if passing is not None:
            raise passing from None


# --- failures --------------------------------------------------------------------------------------------------------


def failed(name: str, victim: str, problem: Exception) -> None:
    """Count a failure and tell it, for who goes on in another way. Arguments as for `run_once`."""
    _counts[name] += 1
    # That the database cannot be written is told by the one who found it out.
    if not isinstance(problem, Unavailable):
        _tell(name, victim, problem)


def _take(name: str, victim: str, problem: BaseException) -> BaseException | None:
    """Log and count what failed; returns what must pass: an end of the process, or what is no failure at all.

    A group of exceptions is taken apart by hand: `except*` wraps anew what is raised in it before Python 3.11.4.
    """
    all_of_it = list(leaves(problem))
    faults = [leaf for leaf in all_of_it if isinstance(leaf, Exception) and not isinstance(leaf, Fatal)]
    if faults:
        failed(name, victim, next((fault for fault in faults if not isinstance(fault, Unavailable)), faults[0]))
    if (fatal := next((leaf for leaf in all_of_it if isinstance(leaf, Fatal)), None)) is not None:
        return fatal
    if isinstance(problem, BaseExceptionGroup):
        return problem.split(Exception)[1]
    return None if isinstance(problem, Exception) else problem


def leaves(problem: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, however deep; or the one that is none."""
    if isinstance(problem, BaseExceptionGroup):
        for one in problem.exceptions:
            yield from leaves(one)
    else:
        yield problem


def _first(problem: BaseException) -> BaseException:
    return next(leaves(problem))


def _named(problem: BaseException) -> str:
    text = str(problem)
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__


@dataclass(slots=True)
class _Repeated:
    """A failure at one place: when it was told, and how often it came since."""

    told_at: float = -math.inf
    untold: int = 0


_told: dict[tuple[str, ...], _Repeated] = {}


def _tell(name: str, victim: str, problem: Exception) -> None:
    """One line with the traceback for what is new, one a minute for what repeats."""
    frame = next(reversed(traceback.extract_tb(problem.__traceback__)), None)
    place = (name, type(problem).__name__, f"{frame.filename}:{frame.lineno}" if frame is not None else "")
    if place not in _told and len(_told) >= _MOST_PLACES:
        _told.clear()
    seen = _told.setdefault(place, _Repeated())
    now = time.monotonic()
    if now - seen.told_at < LINE_EVERY:
        seen.untold += 1
        return
    is_new = seen.told_at == -math.inf
    more: dict[str, Any] = {"exc_info": problem} if is_new else {"times": seen.untold + 1}
    _log.error("a task failed", task=name, victim=victim, error=_named(problem), **more)
    seen.told_at, seen.untold = now, 0
