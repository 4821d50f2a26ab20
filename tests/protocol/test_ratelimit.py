"""Token buckets against a list of what was allowed; S5, S7, S8, B72."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from wgpy.constants import RATELIMIT_MAX_SOURCES
from wgpy.protocol.ratelimit import RateLimiter


class Bucket:
    """Twenty a second in bursts of five, in exact fractions of seconds."""

    def __init__(self) -> None:
        self.credit, self.at = Fraction(1, 4), Fraction(0)

    def allow(self, now: Fraction) -> bool:
        self.credit = min(Fraction(1, 4), self.credit + now - self.at)
        self.at = now
        if self.credit < Fraction(1, 20):
            return False
        self.credit -= Fraction(1, 20)
        return True


# Multiples of a 64th of a second: exact as binary fractions, so that model and code round nothing differently near 0.
steps = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), max_size=120)


@given(steps)
@settings(max_examples=150)
def test_every_source_has_its_own_bucket(sequence: list[tuple[int, int]]) -> None:
    limiter, buckets, now = RateLimiter(), {}, Fraction(0)
    for source, step in sequence:
        now += Fraction(step, 64)
        bucket = buckets.setdefault(source, Bucket())
        near = abs(min(Fraction(1, 4), bucket.credit + now - bucket.at) - Fraction(1, 20)) < Fraction(1, 10**9)
        allowed = limiter.allow(bytes([10, 0, 0, source]), float(now))
        if near:  # on the very edge a float may fall on either side
            bucket.credit, bucket.at = min(Fraction(1, 4), bucket.credit + now - bucket.at), now
            bucket.credit -= Fraction(1, 20) * allowed
        else:
            assert allowed == bucket.allow(now)


def test_a_burst_of_five_then_twenty_a_second() -> None:
    limiter = RateLimiter()
    assert [limiter.allow(bytes(4), 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    allowed = sum(limiter.allow(bytes(4), 0.001 * n) for n in range(1, 10_001))
    assert 199 <= allowed <= 201


def test_s8_an_ipv6_source_is_its_64() -> None:
    limiter = RateLimiter()
    prefix = bytes.fromhex("20010db800000001")
    assert sum(limiter.allow(prefix + number.to_bytes(8), 0.0) for number in range(100)) == 5
    assert limiter.allow(bytes.fromhex("20010db800000002") + bytes(8), 0.0)
    assert len(limiter) == 2


def test_s8_the_table_is_bounded_and_when_full_new_sources_are_refused() -> None:
    limiter = RateLimiter()
    for number in range(RATELIMIT_MAX_SOURCES + 500):
        allowed = limiter.allow(number.to_bytes(4), 0.0)
        assert allowed == (number < RATELIMIT_MAX_SOURCES)
    assert len(limiter) == RATELIMIT_MAX_SOURCES
    assert limiter.allow(bytes(4), 0.1), "a known one still has its tokens"
    assert limiter.sweep_deadline() == 1.0
    limiter.sweep(2.5)
    assert len(limiter) == 0
    assert limiter.sweep_deadline() is None
    assert limiter.allow(b"\xff\xff\xff\xff", 2.5)
