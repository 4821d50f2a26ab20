"""A node whose clock is wrong, before a real hub: row, log, readiness and doctor call it by its name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from hub_server.domain.reasons import Reason
from tests.edge.fakekube import open_kube
from tests.edge.test_cli import plain_environment, variables
from tests.hub.whole import edge_settings, redeem, whole_hub

HOUR = 3600


@pytest.mark.parametrize(("ahead", "words"), [(-HOUR, "behind"), (HOUR, "ahead of")])
async def test_a_wrong_clock_is_told_as_such(tmp_path: Path, ahead: int, words: str) -> None:
    """An hour back is the worse one: the hub takes handshakes of an older time for replayed ones."""
    clock, log = tmp_path / "clock", tmp_path / "log"
    clock.write_text("0")
    async with open_kube() as kube, whole_hub(tmp_path) as whole:
        invite = await whole.invite()
        settings = edge_settings(whole, kube, tmp_path / "edge", invite.token)
        assert (await redeem(settings))[0] == 0
        environment = plain_environment(variables(settings))
        program = [sys.executable, "-m", "tests.edge.set_clock", str(clock)]

        async def is_told() -> bool:
            return (await whole.row(invite.cluster_id)).reason is Reason.CLOCK_SKEW

        async def is_well() -> bool:
            row = await whole.row(invite.cluster_id)
            return (row.phase, row.reason) == ("connected", None)

        async def run() -> None:
            with log.open("ab") as out:
                await trio.run_process([*program, "run"], env=environment, check=False, stderr=out)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await whole.until(is_well)
            # While it runs: the session goes on, and the edge knows by itself what became of the hub's time.
            clock.write_text(str(ahead))
            await whole.until(is_told)
            clock.write_text("0")
            await whole.until(is_well)
            nursery.cancel_scope.cancel()
        clock.write_text(str(ahead))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            with trio.fail_after(120):
                await whole.until(is_told)
            assert f"60 min {words} the hub's" in (await whole.row(invite.cluster_id)).detail
            assert f"ClockSkew: the clock of this node is 60 min {words}" in log.read_text()
            done = await trio.run_process([*program, "doctor"], env=environment, check=False, capture_stdout=True)
            [line] = [one for one in done.stdout.decode().splitlines() if one.startswith("FAIL clock:")]
            assert "wrong by more than 10 minutes" in line
            assert ("-3" if ahead < 0 else "+3") in line  # 3,600, or a second less
            clock.write_text("0")
            await whole.until(is_well)
            nursery.cancel_scope.cancel()
