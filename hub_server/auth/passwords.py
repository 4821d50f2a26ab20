"""Passwords: argon2id, in worker threads, a few at a time, since each takes tens of megabytes and milliseconds."""

from __future__ import annotations

import secrets

import trio
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_LENGTH, MAX_LENGTH = 12, 200
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike


class Passwords:
    """Hashes and checks."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        """Take a hasher; tests take a cheap one."""
        self._hasher = hasher or PasswordHasher()
        self._limiter = trio.CapacityLimiter(2)
        # What a wrong address is compared with, so that it takes as long as a wrong password.
        self._decoy = self._hasher.hash(secrets.token_urlsafe())

    def hash_here(self, password: str) -> str:
        """Hash on the calling thread, for commands."""
        return self._hasher.hash(password)

    async def hash(self, password: str) -> str:
        """Hash a password."""
        return await trio.to_thread.run_sync(self._hasher.hash, password, limiter=self._limiter)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Check a password; with nothing stored it takes as long and is False."""
        matches = await trio.to_thread.run_sync(self._verify, stored or self._decoy, password, limiter=self._limiter)
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
