"""Who counts as one source, and how long a key waits."""

import pytest

from hub_server.auth.throttle import Failures, RateLimit, source_of


@pytest.mark.parametrize(
    ("remote", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix" * 50, ("unix" * 50)[:64]),
    ],
)
def test_a_source_is_an_address_or_a_64(remote: str, source: str) -> None:
    assert source_of(remote) == source


def test_failures_beyond_the_free_ones_double_the_wait_to_the_longest() -> None:
    failures = Failures(free=2, longest=10)
    waits = []
    for _ in range(8):
        waits.append(failures.wait_for("a", 0.0))
        failures.failed("a", 0.0)
    assert waits == [0, 0, 2, 4, 8, 10, 10, 10]
    assert failures.wait_for("b", 0.0) == 0
    assert failures.wait_for("a", 9.5) == 0.5
    failures.succeeded("a")
    assert failures.wait_for("a", 0.0) == 0


def test_long_after_the_last_failure_all_are_free_again() -> None:
    failures = Failures(free=1, longest=10)
    failures.failed("a", 0.0)
    failures.failed("a", 21.0)
    assert failures.wait_for("a", 21.0) == 2.0


def test_tables_are_bounded_and_forget_the_least_recent() -> None:
    failures, limit = Failures(free=1, longest=10, keys=3), RateLimit(rate=1, burst=1, keys=3)
    for key in "abacde":
        failures.failed(key, 0.0)
        limit.wait_for(key, 0.0)
    assert [failures.wait_for(key, 0.0) > 0 for key in "abcde"] == [False, False, True, True, True]
    assert [limit.wait_for(key, 0.0) > 0 for key in "cde"] == [True, True, True]


def test_a_bucket_is_refilled_at_its_rate_and_holds_no_more_than_its_burst() -> None:
    limit = RateLimit(rate=0.5, burst=3)
    assert [limit.wait_for("a", 10.0) for _ in range(5)] == [0, 0, 0, 2, 2]
    assert limit.wait_for("b", 10.0) == 0, "each key has its own"
    assert limit.wait_for("a", 11.0) == 1
    assert limit.wait_for("a", 12.0) == 0
    assert limit.wait_for("a", 12.0) == 2
    assert [limit.wait_for("a", 1000.0) for _ in range(4)] == [0, 0, 0, 2]
    assert limit.wait_for("a", 900.0) == 2, "a clock that goes back takes nothing away"


def test_a_failure_is_remembered_for_twice_the_longest_wait() -> None:
    failures = Failures(free=1, longest=10)
    failures.failed("a", 0.0)
    failures.failed("a", 20.0)
    assert failures.wait_for("a", 20.0) == 4.0, "the second in a row"
    assert failures.wait_for("a", 24.0) == 0
    failures.failed("a", 40.1)
    assert failures.wait_for("a", 40.1) == 2.0, "the first one again"


def test_failures_in_a_row_count_at_any_time_of_the_clock_and_a_stranger_may_succeed() -> None:
    failures = Failures(free=1, longest=10)
    failures.succeeded("nobody")
    failures.failed("a", 1000.0)
    failures.failed("a", 1001.0)
    assert failures.wait_for("a", 1001.0) == 4.0
