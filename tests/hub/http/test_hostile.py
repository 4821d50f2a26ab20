"""A hub in a process of its own, under 1,024 descriptors, is attacked before anybody signs in; all is as before."""

from __future__ import annotations

import contextlib
import random
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.hub.http.hostile import DESCRIPTORS, Target, attack, attacked_hub, crowd, in_turn

SEED = random.SystemRandom().randrange(2**32)


@pytest.fixture(autouse=True)
def enough_descriptors() -> Iterator[None]:
    """The attacker needs more than the attacked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.asynccontextmanager
async def unharmed(target: Target) -> Iterator[None]:  # type: ignore[misc]
    """After the block the process is the same, holds no more than before, and answers."""
    await target.page()
    pid, descriptors = target.process.pid, target.descriptors
    yield
    assert target.is_alive, target.log.read_text()[-3000:]
    assert target.process.pid == pid
    assert await target.settled(descriptors + 5) <= descriptors + 5
    await target.page()
    log = target.log.read_text()
    assert "Traceback" not in log, log[-5000:]
    assert '"level": "error"' not in log, log[-5000:]


@pytest.mark.parametrize("with_tls", [True, False])
async def test_nothing_that_a_stranger_says_harms_it(tmp_path: Path, with_tls: bool) -> None:
    print(f"seed {SEED}")
    async with attacked_hub(tmp_path, with_tls=with_tls) as target, unharmed(target):
        await attack(target, SEED, 1500)
    assert len(target.log.read_text().splitlines()) < 60, "a line for each kind of thing and minute, not for each"


async def test_ten_thousand_in_turn_and_two_thousand_at_once(tmp_path: Path) -> None:
    async with attacked_hub(tmp_path, with_tls=False) as target, unharmed(target):
        await in_turn(target, 10_000)
        assert target.descriptors < 100, "closed is closed at once"
        async with crowd(target, 2000):
            assert target.descriptors < DESCRIPTORS - 200, "what the rest of the hub needs is never taken"
            await target.page()


async def test_two_thousand_at_once_in_the_middle_of_tls(tmp_path: Path) -> None:
    async with attacked_hub(tmp_path, with_tls=True) as target, unharmed(target), crowd(target, 2000):
        assert target.descriptors < DESCRIPTORS - 200
        await target.page()


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("with_tls", [True, False])
async def test_five_minutes_of_it_leave_nothing_behind(tmp_path: Path, with_tls: bool) -> None:
    print(f"seed {SEED}")
    async with attacked_hub(tmp_path, with_tls=with_tls) as target:
        await attack(target, SEED + 1, 10_000)
        await target.calm()
        memory = target.memory
        async with unharmed(target):
            with trio.move_on_after(300):
                await attack(target, SEED, 10**9)
            async with crowd(target, 2000):
                await target.page()
        await target.calm()
        assert target.memory < 1.1 * memory
