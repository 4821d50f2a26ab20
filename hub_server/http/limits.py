"""What a connection may take of the hub: time, octets, descriptors. Numbers only; `connection` and `room` obey them."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Final

__all__ = ["HEAD", "READ", "TARGET", "Limits", "places", "raise_descriptor_limit"]

# Octets of a request's head; the longest bearer tokens and cookies need a quarter of it. RFC 9110 section 4.1 asks for
# at least 8,000 octets of request target.
HEAD: Final = 32 * 1024
TARGET: Final = 16 * 1024
READ: Final = 64 * 1024  # octets that are read at once, and that a client may send ahead of its turn
_RESERVE: Final = 256  # descriptors for database, edges, webhooks and files; a quarter where there are few
_MOST: Final = 10_000  # connections at once, however many descriptors there are: each costs some 50 kB with TLS


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a connection, in seconds. None of them ends a long answer that its reader takes.

    Attributes:
        handshake: for TLS.
        head: from its first octet to its end.
        body: without an octet of a body that was announced.
        body_rate: octets a second that a body must reach beyond `body` seconds of waiting for it.
        idle: between two requests.
        stall: of a peer that takes nothing of its answer.
        linger: for the rest of what a client sends, after an answer that ends the connection.
    """

    handshake: float = 10
    head: float = 15
    body: float = 30
    body_rate: float = 500
    idle: float = 75
    stall: float = 60
    linger: float = 2


def raise_descriptor_limit() -> int:
    """Raise the soft limit of this process's descriptors to the hard one, and say what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return _counted(soft)  # a sandbox forbids it; the soft limit is what we live with
    return _counted(hard)


def _counted(limit: int) -> int:
    return 2**30 if limit == resource.RLIM_INFINITY else limit


def places(descriptors: int, wanted: int = 0) -> int:
    """How many connections fit under a limit of descriptors, with what the rest of the hub needs set aside.

    Args:
        descriptors: that the process may have.
        wanted: no more than these; 0 for as many as is reasonable.
    """
    return max(1, min(wanted or _MOST, descriptors - min(_RESERVE, descriptors // 4)))
