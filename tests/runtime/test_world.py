"""Time and randomness: the clock counts suspended time, and is trio's mock one in tests; B36, S15."""

from __future__ import annotations

import time

import trio
import trio.testing

from wgpy.runtime import world


async def test_under_a_mock_clock_time_is_the_mocks(mock_clock: trio.testing.MockClock) -> None:
    start = world.now()
    mock_clock.jump(1000)
    assert world.now() == start + 1000 == trio.current_time()


def test_otherwise_it_is_the_one_that_counts_suspended_time() -> None:
    async def main() -> tuple[float, float, float]:
        return time.clock_gettime(time.CLOCK_BOOTTIME), world.now(), time.clock_gettime(time.CLOCK_BOOTTIME)

    before, now, after = trio.run(main)
    assert before <= now <= after


def test_s15_randomness_is_that_of_the_system() -> None:
    import secrets

    assert world.random is secrets.token_bytes
    assert len({world.random(32) for _ in range(10)}) == 10
