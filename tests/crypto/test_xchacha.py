"""XChaCha20-Poly1305 against draft-irtf-cfrg-xchacha-03, and against HChaCha20 written out here."""

from __future__ import annotations

import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import load
from wgpy.crypto import xchacha
from wgpy.errors import BadPacket, DropReason

VECTORS = load("xchacha20poly1305")


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Section 2.2: twenty rounds of ChaCha without the final addition; the first and last rows are the subkey."""
    state = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), *struct.unpack("<4I", nonce)]

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for x, y, z, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            word = state[z] ^ state[x]
            state[z] = (word << bits | word >> (32 - bits)) & 0xFFFFFFFF

    for _ in range(10):
        for column in range(4):
            quarter(column, column + 4, column + 8, column + 12)
        for diagonal in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            quarter(*diagonal)
    return struct.pack("<8I", *state[:4], *state[12:])


def test_section_2_2_1_hchacha20() -> None:
    v = VECTORS["hchacha20"]
    assert hchacha20(v["key"], v["nonce"]) == v["subkey"]


def test_appendix_a_3_1_in_both_directions() -> None:
    v = VECTORS["aead"]
    sealed = v["ciphertext"] + v["tag"]
    assert xchacha.seal(v["key"], v["nonce"], v["plaintext"], v["aad"]) == sealed
    assert xchacha.open_untrusted(v["key"], v["nonce"], sealed, v["aad"]) == v["plaintext"]


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=24, max_size=24), st.binary(max_size=40), st.binary())
def test_it_is_chacha20poly1305_with_a_derived_key(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> None:
    """Section 2.3, with the other library doing the sealing."""
    expected = ChaCha20Poly1305(hchacha20(key, nonce[:16])).encrypt(bytes(4) + nonce[16:], plaintext, aad)
    assert xchacha.seal(key, nonce, plaintext, aad) == expected


@given(st.binary(min_size=32, max_size=32))
def test_octets_that_were_not_sealed_are_bad_packets(sealed: bytes) -> None:
    with pytest.raises(BadPacket) as raised:
        xchacha.open_untrusted(bytes(32), bytes(24), sealed, bytes(16))
    assert raised.value.reason is DropReason.COOKIE_UNDECRYPTABLE
