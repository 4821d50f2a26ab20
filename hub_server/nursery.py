"""Nurseries whose one failure is raised as it is, so that callers can catch it by its type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

__all__ = ["unwrapped"]


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the one exception of a group as it is: that there is a nursery inside is nobody's business."""
    try:
        yield
    except BaseExceptionGroup as group:
        _, others = group.split(trio.Cancelled)
        if others is None:
            raise
        alone: BaseException = others
        while isinstance(alone, BaseExceptionGroup):
            if len(alone.exceptions) > 1:
                raise
            alone = alone.exceptions[0]
        raise alone from alone.__cause__
