"""XChaCha20-Poly1305, for the cookie in a cookie reply and for nothing else.

Source: draft-irtf-cfrg-xchacha-03; WireGuard whitepaper, section 5.4.7.
"""

from __future__ import annotations

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from wgpy.errors import BadPacket, DropReason

__all__ = ["open_untrusted", "seal"]


def seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """The ciphertext and its tag of 16 octets.

    Args:
        key: 32 octets.
        nonce: 24 unpredictable octets.
        plaintext: any length.
        aad: authenticated with it, not sent.
    """
    return crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, aad, nonce, key)


def open_untrusted(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """The plaintext.

    Raises:
        BadPacket: the tag is wrong.
    """
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, aad, nonce, key)
    except CryptoError:
        raise BadPacket(DropReason.COOKIE_UNDECRYPTABLE) from None
