"""A nursery whose one failure is raised as it is, so that callers can catch it by its type."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

__all__ = ["open_plain_nursery"]


@contextlib.asynccontextmanager
async def open_plain_nursery() -> AsyncIterator[trio.Nursery]:
    """Like `trio.open_nursery`; of several failures at once the first is raised, the others are its context."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        alone: BaseException = group
        while isinstance(alone, BaseExceptionGroup):
            alone = alone.exceptions[0]
        raise alone from alone.__cause__
