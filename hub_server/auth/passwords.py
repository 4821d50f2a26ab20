"""Passwords: argon2id, in a few worker threads, since each takes tens of megabytes and milliseconds."""

from __future__ import annotations

import os
import secrets

import trio
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from hub_server.auth.turns import Turns

MIN_LENGTH, MAX_LENGTH = 12, 200
# One core is left for everybody else: the hub itself, above all.
AT_ONCE = max(1, min(8, len(os.sched_getaffinity(0)) - 1))
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike


class Passwords:
    """Hashes and checks."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        """Take a hasher; tests take a cheap one."""
        self._hasher = hasher or PasswordHasher()
        self._turns, self._threads = Turns(AT_ONCE), trio.CapacityLimiter(AT_ONCE)
        # What a wrong address is compared with, so that it takes as long as a wrong password.
        self._decoy = self._hasher.hash(secrets.token_urlsafe())

    def hash_here(self, password: str) -> str:
        """Hash on the calling thread, for commands."""
        return self._hasher.hash(password)

    async def hash(self, password: str, *, source: str = "") -> str:
        """Hash a password for somebody who is signed in. Raises Unavailable when too many wait."""
        async with self._turns.turn(source, known=True):
            return await trio.to_thread.run_sync(self._hasher.hash, password, limiter=self._threads)

    async def verify(self, stored: str | None, password: str, *, source: str, known: bool) -> bool:
        """Check a password; with nothing stored it takes as long and is False.

        Args:
            stored: the hash, None where there is none.
            password: what was typed.
            source: whose turn it is: where it was typed, or the session or device that is `known`.
            known: whether it comes from a session or device that signed in before.

        Raises:
            Unavailable: too many wait for their turn.
        """
        async with self._turns.turn(source, known=known):
            check = stored or self._decoy
            matches = await trio.to_thread.run_sync(self._verify, check, password, limiter=self._threads)
        return matches and stored is not None

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False


def check_password(password: str) -> str:
    """Return what is wrong with a new password, or the empty string."""
    if len(password) < MIN_LENGTH:
        return f"a password has at least {MIN_LENGTH} characters"
    if len(password) > MAX_LENGTH:
        return f"a password has at most {MAX_LENGTH} characters"
    return ""


def make_password() -> str:
    """A password to print once: 20 characters, 99 bits."""
    letters = [secrets.choice(_ALPHABET) for _ in range(20)]
    return "-".join("".join(letters[at : at + 5]) for at in range(0, 20, 5))
