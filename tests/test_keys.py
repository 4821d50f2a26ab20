"""Keys as values; T29, S16, B64, and the text form of protocol notes 3.7."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.strategies import key_octets
from wgpy.errors import ConfigError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

KINDS = [PrivateKey, PublicKey, PresharedKey]
Key = PrivateKey | PublicKey | PresharedKey


def text_of(key: Key) -> str:
    return str(key) if isinstance(key, PublicKey) else key.to_base64()


@pytest.mark.parametrize("kind", KINDS)
@given(octets=key_octets)
def test_octets_and_base64_say_the_same(kind: type[Key], octets: bytes) -> None:
    key = kind(octets)
    assert text_of(key) == base64.b64encode(bytes(key)).decode()
    assert kind(text_of(key)) == key
    assert kind is PrivateKey or bytes(key) == octets


@pytest.mark.parametrize("kind", KINDS)
@given(octets=key_octets, extra=st.integers(1, 3))
def test_stray_bits_in_the_last_character_are_refused(kind: type[Key], octets: bytes, extra: int) -> None:
    """As `wg` does; Python's decoder would let them pass."""
    text = base64.b64encode(octets).decode()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stray = text[:42] + alphabet[alphabet.index(text[42]) + extra] + "="
    assert base64.b64decode(stray) == octets
    with pytest.raises(ConfigError):
        kind(stray)


GOOD = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "value",
    [
        "", GOOD[:-1], GOOD + "=", GOOD[:-1] + "A", " " + GOOD[1:], GOOD[:20] + "\n" + GOOD[21:],
        GOOD[:20] + "-" + GOOD[21:],
        GOOD[:20] + "é" + GOOD[21:], b"", bytes(31), bytes(33),
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_not_repeated(kind: type[Key], value: str | bytes) -> None:
    with pytest.raises(ConfigError) as raised:
        kind(value)
    assert raised.value.field == kind.__name__
    assert not value or len(value) < 40 or str(value) not in str(raised.value)


def test_b64_a_private_key_shows_what_is_used() -> None:
    key = PrivateKey("/" * 42 + "8=")
    assert key.to_base64()[0] == "+"
    assert PrivateKey(bytes(key)).public_key == key.public_key


@pytest.mark.parametrize("kind", KINDS)
@given(octets=key_octets, other=key_octets)
def test_equality_is_that_of_octets_and_of_kind(kind: type[Key], octets: bytes, other: bytes) -> None:
    assert (kind(octets) == kind(other)) == (bytes(kind(octets)) == bytes(kind(other)))
    for another in KINDS:
        assert another is kind or kind(octets) != another(octets)


@pytest.mark.parametrize("kind", KINDS)
def test_s16_keys_are_compared_in_constant_time(kind: type[Key], monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("wgpy.keys.hmac.compare_digest", lambda a, b: compared.append((a, b)) is None)
    assert kind(bytes(32)) == kind(bytes(32))
    assert len(compared) == 1


def test_secrets_have_no_hash_and_public_keys_have() -> None:
    for kind in (PrivateKey, PresharedKey):
        with pytest.raises(TypeError):
            hash(kind(bytes(32)))
    assert len({PublicKey(bytes(32)), PublicKey(bytes(32))}) == 1


def test_an_all_zero_preshared_key_stands_for_none() -> None:
    assert PresharedKey(bytes(32)).is_zero
    assert not PresharedKey(b"\1" + bytes(31)).is_zero


def test_generated_keys_come_from_the_source_that_is_given() -> None:
    assert bytes(PresharedKey.generate(lambda count: b"\7" * count)) == b"\7" * 32
    assert PrivateKey.generate(lambda count: b"\7" * count) == PrivateKey(b"\7" * 32)
    assert PrivateKey.generate() != PrivateKey.generate()
    assert PresharedKey.generate() != PresharedKey.generate()
