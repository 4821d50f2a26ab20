"""The hub's clock is set, ahead or back: durations stay what they were, and no time of the future counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from hub_server.domain import status
from hub_server.domain.status import Phase, Status
from hub_server.store import schema
from tests.hub.ground import Ground

HOUR, DAY = 3600.0, 86400.0


@pytest.mark.parametrize("by", [DAY, -DAY, HOUR, -HOUR, 3.0, -3.0])
async def test_a_row_lives_on_and_dies_in_its_time_when_the_clock_is_set(tmp_path: Path, by: float) -> None:
    hub = await Ground.make(tmp_path)
    beating, dead = await hub.connected("beating"), await hub.connected("dead")
    hub.clock.set_by(by)
    hub.presence.tick()
    assert [(await hub.row(one)).phase for one in (beating, dead)] == ["connected"] * 2
    await hub.wait(20, beat=beating)
    assert [(await hub.row(one)).phase for one in (beating, dead)] == ["connected", "disconnected"]
    row = await hub.row(dead)
    assert hub.clock() - row.since == pytest.approx(20, abs=1)
    assert [event.kind for event in await hub.events(beating)].count("tunnel.lost") == 0


@pytest.mark.parametrize("comes_first", ["tick", "beat", "goodbye"])
async def test_a_clock_a_day_ahead_and_back_keeps_no_dead_edge_connected(tmp_path: Path, comes_first: str) -> None:
    hub = await Ground.make(tmp_path)
    cluster = await hub.connected()
    for by in (DAY, -DAY):
        hub.clock.set_by(by)
        match comes_first:
            case "tick":
                hub.presence.tick()
            case "beat":
                hub.presence.beat(cluster, hub.clock(), 0.04, None)
            case "goodbye":
                hub.presence.goodbye("cl_other", hub.clock(), "")
        hub.presence.beat(cluster, hub.clock(), 0.04, None)
    await hub.wait(20)
    assert (await hub.row(cluster)).phase == "disconnected"
    assert (await hub.row(cluster)).last_seen == pytest.approx(hub.clock() - 20, abs=1)


async def test_an_outage_is_alerted_after_fifteen_minutes_of_a_clock_that_nobody_sets(tmp_path: Path) -> None:
    hub = await Ground.make(tmp_path)
    await hub.connected()
    await hub.wait(60)
    hub.clock.set_by(DAY)
    await hub.wait(60)
    assert await hub.alerts() == []
    hub.clock.set_by(-DAY)
    await hub.wait(12 * 60)
    assert await hub.alerts() == []
    await hub.wait(2 * 60)
    assert len(await hub.alerts()) == 1


async def test_what_was_stored_by_a_clock_ahead_is_taken_as_now_after_a_restart(tmp_path: Path) -> None:
    hub = await Ground.make(tmp_path)
    cluster = await hub.connected()

    def ahead(connection: Connection) -> None:
        times = {"since": hub.clock() + DAY, "last_seen": hub.clock() + DAY, "last_handshake": hub.clock() + DAY}
        connection.execute(update(schema.clusters).values(up_since=hub.clock() + DAY, **times))

    await hub.core.database.write(ahead)
    again = await Ground.make(tmp_path, clock=hub.clock, password=hub.password)
    row = await again.row(cluster)
    assert (row.phase, row.last_seen, row.last_handshake) == ("connected", again.clock(), again.clock())
    await again.wait(20)
    assert (await again.row(cluster)).phase == "disconnected"


async def test_a_session_last_used_in_the_future_ends_when_it_is_idle(tmp_path: Path) -> None:
    hub = await Ground.make(tmp_path, session_idle=1800)
    hub.clock.set_by(DAY / 4)
    signed_in = await hub.sign_in("admin@localhost", hub.password)
    hub.clock.set_by(-DAY / 4)
    assert await hub.services.accounts.actor_of_session(signed_in.cookie, remote="") is not None
    await hub.core.later.flush()
    hub.clock.forward(1801)
    assert await hub.services.accounts.actor_of_session(signed_in.cookie, remote="") is None


def test_readings_move_together_and_never_into_the_future() -> None:
    one = Status(Phase.CONNECTED, since=100.0, last_packet=150.0, up_since=100.0)
    back = status.moved(one, -50.0, 105.0)
    assert (back.since, back.last_packet, back.up_since, back.down_since) == (50.0, 100.0, 50.0, None)
    assert status.moved(one, 50.0, 160.0).last_packet == 160.0
