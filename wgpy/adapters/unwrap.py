"""One exception of a nursery, without the group around it: that there is a nursery inside is nobody's business."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["unwrapped"]


@contextlib.contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the one exception of a group as it is; a group of several stays a group."""
    try:
        yield
    except BaseExceptionGroup as group:
        alone: BaseException = group
        while isinstance(alone, BaseExceptionGroup) and len(alone.exceptions) == 1:
            alone = alone.exceptions[0]
        alone.__suppress_context__ = True
        raise alone from alone.__cause__
