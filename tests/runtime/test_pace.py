"""How much of the time handshakes get beside data."""

from __future__ import annotations

from wgpy.runtime.pace import HandshakePace

TURN = 0.002
FAST = 100_000_000


def share(octets_per_second: int, seconds: float = 2.0) -> float:
    """Of the time, what handshakes take that are always there, beside data of that rate."""
    pace = HandshakePace()
    now = worked = 0.0
    while now < seconds:
        if now < pace.resumes_at:
            now = pace.resumes_at
        now += TURN
        worked += TURN
        pace.spent(TURN, now, int(now * octets_per_second))
    return worked / now


def test_alone_they_get_all_the_time() -> None:
    assert share(0) == 1.0


def test_a_storm_of_honest_peers_brings_packets_with_it_and_is_not_held_up() -> None:
    assert share(4000 * 200) == 1.0


def test_beside_fast_data_they_get_a_twelfth() -> None:
    assert abs(share(FAST) - 1 / 12) < 0.01


def test_a_single_handshake_beside_fast_data_holds_up_nobody() -> None:
    pace = HandshakePace()
    pace.spent(0.0002, 1.0, FAST)
    assert pace.resumes_at <= 1.0


def test_data_that_flowed_long_ago_does_not_count_twice() -> None:
    pace = HandshakePace()
    pace.spent(TURN, 1.0, FAST)
    assert pace.resumes_at > 1.0
    pace.spent(TURN, 2.0, FAST)
    assert pace.resumes_at < 2.0
