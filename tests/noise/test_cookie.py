"""mac1, mac2, cookie replies: T3 to T7, B5 to B8, S8, S16."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.behaviours import forge
from wgpy.constants import COOKIE_MAX_AGE, COOKIE_SECRET_MAX_AGE
from wgpy.errors import BadPacket, DropReason
from wgpy.keys import PublicKey
from wgpy.noise.cookie import CookieChecker, CookieMaker

KEY = bytes(range(32))
HERE, OTHER_PORT, OTHER_HOST = b"\xc0\0\2\1\xca\x6c", b"\xc0\0\2\1\xca\x6d", b"\xc0\0\2\2\xca\x6c"
BODY = bytes(range(116))


def counting() -> object:
    """Randomness that never repeats and can be told apart."""
    state = iter(range(1, 256))
    return lambda count: bytes([next(state)]) * count


@pytest.fixture
def checker() -> CookieChecker:
    return CookieChecker(KEY)


@pytest.fixture
def maker() -> CookieMaker:
    return CookieMaker(KEY)


@given(st.binary(min_size=60, max_size=116))
def test_t3_t4_the_macs_are_those_of_the_whitepaper(body: bytes) -> None:
    """Section 5.4.4: the key is the receiver's public key; without a cookie mac2 is zero (T5)."""
    message = CookieMaker(KEY).add_macs(body, 0.0)
    assert message == forge.with_macs(body, PublicKey(KEY))
    assert message[-16:] == bytes(16)
    assert CookieChecker(KEY).check_mac1(message)
    assert not CookieChecker(bytes(32)).check_mac1(message)


@given(st.integers(0, 131), st.integers(0, 7))
def test_b5_mac1_covers_every_bit_before_it_and_none_after_it(position: int, bit: int) -> None:
    message = bytearray(CookieMaker(KEY).add_macs(BODY, 0.0))
    message[-1] ^= 1  # mac2: not covered
    assert CookieChecker(KEY).check_mac1(bytes(message))
    message[position] ^= 1 << bit
    assert not CookieChecker(KEY).check_mac1(bytes(message))


def with_cookie(checker: CookieChecker, maker: CookieMaker, source: bytes, now: float, random: object) -> bytes:
    """Refuse a message, take the reply, and give the next message."""
    refused = maker.add_macs(BODY, now)
    assert not checker.check_mac2(refused, source, now, random)
    maker.consume_reply_untrusted(checker.create_reply(refused, source, now, random), now)
    return maker.add_macs(BODY, now)


def test_b7_a_cookie_is_bound_to_address_and_port(checker: CookieChecker, maker: CookieMaker) -> None:
    """S8: both address and port are in it."""
    random = counting()
    message = with_cookie(checker, maker, HERE, 0.0, random)
    assert checker.check_mac2(message, HERE, 1.0, random)
    assert not checker.check_mac2(message, OTHER_PORT, 1.0, random)
    assert not checker.check_mac2(message, OTHER_HOST, 1.0, random)
    assert not checker.check_mac2(message[:-17] + b"\0" + message[-16:], HERE, 1.0, random), "mac2 covers mac1 (T5)"


def test_b7_the_secret_lives_120_s_and_a_cookie_is_used_for_115_s(checker: CookieChecker, maker: CookieMaker) -> None:
    random = counting()
    message = with_cookie(checker, maker, HERE, 0.0, random)
    assert checker.check_mac2(message, HERE, COOKIE_SECRET_MAX_AGE - 0.001, random)
    assert not checker.check_mac2(message, HERE, COOKIE_SECRET_MAX_AGE, random)
    assert maker.add_macs(BODY, COOKIE_MAX_AGE - 0.001)[-16:] != bytes(16)
    assert maker.add_macs(BODY, COOKIE_MAX_AGE)[-16:] == bytes(16)


def test_t6_a_cookie_reply_echoes_the_index_and_is_sealed_with_mac1(checker: CookieChecker, maker: CookieMaker) -> None:
    refused = maker.add_macs(BODY, 0.0)
    reply = checker.create_reply(refused, HERE, 0.0, counting())
    assert len(reply) == 64
    assert reply[:4] == b"\3\0\0\0"
    assert reply[4:8] == refused[4:8]
    cookie = forge.cookie_of(reply, PublicKey(KEY), refused[-32:-16])
    assert forge.with_macs(BODY, PublicKey(KEY), cookie) == with_reply(maker, reply)


def with_reply(maker: CookieMaker, reply: bytes) -> bytes:
    maker.consume_reply_untrusted(reply, 0.0)
    return maker.add_macs(BODY, 0.0)


def test_t7_only_one_reply_to_the_mac1_sent_last_is_taken(checker: CookieChecker, maker: CookieMaker) -> None:
    random = counting()
    with pytest.raises(BadPacket) as raised:
        maker.consume_reply_untrusted(checker.create_reply(BODY + bytes(32), HERE, 0.0, random), 0.0)
    assert raised.value.reason is DropReason.COOKIE_UNEXPECTED, "nothing was sent yet"
    older = checker.create_reply(maker.add_macs(BODY, 0.0), HERE, 0.0, random)
    newer = checker.create_reply(maker.add_macs(BODY[::-1], 0.0), HERE, 0.0, random)
    with pytest.raises(BadPacket) as raised:
        maker.consume_reply_untrusted(older, 0.0)
    assert raised.value.reason is DropReason.COOKIE_UNDECRYPTABLE
    maker.consume_reply_untrusted(newer, 0.0)
    with pytest.raises(BadPacket) as raised:
        maker.consume_reply_untrusted(newer, 0.0)
    assert raised.value.reason is DropReason.COOKIE_UNEXPECTED


@given(st.integers(8, 63), st.integers(0, 7))
def test_b8_a_damaged_cookie_reply_changes_nothing(position: int, bit: int) -> None:
    checker, maker = CookieChecker(KEY), CookieMaker(KEY)
    reply = checker.create_reply(maker.add_macs(BODY, 0.0), HERE, 0.0, counting())
    damaged = bytearray(reply)
    damaged[position] ^= 1 << bit
    with pytest.raises(BadPacket):
        maker.consume_reply_untrusted(bytes(damaged), 0.0)
    maker.consume_reply_untrusted(reply, 0.0)
    assert maker.add_macs(BODY, 0.0)[-16:] != bytes(16)


def test_s16_macs_are_compared_in_constant_time(checker: CookieChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(len(a))
        return a == b

    monkeypatch.setattr("wgpy.noise.cookie.hmac.compare_digest", compare)
    message = CookieMaker(KEY).add_macs(BODY, 0.0)
    checker.check_mac1(message)
    checker.check_mac2(message, HERE, 0.0, counting())
    assert compared == [16, 16]
