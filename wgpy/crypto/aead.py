"""ChaCha20-Poly1305 with WireGuard's nonces: four zero octets and a 64-bit little-endian counter.

Source: RFC 8439; WireGuard whitepaper, section 5.4 (AEAD) and 5.4.6.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat
from operator import length_hint
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgpy.errors import BadPacket, DropReason

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TransportCipher", "generate_key", "open_untrusted", "seal"]


def generate_key() -> bytes:
    """32 octets for a new symmetric key, from the library's own generator."""
    return ChaCha20Poly1305.generate_key()


def seal(key: bytes, counter: int, plaintext: bytes, aad: bytes) -> bytes:
    """Seal one handshake field: the ciphertext and its tag of 16 octets.

    Args:
        key: 32 octets.
        counter: used once per key.
        plaintext: any length.
        aad: authenticated with it, not sent.
    """
    return ChaCha20Poly1305(key).encrypt(bytes(4) + counter.to_bytes(8, "little"), plaintext, aad)


def open_untrusted(key: bytes, counter: int, ciphertext: bytes, aad: bytes) -> bytes:
    """Open one handshake field.

    Raises:
        BadPacket: the tag is wrong.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(4) + counter.to_bytes(8, "little"), ciphertext, aad)
    except InvalidTag:
        raise BadPacket(DropReason.HANDSHAKE_UNDECRYPTABLE) from None


class TransportCipher:
    """One transport key. Works on whole batches of rows, in place; no Python statement runs per row."""

    __slots__ = ("_decrypt_into", "_encrypt_into")

    def __init__(self, key: bytes) -> None:
        """Prepare the key, 32 octets."""
        cipher = ChaCha20Poly1305(key)
        self._encrypt_into = cipher.encrypt_into
        self._decrypt_into = cipher.decrypt_into

    def seal_rows(
        self, nonces: Sequence[memoryview], plaintexts: Sequence[memoryview], outputs: Sequence[memoryview]
    ) -> None:
        """Seal every row.

        Args:
            nonces: 12 octets each.
            plaintexts: what is sealed.
            outputs: where it goes, 16 octets longer; may begin at the same octet as its plaintext.
        """
        deque(map(self._encrypt_into, nonces, plaintexts, repeat(None), outputs), maxlen=0)

    def seal_row(self, nonce: memoryview, plaintext: memoryview, output: memoryview) -> None:
        """`seal_rows` with one row."""
        self._encrypt_into(nonce, plaintext, None, output)

    def open_row(self, nonce: memoryview, ciphertext: memoryview, output: memoryview) -> bool:
        """`open_rows` with one row: whether its tag is right; if not, the output is zeroed."""
        try:
            self._decrypt_into(nonce, ciphertext, None, output)
        except InvalidTag:
            output[:] = bytes(len(output))
            return False
        return True

    def open_rows(
        self, nonces: Sequence[memoryview], ciphertexts: Sequence[memoryview], outputs: Sequence[memoryview]
    ) -> list[int]:
        """Open every row whose tag is right.

        Args:
            nonces: 12 octets each.
            ciphertexts: with their tags.
            outputs: where the plaintext goes, 16 octets shorter; may begin at the same octet as its ciphertext.

        Returns:
            The rows whose tag is wrong. Their outputs are zeroed: opening in place leaves unverified plaintext behind.
        """
        total = len(ciphertexts)
        failed: list[int] = []
        first = 0
        while first < total:
            # The iterator knows how far the batch got when a tag is wrong; counting would cost a call per row.
            left = iter(_from(nonces, first))
            try:
                deque(
                    map(self._decrypt_into, left, _from(ciphertexts, first), repeat(None), _from(outputs, first)),
                    maxlen=0,
                )
            except InvalidTag:
                bad = total - length_hint(left) - 1
                outputs[bad][:] = bytes(len(outputs[bad]))
                failed.append(bad)
                first = bad + 1
            else:
                break
        return failed


def _from(rows: Sequence[memoryview], first: int) -> Sequence[memoryview]:
    return rows[first:] if first else rows
