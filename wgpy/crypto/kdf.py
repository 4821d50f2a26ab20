"""BLAKE2s in its three roles: hash of the transcript, keyed MAC of mac1 and mac2, and HMAC in the key derivation.

Keyed BLAKE2s and HMAC-BLAKE2s are two different things; WireGuard uses both (trap T4).

Source: WireGuard whitepaper, section 5.4; RFC 7693; RFC 2104; RFC 5869 for the shape of the derivation.
"""

from __future__ import annotations

import hashlib
import hmac

__all__ = ["blake2s_hash", "hmac_blake2s", "kdf1", "kdf2", "kdf3", "mac"]


def blake2s_hash(*parts: bytes) -> bytes:
    """BLAKE2s-256 of the concatenated parts: 32 octets."""
    return hashlib.blake2s(b"".join(parts)).digest()


def mac(key: bytes, data: bytes | memoryview) -> bytes:
    """Keyed BLAKE2s: 16 octets.

    Args:
        key: up to 32 octets.
        data: what is authenticated.
    """
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def hmac_blake2s(key: bytes, data: bytes) -> bytes:
    """HMAC over BLAKE2s-256: 32 octets."""
    return hmac.digest(key, data, hashlib.blake2s)


def kdf1(key: bytes, data: bytes) -> bytes:
    """The first output of the derivation: 32 octets."""
    return hmac_blake2s(hmac_blake2s(key, data), b"\x01")


def kdf2(key: bytes, data: bytes) -> tuple[bytes, bytes]:
    """The first two outputs of the derivation, 32 octets each."""
    secret = hmac_blake2s(key, data)
    first = hmac_blake2s(secret, b"\x01")
    return first, hmac_blake2s(secret, first + b"\x02")


def kdf3(key: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
    """The first three outputs of the derivation, 32 octets each."""
    secret = hmac_blake2s(key, data)
    first = hmac_blake2s(secret, b"\x01")
    second = hmac_blake2s(secret, first + b"\x02")
    return first, second, hmac_blake2s(secret, second + b"\x03")
