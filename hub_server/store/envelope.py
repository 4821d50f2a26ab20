"""Secrets at rest: sealed under a master key that lies beside the database, never in it."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

_NONCE = 12


class Envelope:
    """Seals preshared keys and the secrets of channels. The name of what is sealed is bound to it."""

    def __init__(self, master_key: bytes) -> None:
        """Take the 32 octets of the master key."""
        self._cipher = ChaCha20Poly1305(master_key)

    def seal(self, plaintext: bytes, name: str) -> bytes:
        """Seal; `name` says whose it is, so that a value copied to another row does not open."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, plaintext, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes:
        """Open what was sealed under the same name.

        Raises:
            ValueError: another master key or name, or altered.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], name.encode())
        except InvalidTag:
            raise ValueError("a sealed value does not open: is it the master key of this database?") from None
