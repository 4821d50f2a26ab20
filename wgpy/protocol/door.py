"""The door in front of X25519: what a handshake message must show before it costs us a Diffie-Hellman (whitepaper 5.3).

One mac1 check on arrival, before anything is kept. Then a bounded queue, apart from transport data (trap T23). While
the queue says that we are under load, the sender must also prove that it receives at its address (mac2), or gets a
cookie reply; and a source that proved it may use up its own tokens only.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from wgpy.constants import (
    HANDSHAKE_QUEUE_SIZE,
    HANDSHAKE_TOS,
    UNDER_LOAD_HOLD,
    UNDER_LOAD_QUEUE,
)
from wgpy.errors import DropReason
from wgpy.noise.cookie import CookieChecker
from wgpy.protocol.ratelimit import RateLimiter

if TYPE_CHECKING:
    from wgpy.config import Endpoint
    from wgpy.protocol.shared import Shared

__all__ = ["HandshakeDoor", "Knock"]

# Messages looked at per call, under load: each costs a tenth of a handshake, so they must not stall transport either.
_LOOKS_PER_CALL: Final = 64
# Of these, how many get a cookie reply whoever sent them; the others, if none went to their address within a second. So
# a flood from a few hundred addresses costs a few hundred replies, and does not stand in the way of anybody else.
_REPLIES_PER_CALL: Final = 16
_ANSWERED_KEPT: Final = 4096


class Knock(NamedTuple):
    """One initiation or response that waits.

    Attributes:
        message: 148 or 92 octets, copied out of the receive buffer.
        remote: where it came from.
        local: where it was received.
    """

    message: bytes
    remote: Endpoint
    local: object | None


class HandshakeDoor:
    """Initiations and responses between arrival and processing."""

    __slots__ = ("_answered", "_answered_since", "_checker", "_limiter", "_loaded_until", "_queue", "_shared")

    def __init__(self, shared: Shared) -> None:
        """Start with nobody waiting."""
        self._shared = shared
        self._queue: deque[Knock] = deque()
        self._limiter = RateLimiter()
        self._loaded_until = float("-inf")
        # Addresses that got a cookie reply since a moment less than a second ago.
        self._answered: set[bytes] = set()
        self._answered_since = float("-inf")
        self._checker: CookieChecker | None = None
        self.identity_changed()

    def identity_changed(self) -> None:
        """Our public key is another one: mac1 is keyed with it, so whoever waits here knocked for somebody else."""
        key = self._shared.private_key
        self._checker = None if key is None else CookieChecker(bytes(key.public_key))
        self._queue.clear()

    def knock(self, message: bytes, remote: Endpoint, local: object | None) -> None:
        """Let an initiation or response of the right size wait, if its mac1 is right and there is room."""
        checker = self._checker
        if checker is None:
            self._shared.drop(DropReason.INTERFACE_DOWN)
        elif len(self._queue) >= HANDSHAKE_QUEUE_SIZE:
            self._shared.drop(DropReason.HANDSHAKE_QUEUE_FULL)
        elif not checker.check_mac1(message):
            self._shared.drop(DropReason.INVALID_MAC1)
        else:
            self._queue.append(Knock(message, remote, local))

    def admit(self, now: float) -> Knock | None:
        """The next one that may cost us a handshake; cookie replies to those before it go to the outbox.

        Returns:
            None when nobody waits, or when enough was done for one call: `is_waiting` tells.
        """
        queue, checker = self._queue, self._checker
        replies = 0
        for _ in range(_LOOKS_PER_CALL):
            if not queue or checker is None:
                return None
            is_loaded = self.is_under_load(now)
            knock = queue.popleft()
            if not is_loaded:
                return knock
            source = knock.remote.packed
            random = self._shared.random
            if not checker.check_mac2(knock.message, source, now, random):
                if not self._is_fresh(source[:-2], now) and replies >= _REPLIES_PER_CALL:
                    self._shared.drop(DropReason.COOKIE_WITHHELD)
                    continue
                replies += 1
                self._shared.drop(DropReason.INVALID_MAC2)
                reply = checker.create_reply(knock.message, source, now, random)
                tos = HANDSHAKE_TOS if self._shared.copies_ecn else 0
                self._shared.send_message(reply, knock.remote, knock.local, tos, None)
            elif not self._limiter.allow(source[:-2], now):
                # Without a reply: whoever used up its tokens knows how to come back (lesson S7).
                self._shared.drop(DropReason.RATE_LIMITED)
            else:
                return knock
        return None

    def _is_fresh(self, address: bytes, now: float) -> bool:
        """Whether no cookie reply went to an address lately; from now on one did."""
        if now - self._answered_since >= 1.0:
            self._answered.clear()
            self._answered_since = now
        if address in self._answered or len(self._answered) >= _ANSWERED_KEPT:
            return False
        self._answered.add(address)
        return True

    def is_under_load(self, now: float) -> bool:
        """Whether mac2 is demanded now: the queue is an eighth full, or was within the last second."""
        if len(self._queue) >= UNDER_LOAD_QUEUE:
            self._loaded_until = now + UNDER_LOAD_HOLD
            return True
        return now < self._loaded_until

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def clear(self) -> None:
        """The interface went down: send everybody away."""
        self._queue.clear()

    def sweep(self, now: float) -> None:
        """Forget sources that have been silent."""
        self._limiter.sweep(now)

    def sweep_deadline(self) -> float | None:
        """When `sweep` has something to do."""
        return self._limiter.sweep_deadline()
