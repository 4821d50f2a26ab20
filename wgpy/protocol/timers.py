"""The timers of one peer, fed with facts; the whitepaper's section 6 in one file.

    retransmit      an initiation was sent and not answered within REKEY_TIMEOUT: send another, at most 90 s long (6.4)
    keepalive       data was received and nothing sent for KEEPALIVE_TIMEOUT: send an empty packet, so that the other
    end
                    does not take our silence for a dead path (6.5)
    new handshake   data was sent and nothing received for KEEPALIVE_TIMEOUT + REKEY_TIMEOUT: the path or the keys are
                    gone, shake hands again (6.2)
    zero keys       no new session for 3 * REJECT_AFTER_TIME: forget all key material (6.3)
    persistent      the operator asked for a packet every N seconds, to hold a NAT mapping open
    session         the newest session reached REJECT_AFTER_TIME: worth an event, no datagram

A deadline is a plain float, NEVER when its timer does not run. Nothing here asks for the time: every fact brings `now`.
"""

from __future__ import annotations

import enum
from typing import Final

from wgpy.constants import (
    KEEPALIVE_TIMEOUT,
    MAX_TIMER_HANDSHAKES,
    NEW_HANDSHAKE_TIMEOUT,
    REJECT_AFTER_TIME,
    REKEY_TIMEOUT,
    ZERO_KEY_TIMEOUT,
)

__all__ = ["NEVER", "Due", "PeerTimers"]

NEVER: Final = float("inf")


class Due(enum.Enum):
    """What a timer asks for when it runs out."""

    RETRY_HANDSHAKE = enum.auto()
    GIVE_UP = enum.auto()
    KEEPALIVE = enum.auto()
    KEEPALIVE_AGAIN = enum.auto()
    NEW_HANDSHAKE = enum.auto()
    ZERO_KEYS = enum.auto()
    PERSISTENT_KEEPALIVE = enum.auto()
    SESSION_EXPIRED = enum.auto()


class PeerTimers:
    """Deadlines of one peer.

    Attributes:
        attempts: retries since anybody wanted the peer; more than so many are too many.
        unanswered: initiations that left since a handshake completed.
        persistent_interval: seconds, 0 when off.
    """

    __slots__ = (
        "attempts",
        "keepalive_at",
        "needs_another_keepalive",
        "new_handshake_at",
        "persistent_at",
        "persistent_interval",
        "retransmit_at",
        "session_expires_at",
        "unanswered",
        "zero_keys_at",
    )

    def __init__(self) -> None:
        """Start with nothing running."""
        self.attempts = 0
        self.unanswered = 0
        self.persistent_interval = 0
        self.persistent_at = NEVER
        self.zero_keys_at = NEVER
        self.session_expires_at = NEVER
        self.retransmit_at = NEVER
        self.keepalive_at = NEVER
        self.new_handshake_at = NEVER
        self.needs_another_keepalive = False

    # --- facts, in the order of a session's life ---------------------------------------------------------------------

    def handshake_initiated(self, now: float, jitter: float, *, is_retry: bool) -> None:
        """An initiation left. `jitter` keeps two ends that started together from colliding for ever (6.1)."""
        self.attempts = self.attempts + 1 if is_retry else 0
        self.unanswered += 1
        self.retransmit_at = now + REKEY_TIMEOUT + jitter

    def handshake_completed(self) -> None:
        """A response was accepted, or the first data confirmed a session that we answered."""
        self.retransmit_at = NEVER
        self.attempts = self.unanswered = 0

    def session_created(self, now: float) -> None:
        """A keypair took a slot."""
        self.zero_keys_at = now + ZERO_KEY_TIMEOUT
        self.session_expires_at = now + REJECT_AFTER_TIME

    def data_sent(self, now: float, jitter: float) -> None:
        """A packet that is not a keepalive left. Counted from the FIRST unanswered one, so a running timer stays."""
        if self.new_handshake_at == NEVER:
            self.new_handshake_at = now + NEW_HANDSHAKE_TIMEOUT + jitter

    def data_received(self, now: float) -> None:
        """An authenticated packet that is not a keepalive arrived."""
        if self.keepalive_at == NEVER:
            self.keepalive_at = now + KEEPALIVE_TIMEOUT
        else:
            self.needs_another_keepalive = True

    def keepalive_again(self, now: float) -> None:
        """More data came while the keepalive that just left was waiting: it answered the first of it only."""
        self.keepalive_at = now + KEEPALIVE_TIMEOUT

    def authenticated_sent(self, now: float) -> None:
        """Anything that the other end can authenticate left: data, keepalive, initiation or response."""
        self.keepalive_at = NEVER
        self.needs_another_keepalive = False
        if self.persistent_interval:
            self.persistent_at = now + self.persistent_interval

    def authenticated_received(self, now: float) -> None:
        """Anything that we authenticated arrived."""
        self.new_handshake_at = NEVER
        if self.persistent_interval:
            self.persistent_at = now + self.persistent_interval

    # --- settings ----------------------------------------------------------------------------------------------------

    def set_persistent_interval(self, seconds: int, now: float) -> None:
        """Ask for a packet every so many seconds; 0 stops it."""
        self.persistent_interval = seconds
        self.persistent_at = now + seconds if seconds else NEVER

    def postpone_retry(self, until: float) -> None:
        """A due retry met the gate of one initiation per REKEY_TIMEOUT: try when it opens.

        The Linux driver leaves the timer off here, and the handshake then waits for the next packet.
        """
        self.retransmit_at = until

    def stop(self) -> None:
        """The interface went down: nothing runs."""
        self.retransmit_at = self.keepalive_at = self.new_handshake_at = NEVER
        self.zero_keys_at = self.persistent_at = self.session_expires_at = NEVER
        self.needs_another_keepalive = False
        self.attempts = self.unanswered = 0

    # --- deadlines ---------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """The earliest deadline, NEVER if none runs."""
        return min(
            self.keepalive_at,
            self.new_handshake_at,
            self.persistent_at,
            self.retransmit_at,
            self.session_expires_at,
            self.zero_keys_at,
        )

    def expire(self, now: float) -> list[Due]:
        """Stop every timer that has run out and say what it asks for, in the order in which it must be done.

        Wiping comes before anything that sends, so that nothing leaves on keys that should be gone.
        """
        due: list[Due] = []
        if self.session_expires_at <= now:
            self.session_expires_at = NEVER
            due.append(Due.SESSION_EXPIRED)
        if self.zero_keys_at <= now:
            self.zero_keys_at = NEVER
            due.append(Due.ZERO_KEYS)
        if self.retransmit_at <= now:
            self.retransmit_at = NEVER
            if self.attempts > MAX_TIMER_HANDSHAKES:
                self.keepalive_at = NEVER
                if self.zero_keys_at == NEVER:
                    self.zero_keys_at = now + ZERO_KEY_TIMEOUT
                due.append(Due.GIVE_UP)
            else:
                due.append(Due.RETRY_HANDSHAKE)
        if self.new_handshake_at <= now:
            self.new_handshake_at = NEVER
            due.append(Due.NEW_HANDSHAKE)
        if self.keepalive_at <= now:
            self.keepalive_at = NEVER
            due.append(Due.KEEPALIVE_AGAIN if self.needs_another_keepalive else Due.KEEPALIVE)
            self.needs_another_keepalive = False
        if self.persistent_at <= now:
            # Armed again even when no packet can leave now, for want of an endpoint or of the gate.
            self.persistent_at = now + self.persistent_interval
            due.append(Due.PERSISTENT_KEEPALIVE)
        return due
