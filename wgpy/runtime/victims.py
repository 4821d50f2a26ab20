"""One failure, one victim: what the handler of one connection raises ends that connection and nothing else.

Every server of ours says so in the same words: a peer that hung up at level debug, a defect with its traceback.
"""

from __future__ import annotations

import logging
from typing import Final

import trio

__all__ = ["HANG_UPS", "is_hang_up", "tell"]

# What reading and writing raise when the other end, or the tunnel, has gone.
HANG_UPS: Final = (OSError, EOFError, trio.BrokenResourceError, trio.ClosedResourceError)

_log = logging.getLogger("wgpy.net")


def is_hang_up(problem: BaseException) -> bool:
    """Whether this says no more than that the other end has gone."""
    if isinstance(problem, BaseExceptionGroup):
        return all(is_hang_up(one) for one in problem.exceptions)
    return isinstance(problem, HANG_UPS)


def tell(problem: Exception, peer: object) -> None:
    """Log what ended a connection."""
    if is_hang_up(problem):
        _log.debug("the connection from %s ended: %r", peer, problem)
    else:
        _log.error("a defect ended the connection from %s; the others go on", peer, exc_info=problem)
