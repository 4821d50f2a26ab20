"""BLAKE2s against RFC 7693, HMAC against RFC 2104 and the standard library, the derivation against its definition.

T4: the MACs are keyed BLAKE2s of 16 octets, the derivation is HMAC-BLAKE2s; they are not the same thing.
"""

from __future__ import annotations

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import load
from wgpy.constants import CONSTRUCTION, IDENTIFIER
from wgpy.crypto.kdf import blake2s_hash, hmac_blake2s, kdf1, kdf2, kdf3, mac

VECTORS = load("blake2s")


def test_rfc_7693_appendix_b() -> None:
    assert blake2s_hash(b"abc") == VECTORS["abc"]
    assert blake2s_hash(b"a", b"", b"bc") == VECTORS["abc"]


def sequence(length: int, seed: int) -> bytes:
    """RFC 7693 appendix E: a Fibonacci generator."""
    a, b = 0xDEAD4BAD * seed & 0xFFFFFFFF, 1
    out = bytearray()
    for _ in range(length):
        a, b = b, (a + b) & 0xFFFFFFFF
        out.append(b >> 24)
    return bytes(out)


def test_rfc_7693_appendix_e() -> None:
    """The self-test hashes every digest size, with and without key, into one digest; `mac` does those of 16 octets."""
    whole = hashlib.blake2s()
    for size in (16, 20, 28, 32):
        for length in (0, 3, 64, 65, 255, 1024):
            message, key = sequence(length, length), sequence(size, size)
            plain = blake2s_hash(message) if size == 32 else hashlib.blake2s(message, digest_size=size).digest()
            keyed = mac(key, message) if size == 16 else hashlib.blake2s(message, key=key, digest_size=size).digest()
            whole.update(plain + keyed)
    assert whole.digest() == VECTORS["selftest"]


def by_hand(key: bytes, message: bytes) -> bytes:
    """RFC 2104 with the block size of BLAKE2s, 64 octets."""
    block = (blake2s_hash(key) if len(key) > 64 else key).ljust(64, b"\0")
    inner = blake2s_hash(bytes(octet ^ 0x36 for octet in block), message)
    return blake2s_hash(bytes(octet ^ 0x5C for octet in block), inner)


@given(st.binary(max_size=100), st.binary(max_size=200))
def test_hmac_is_that_of_rfc_2104_and_of_the_standard_library(key: bytes, message: bytes) -> None:
    assert hmac_blake2s(key, message) == by_hand(key, message) == hmac.new(key, message, hashlib.blake2s).digest()


@given(st.binary(min_size=1, max_size=32), st.binary(max_size=64))
def test_t4_keyed_blake2s_is_not_hmac(key: bytes, message: bytes) -> None:
    assert len(mac(key, message)) == 16
    assert mac(key, message) != hmac_blake2s(key, message)[:16]


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=64))
def test_the_derivation_is_a_chain_and_its_forms_agree(key: bytes, message: bytes) -> None:
    """Protocol notes 1.5: t0 = HMAC(key, input); t(i) = HMAC(t0, t(i-1) || i)."""
    t0 = by_hand(key, message)
    t1 = by_hand(t0, b"\1")
    t2 = by_hand(t0, t1 + b"\2")
    t3 = by_hand(t0, t2 + b"\3")
    assert kdf1(key, message) == t1
    assert kdf2(key, message) == (t1, t2)
    assert kdf3(key, message) == (t1, t2, t3)


def test_the_first_chaining_key_and_hash_of_the_whitepaper() -> None:
    """Whitepaper 5.4; the numbers are also those that wireguard-go and the kernel compute."""
    chaining_key = blake2s_hash(CONSTRUCTION)
    assert chaining_key.hex() == "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36"
    expected = "2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3"
    assert blake2s_hash(chaining_key, IDENTIFIER).hex() == expected
