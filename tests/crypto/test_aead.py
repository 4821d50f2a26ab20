"""ChaCha20-Poly1305 against RFC 8439; T8."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import load
from wgpy.crypto import aead
from wgpy.errors import BadPacket, DropReason

VECTORS = load("chacha20poly1305")


def test_rfc_8439_appendix_a_5_in_both_directions() -> None:
    v = VECTORS["appendix A.5"]
    counter = int.from_bytes(v["nonce"][4:], "little")
    sealed = v["ciphertext"] + v["tag"]
    assert aead.open_untrusted(v["key"], counter, sealed, v["aad"]) == v["plaintext"]
    assert aead.seal(v["key"], counter, v["plaintext"], v["aad"]) == sealed


def test_rfc_8439_section_2_8_2_through_the_transport_cipher() -> None:
    """The keystream does not depend on the additional data that the vector has and transport data does not."""
    v = VECTORS["section 2.8.2"]
    output = bytearray(len(v["plaintext"]) + 16)
    aead.TransportCipher(v["key"]).seal_rows(
        [memoryview(v["nonce"])], [memoryview(v["plaintext"])], [memoryview(output)]
    )
    assert output[:-16] == v["ciphertext"]
    assert ChaCha20Poly1305(v["key"]).encrypt(v["nonce"], v["plaintext"], v["aad"])[-16:] == v["tag"]
    assert bytes(output) == ChaCha20Poly1305(v["key"]).encrypt(v["nonce"], v["plaintext"], None)


def test_t8_the_nonce_is_four_zero_octets_and_the_little_endian_counter() -> None:
    key, counter = bytes(range(32)), 0x0102030405060708
    expected = ChaCha20Poly1305(key).encrypt(bytes.fromhex("000000000807060504030201"), b"text", b"aad")
    assert aead.seal(key, counter, b"text", b"aad") == expected


@given(st.binary(min_size=16, max_size=80), st.integers(0, 2**64 - 1))
def test_octets_that_were_not_sealed_are_bad_packets(sealed: bytes, counter: int) -> None:
    with pytest.raises(BadPacket) as raised:
        aead.open_untrusted(bytes(32), counter, sealed, b"")
    assert raised.value.reason is DropReason.HANDSHAKE_UNDECRYPTABLE


@given(
    st.lists(st.binary(max_size=64), min_size=1, max_size=12),
    st.sets(st.integers(0, 11)),
    st.booleans(),
)
def test_rows_open_in_place_and_a_forged_one_is_zeroed_and_costs_itself_only(
    packets: list[bytes], forged: set[int], in_place: bool
) -> None:
    cipher = aead.TransportCipher(bytes(range(32)))
    nonces = [memoryview(bytes(4) + row.to_bytes(8, "little")) for row in range(len(packets))]
    sealed = [memoryview(bytearray(packet) + bytes(16)) for packet in packets]
    cipher.seal_rows(nonces, [row[:-16] for row in sealed], sealed)
    forged = {row for row in forged if row < len(packets)}
    for row in forged:
        sealed[row][-1] ^= 1
    opened = [row[:-16] for row in sealed] if in_place else [memoryview(bytearray(len(p))) for p in packets]
    assert cipher.open_rows(nonces, sealed, opened) == sorted(forged)
    for row, packet in enumerate(packets):
        assert bytes(opened[row]) == (bytes(len(packet)) if row in forged else packet)


@pytest.mark.parametrize("octet", [0, -17, -1], ids=["first", "last", "of the tag"])
def test_one_row_opens_in_place_and_is_zeroed_where_it_was_forged(octet: int) -> None:
    cipher, nonce = aead.TransportCipher(bytes(range(32))), memoryview(bytes(12))
    packet = bytes(range(1, 49))
    row = memoryview(bytearray(packet) + bytes(16))
    cipher.seal_row(nonce, row[:-16], row)
    sealed = bytes(row)
    row[octet] ^= 1
    assert not cipher.open_row(nonce, row, row[:-16])
    assert bytes(row[:-16]) == bytes(48), "unverified plaintext is left"
    row[:] = sealed
    assert cipher.open_row(nonce, row, row[:-16])
    assert bytes(row[:-16]) == packet


def test_generated_keys_differ() -> None:
    assert len({aead.generate_key() for _ in range(4)}) == 4
