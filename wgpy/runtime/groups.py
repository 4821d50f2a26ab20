"""Exceptions that nurseries tie together, taken apart in the same way by every Python.

`except*` is used nowhere: what is raised in it comes out in a group of its own before Python 3.11.4, which Debian 12's
own is. tests/house looks for it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["caught", "unwrapped"]

E = TypeVar("E", bound=BaseException)


@contextlib.contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the one exception of a group as it is: that there is a nursery inside is nobody's business.

    A group of several stays a group.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        alone: BaseException = group
        while isinstance(alone, BaseExceptionGroup) and len(alone.exceptions) == 1:
            alone = alone.exceptions[0]
        alone.__suppress_context__ = True
        raise alone from alone.__cause__


@contextlib.contextmanager
def caught(*kinds: type[E]) -> Iterator[list[E]]:
    """Take exceptions of these kinds, alone or out of a group, into the list that is given; others go on.

    What is to be raised for them is raised behind the block.
    """
    found: list[E] = []
    try:
        yield found
    except kinds as alone:
        found += _leaves(alone)
    except BaseExceptionGroup as group:
        mine, rest = group.split(kinds)
        if mine is not None:
            found += _leaves(mine)
        if rest is not None:
            raise rest from group.__cause__


def _leaves(problem: BaseException) -> Iterator[E]:
    if isinstance(problem, BaseExceptionGroup):
        for one in problem.exceptions:
            yield from _leaves(one)
    else:
        yield problem  # type: ignore[misc]  # group.split() saw to its kind
