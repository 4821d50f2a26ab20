"""What time does to a row, by a clock that the test sets: silence, the 15-minute alert, expiry, blocks, updates."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from hub_server.domain.errors import EdgeUnreachable
from hub_server.domain.records import Hello
from hub_server.services.views import ClusterQuery
from hub_server.store import schema
from tests.hub.clocked import REMOTE, Bench, Clock, clocked_hub
from tests.hub.edges import HELLO


def hello(**more: Any) -> Hello:
    """What an edge says of itself."""
    names = {field.name for field in dataclasses.fields(Hello)}
    values: dict[str, Any] = {name: value for name, value in (HELLO | more).items() if name in names}
    return Hello(**values)


async def test_a_tenant_without_clusters_hears_of_none(tmp_path: Path) -> None:
    """A1: an empty list, no alert, no event, an hour long."""
    async with clocked_hub(tmp_path) as hub:
        await hub.passes(3600, step=60)
        page = await hub.services.clusters.list(hub.admin, hub.tenant_id, ClusterQuery())
        counts = await hub.services.clusters.counts(hub.admin, hub.tenant_id)
        assert (page.items, page.total, counts.total, counts.needs_attention) == ((), 0, 0, 0)
        assert await hub.alerts() == []


async def test_silence_is_judged_by_beats(tmp_path: Path) -> None:
    """A18, D2: over 10 s reconnecting, over 15 s disconnected, at the limits; an hour of beats changes nothing."""
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined()
        before = await hub.events(cluster)
        await hub.passes(3600, beating=(cluster,))
        assert await hub.events(cluster) == before
        for silent, phase in ((10, "connected"), (11, "reconnecting"), (15, "reconnecting"), (16, "disconnected")):
            start = hub.clock.at
            await hub.passes(silent, step=1)
            row = await hub.row(cluster)
            assert (row.phase, row.last_seen) == (phase, start)
            hub.beat(cluster)
            assert (await hub.row(cluster)).phase == "connected"
        await hub.presence.flush()
        assert (await hub.events(cluster))[len(before) :] == [
            "tunnel.lost", "tunnel.restored", "tunnel.lost", "tunnel.restored",
            "tunnel.lost", "tunnel.disconnected", "tunnel.restored",
        ]  # fmt: skip
        assert await hub.alerts() == []


@pytest.mark.parametrize("how", ["silence", "goodbye"])
async def test_fifteen_minutes_of_silence_are_a_critical_alert(tmp_path: Path, how: str) -> None:
    """A31: none at 899 s, exactly one at 901 s from the last packet or goodbye; resolved once, after 60 s."""
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined()
        down = hub.clock.at
        if how == "goodbye":
            for _ in range(3):
                hub.presence.goodbye(cluster, down, "restarting")
        await hub.passes(899)
        assert await hub.alerts() == []
        await hub.passes(2, step=1)
        [alert] = await hub.alerts()
        assert (alert.kind, alert.severity, alert.down_since) == ("cluster_down", "critical", down)
        await hub.passes(3600)
        assert len(await hub.alerts()) == 1
        hub.presence.handshake_confirmed(cluster, REMOTE, hub.clock.at)
        await hub.passes(59, beating=(cluster,), step=1)
        assert len(await hub.alerts(open_only=True)) == 1
        await hub.passes(3600, beating=(cluster,))
        assert await hub.alerts(open_only=True) == []
        assert (await hub.events(cluster)).count("alert.resolved") == 1
        assert (await hub.row(cluster)).open_alerts == 0


async def test_flapping_neither_opens_nor_resolves(tmp_path: Path) -> None:
    """A31: 30 s up, 30 s down, an hour long, with none open and with one open."""
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined()

        async def flap() -> None:
            for _ in range(60):
                hub.beat(cluster)
                await hub.passes(30, beating=(cluster,))
                await hub.passes(30)

        await flap()
        assert await hub.alerts() == []
        await hub.passes(901)
        await flap()
        [alert] = await hub.alerts()
        assert alert.resolved_at is None
        assert (await hub.events(cluster)).count("alert.opened") == 1


async def test_rows_that_never_connected_muted_and_deleted_ones_do_not_alert(tmp_path: Path) -> None:
    """A31, D17."""
    async with clocked_hub(tmp_path) as hub:
        await hub.invite("never")
        redeemed = await hub.invite("redeemed")
        await hub.redeem(redeemed)
        muted, deleted = await hub.joined("muted"), await hub.joined("deleted")
        until = hub.clock.at + 7200
        await hub.services.clusters.update(hub.admin, muted, muted_until=until)
        await hub.passes(14 * 60)
        await hub.services.clusters.delete(await hub.authenticated(), deleted, confirm_name="deleted")
        await hub.passes(7200 - 14 * 60 - 5)
        assert await hub.alerts() == []
        await hub.passes(10, step=1)
        assert [alert.cluster_name for alert in await hub.alerts()] == ["muted"], "when the mute ends, it is due"


@pytest.mark.parametrize("how", ["up", "down"])
async def test_a_hub_that_was_away_counts_none_of_it(tmp_path: Path, how: str) -> None:
    """A31, A48: 20 minutes without a hub alert nobody; an outage from before goes on where it stood."""
    clock = Clock()
    async with clocked_hub(tmp_path, clock) as hub:
        cluster, password = await hub.joined(), hub.password
        if how == "down":
            await hub.passes(600)
        else:
            await hub.passes(60, beating=(cluster,))
    clock.at += 1200
    async with clocked_hub(tmp_path, clock, password) as hub:
        assert cluster in hub.wire.peers
        await hub.passes(295 if how == "down" else 890)
        assert await hub.alerts() == []
        await hub.passes(30)
        assert [alert.kind for alert in await hub.alerts()] == ["cluster_down"]


async def test_an_alert_that_is_open_is_not_opened_again_by_another_start(tmp_path: Path) -> None:
    """A31: what looks twice at one outage opens one alert; a restarted hub resolves it."""
    clock = Clock()
    async with clocked_hub(tmp_path, clock) as hub:
        cluster, password = await hub.joined(), hub.password
        await hub.passes(901)
        hub.presence.rows[cluster].is_down_alert_open = False  # as a second scheduler would see it
        await hub.passes(5)
        assert len(await hub.alerts()) == 1
    async with clocked_hub(tmp_path, clock, password) as hub:
        await hub.passes(1800)
        assert len(await hub.alerts()) == 1
        hub.beat(cluster)
        await hub.passes(65, beating=(cluster,))
        assert await hub.alerts(open_only=True) == []


async def test_an_acknowledged_alert_says_by_whom(tmp_path: Path) -> None:
    """Section 9: and it stays open."""
    async with clocked_hub(tmp_path) as hub:
        await hub.joined()
        await hub.passes(901)
        [alert] = await hub.alerts()
        assert (await hub.services.alerts.acknowledge(hub.admin, alert.id)).acknowledged_by == "admin@localhost"
        assert len(await hub.alerts(open_only=True)) == 1
        assert len(await hub.audited("alert.acknowledge")) == 1


async def test_the_handshake_goes_stale_without_the_row_going_down(tmp_path: Path) -> None:
    """A19: past 180 s the age reads stale; the heartbeat keeps the row connected."""
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined()
        await hub.passes(180, beating=(cluster,))
        assert not (await hub.row(cluster)).is_handshake_stale
        await hub.passes(1, beating=(cluster,))
        row = await hub.row(cluster)
        assert (row.phase, row.is_handshake_stale) == ("connected", True)


@pytest.mark.parametrize(
    ("running", "offered"),
    [
        ("1.3.9", True), ("1.4.0", False), ("1.5.0", False), ("1.4.0-rc.1", True), ("", False), ("nonsense", False),
        ("1.3", False),
    ],
)  # fmt: skip
async def test_an_update_is_offered_to_lower_versions_alone(tmp_path: Path, running: str, offered: bool) -> None:
    """A34: with its notes and the exact command; the flag goes when the version is there."""
    path = tmp_path / "releases.json"
    releases = [
        {"version": "1.4.0", "notes": "https://example.com/1.4.0"}, {"version": "1.2.0"},
        {"version": "2.0.0-beta.1"}, {"version": "9.0.0", "yanked": True},
    ]  # fmt: skip
    async with clocked_hub(tmp_path, releases=path) as hub:
        cluster = await hub.joined()
        assert hub.presence.hello(cluster, hello(chart_version=running)) is None
        assert (await hub.row(cluster)).update is None, "without release data there is no flag"
        path.write_text(json.dumps(releases))
        update = (await hub.row(cluster)).update
        assert (update is not None) is offered
        if update is not None:
            assert (update.version, update.notes_url) == ("1.4.0", "https://example.com/1.4.0")
            assert "helm upgrade daalu-edge oci://ghcr.io/daalu/charts/daalu-edge --version 1.4.0" in update.command
            hub.presence.hello(cluster, hello(chart_version="1.4.0"))
            assert (await hub.row(cluster)).update is None


async def test_another_cluster_with_the_same_key_is_blocked_until_an_admin_accepts(tmp_path: Path) -> None:
    """A57: reason, alert, no way through while blocked; accepting ends it."""
    async with clocked_hub(tmp_path) as hub:
        invite = await hub.invite()
        cluster = invite.cluster_id
        await hub.redeem(invite, cluster_uid="uid-1")
        hub.presence.handshake_confirmed(cluster, REMOTE, hub.clock())
        assert hub.presence.hello(cluster, hello(cluster_uid="uid-1")) is None
        assert hub.presence.hello(cluster, hello(cluster_uid="uid-2")) is not None
        await hub.passes(5)
        row = await hub.row(cluster)
        assert (row.phase, row.reason) == ("blocked", "ClusterIdentityChanged")
        assert [alert.kind for alert in await hub.alerts(open_only=True)] == ["identity_changed"]
        assert cluster not in hub.wire.peers
        assert hub.wire.was_cut == [cluster]
        hub.beat(cluster)
        assert (await hub.row(cluster)).phase == "blocked"
        await hub.services.clusters.accept_identity(await hub.authenticated(), cluster)
        assert cluster in hub.wire.peers
        assert await hub.alerts(open_only=True) == []
        hub.presence.handshake_confirmed(cluster, REMOTE, hub.clock())
        assert hub.presence.hello(cluster, hello(cluster_uid="uid-2")) is None
        assert (await hub.row(cluster)).phase == "connected"


async def test_a_new_invite_does_not_smuggle_another_cluster_in(tmp_path: Path) -> None:
    """A57, D18: a re-join by another cluster is blocked at its hello, and accepted by an admin alone."""
    async with clocked_hub(tmp_path) as hub:
        invite = await hub.invite()
        cluster = invite.cluster_id
        await hub.redeem(invite, cluster_uid="uid-1")
        await hub.redeem(await hub.services.clusters.regenerate(hub.admin, cluster), cluster_uid="uid-2")
        hub.presence.handshake_confirmed(cluster, REMOTE, hub.clock())
        assert hub.presence.hello(cluster, hello(cluster_uid="uid-2")) is not None
        assert (await hub.row(cluster)).reason == "ClusterIdentityChanged"
        await hub.services.clusters.accept_identity(await hub.authenticated(), cluster)
        assert hub.presence.hello(cluster, hello(cluster_uid="uid-2")) is None


async def test_two_edges_with_one_key_are_told_from_one_that_roams(tmp_path: Path) -> None:
    """A57: boot ids in turn block within a minute; places in turn are two uplinks, or somebody who forwards packets."""
    async with clocked_hub(tmp_path) as hub:
        roaming, swapping, copied = [await hub.joined(name) for name in ("roaming", "swapping", "copied")]
        for number in range(20):
            hub.presence.beat(roaming, hub.clock(), 0.04, f"198.51.100.{number + 20}:1000")
            hub.presence.handshake_confirmed(swapping, f"203.0.113.{number % 2}:1000", hub.clock())
            hub.presence.beat(swapping, hub.clock(), 0.04, f"203.0.113.{(number + 1) % 2}:1000")
            assert hub.presence.hello(swapping, hello(boot_id="the same")) is None
            await hub.passes(3)
        for number in range(4):
            refusal = hub.presence.hello(copied, hello(boot_id=f"boot {number % 2}"))
            await hub.passes(13)
        assert refusal is not None
        assert "blocked" not in [(await hub.row(one)).phase for one in (roaming, swapping)]
        row = await hub.row(copied)
        assert (row.phase, row.reason) == ("blocked", "CloneSuspected")
        await hub.presence.flush()
        assert [(alert.kind, alert.cluster_name) for alert in await hub.alerts()] == [("clone_suspected", "copied")]


async def test_an_edge_that_restarts_again_and_again_is_no_clone(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined("acme")
        for number in range(12):
            assert hub.presence.hello(cluster, hello(boot_id=f"boot {number}")) is None
            await hub.passes(5)


async def test_of_an_edge_without_end_a_bounded_number_of_events_is_kept(tmp_path: Path) -> None:
    """A hundred at once and ten a minute; how many were left out is told with the next, and other edges keep theirs."""
    async with clocked_hub(tmp_path) as hub:
        noisy, calm = await hub.joined("noisy"), await hub.joined("calm")
        for number in range(5000):
            hub.presence.api_state(noisy, "unreachable" if number % 2 else "forbidden", "ETIMEDOUT", "x" * 500)
        hub.presence.api_state(calm, "unreachable", "ETIMEDOUT", "")
        await hub.presence.flush()
        assert 50 < len(await hub.events(noisy)) <= 105  # two of them are people's
        assert "api.unreachable" in await hub.events(calm)
        hub.clock.at += 60
        hub.presence.api_state(noisy, "ok", None, "")
        await hub.presence.flush()
        page = await hub.services.clusters.events(hub.admin, noisy, limit=1)
        assert "events before this one were not kept" in page.items[0].detail


async def test_an_unreachable_api_server_is_a_reason_and_no_outage(tmp_path: Path) -> None:
    """A44: the tunnel stays connected, the errno is told; it clears by itself."""
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined()
        hub.presence.api_state(cluster, "unreachable", "ECONNREFUSED", "10.96.0.1:443")
        row = await hub.row(cluster)
        assert (row.phase, row.reason) == ("connected", "TunnelUpApiUnreachable")
        assert row.detail == "tunnel up, API server unreachable from the edge pod: ECONNREFUSED"
        hub.presence.api_state(cluster, "ok", None, "")
        assert (await hub.row(cluster)).reason is None


async def _timeline(hub: Bench, cluster: str) -> Any:
    return await hub.services.clusters.timeline(hub.admin, cluster)


async def test_the_timeline_shows_the_gap(tmp_path: Path) -> None:
    """Section 16: an outage of ten minutes is one gap of ten minutes."""
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined()
        await hub.passes(1800, beating=(cluster,))
        await hub.passes(600)
        hub.beat(cluster)
        await hub.passes(600, beating=(cluster,))
        [gap] = (await _timeline(hub, cluster)).gaps
        assert gap.end - gap.start == 600


# --- the edge behind streams -----------------------------------------------------------------------------------------


async def test_a_new_boot_of_an_edge_ends_what_stood_on_the_one_before(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined()
        hub.presence.hello(cluster, hello(cluster_uid=None, boot_id="one"))
        hub.presence.hello(cluster, hello(cluster_uid=None, boot_id="one", mtu=1380))
        assert hub.wire.cuts == [], "an edge that says hello again was not restarted"
        hub.presence.hello(cluster, hello(cluster_uid=None, boot_id="two"))
        assert hub.wire.cuts == [(cluster, "the edge was restarted", True)]


async def test_a_goodbye_ends_streams_at_once_and_three_of_them_once(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined()
        for _ in range(3):
            hub.presence.goodbye(cluster, hub.clock(), "restarting")
        assert hub.wire.cuts == [(cluster, "the edge said goodbye (restarting)", False)]


async def test_a_row_that_goes_silent_ends_its_streams_when_it_is_disconnected(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined()
        await hub.passes(15, step=0.5)
        assert hub.wire.cuts == []
        await hub.passes(1, step=0.5)
        assert hub.wire.cuts == [(cluster, "the edge has gone silent", False)]


async def test_a_refusal_names_what_is_the_matter_with_the_cluster(tmp_path: Path) -> None:
    """Not "the tunnel is down" for everything: a block must be ended by a person, an invite must be used."""
    async with clocked_hub(tmp_path) as hub:
        cluster, run = await hub.joined("acme"), hub.services.kubectl.run_panel
        hub.presence.hello(cluster, hello(cluster_uid="first"))
        hub.presence.goodbye(cluster, hub.clock(), "uninstalled")
        with pytest.raises(EdgeUnreachable, match=r"the tunnel of acme is down \(uninstalled"):
            await run(hub.admin, cluster, "get nodes")
        hub.presence.hello(cluster, hello(cluster_uid="second"))
        with pytest.raises(EdgeUnreachable, match=r"acme is blocked \(joined as cluster first, now comes from second"):
            await run(hub.admin, cluster, "get nodes")
        invited = (await hub.invite("later")).cluster_id
        with pytest.raises(EdgeUnreachable, match="later has not joined yet"):
            await run(hub.admin, invited, "get nodes")


async def test_a_peer_whose_row_cannot_be_used_is_alone_in_that(tmp_path: Path) -> None:
    """A preshared key that does not open keeps its cluster away, and no other."""
    async with clocked_hub(tmp_path) as hub:
        broken, well = await hub.joined("broken"), await hub.joined("well")
        spoil = update(schema.peers).where(schema.peers.c.cluster_id == broken).values(psk=b"x" * 60)
        await hub.core.database.write(lambda connection: connection.execute(spoil).rowcount)
        _, peers = await hub.presence.load()
    assert [peer.cluster_id for peer in peers] == [well]
