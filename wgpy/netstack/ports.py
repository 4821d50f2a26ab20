"""Local ports that others cannot guess, and initial sequence numbers and timestamps likewise.

Source: RFC 6056 section 3.3.3 (a keyed offset for each destination), RFC 6528 section 3, RFC 7323 section 7.1.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from wgpy.netstack.constants import EPHEMERAL_FIRST, EPHEMERAL_LAST

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Secret", "choose_port"]

_PORTS: Final = EPHEMERAL_LAST - EPHEMERAL_FIRST + 1
_ISN_TICKS_PER_SECOND: Final = 250_000  # RFC 9293 3.4.1: a clock of 4 microseconds


class Secret:
    """The key of one stack, from which everything unpredictable is derived.

    A peer may remember a connection that an earlier process had on the same ports, and takes a new one for old packets
    when its numbers are smaller (RFC 6191). So one program that is started again goes on counting where it would be by
    now: with the same key, and by a clock that all its processes share.
    """

    __slots__ = ("_counter", "_epoch", "_key")

    def __init__(self, random: Callable[[int], bytes], key: bytes | None = None, epoch: float = 0.0) -> None:
        """Make it.

        Args:
            random: gives so many random octets.
            key: 32 octets that outlast the process; None to draw them.
            epoch: what makes the stack's time one that outlasts the process, seconds to be added.
        """
        self._key = random(32) if key is None else key
        self._epoch = epoch
        self._counter = int.from_bytes(random(2))

    def number(self, purpose: bytes, what: bytes, size: int = 4) -> int:
        """A number of so many octets that depends on the key, the purpose and the octets given."""
        digest = hashlib.blake2s(what, key=self._key, person=purpose, digest_size=size).digest()
        return int.from_bytes(digest)

    def initial_sequence(self, flow: bytes, now: float) -> int:
        """RFC 6528: a clock, so that reincarnations follow each other, and a hash, so that strangers know nothing."""
        return (int((now + self._epoch) * _ISN_TICKS_PER_SECOND) + self.number(b"isn", flow)) & 0xFFFFFFFF

    def timestamp_offset(self, flow: bytes) -> int:
        """What the milliseconds of a connection begin with: they must not tell for how long we have been up."""
        return self.number(b"timestmp", flow) + int(self._epoch * 1000)

    def first_port(self, local: bytes, remote: bytes, remote_port: int) -> int:
        """Where to begin to look for a free port (RFC 6056, algorithm 3)."""
        self._counter += 1
        offset = self.number(b"port", local + remote + remote_port.to_bytes(2))
        return EPHEMERAL_FIRST + (offset + self._counter) % _PORTS


def choose_port(first: int, is_free: Callable[[int], bool]) -> int | None:
    """The first free port from `first` on, around the range; None when there is none."""
    for step in range(_PORTS):
        port = EPHEMERAL_FIRST + (first - EPHEMERAL_FIRST + step) % _PORTS
        if is_free(port):
            return port
    return None
