"""One token in two clusters, one Secret in two clusters: told apart, blocked, accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub_server.domain.errors import Conflict, EdgeUnreachable, ReauthRequired
from tests.edge.fakekube import FakeKube, open_kube
from tests.hub.whole import edge_settings, redeem, running_edge, whole_hub

KEY = "/api/v1/namespaces/daalu-edge/secrets/daalu-edge-key"
CONFIG = "/api/v1/namespaces/daalu-edge/configmaps/daalu-edge-config"
SYSTEM = "/api/v1/namespaces/kube-system"


def copy_secret(source: FakeKube, target: FakeKube) -> None:
    for path in (KEY, CONFIG):
        target.put(path, source.objects[path])
    target.put(SYSTEM, {"kind": "Namespace", "metadata": {"uid": "another-cluster"}})


async def test_the_second_cluster_with_one_token_is_refused(tmp_path: Path) -> None:
    """A56: exit 11 and one line, an alert that names both addresses, the first cluster undisturbed."""
    async with whole_hub(tmp_path) as whole, open_kube() as first, open_kube() as second:
        invite = await whole.invite()
        settings = edge_settings(whole, first, tmp_path / "first", invite.token)
        assert (await redeem(settings))[0] == 0
        second.put(SYSTEM, {"kind": "Namespace", "metadata": {"uid": "another-cluster"}})
        async with running_edge(settings):
            await whole.until_phase(invite.cluster_id, "connected")
            code, line = await redeem(edge_settings(whole, second, tmp_path / "second", invite.token))
            assert (code, "already used by another cluster" in line) == (11, True)
            [alert] = (await whole.services.alerts.list(whole.admin, whole.tenant_id, open_only=True)).items
            assert (alert.kind, alert.severity) == ("invite_used", "critical")
            assert alert.detail.count("127.0.0.1") == 2
            row = await whole.row(invite.cluster_id)
            assert (row.phase, row.open_alerts, row.needs_attention) == ("connected", 1, True)


async def test_the_same_cluster_again_is_no_theft(tmp_path: Path) -> None:
    """A56 and D5: installed again with the old command; refused, an event with `NeedsNewInvite`, and no alert."""
    async with whole_hub(tmp_path) as whole, open_kube() as kube, open_kube() as emptied:
        invite = await whole.invite()
        assert (await redeem(edge_settings(whole, kube, tmp_path / "first", invite.token)))[0] == 0
        emptied.put(SYSTEM, kube.objects[SYSTEM])
        code, line = await redeem(edge_settings(whole, emptied, tmp_path / "second", invite.token))
        assert (code, "NeedsNewInvite" in line) == (11, True)
        page = await whole.services.clusters.events(whole.admin, invite.cluster_id)
        assert "NeedsNewInvite" in [event.reason for event in page.items]
        assert (await whole.services.alerts.list(whole.admin, whole.tenant_id, open_only=True)).items == ()


async def test_a_secret_in_another_cluster_is_blocked_until_accepted(tmp_path: Path) -> None:
    """A57: `ClusterIdentityChanged`, an alert, nothing is proxied; accepting needs the password and ends it."""
    async with whole_hub(tmp_path) as whole, open_kube() as kube, open_kube() as other:
        invite = await whole.invite()
        settings = edge_settings(whole, kube, tmp_path / "edge", invite.token)
        assert (await redeem(settings))[0] == 0
        async with running_edge(settings):
            await whole.until_phase(invite.cluster_id, "connected")
            with pytest.raises(Conflict):
                await whole.services.clusters.accept_identity(await whole.reauthenticated(), invite.cluster_id)
        copy_secret(kube, other)
        async with running_edge(edge_settings(whole, other, tmp_path / "other", invite.token)):
            row = await whole.until_phase(invite.cluster_id, "blocked")
            assert row.reason == "ClusterIdentityChanged"
            await whole.hub.presence.flush()
            [alert] = (await whole.services.alerts.list(whole.admin, whole.tenant_id, open_only=True)).items
            assert alert.kind == "identity_changed"
            detail = await whole.services.clusters.get(whole.admin, invite.cluster_id)
            assert detail.offered_cluster_uid == "another-cluster"
            with pytest.raises(EdgeUnreachable):
                await whole.services.kubectl.run_panel(whole.admin, invite.cluster_id, "get nodes")
            stale = whole.admin.__class__(**{
                **{name: getattr(whole.admin, name) for name in whole.admin.__slots__}, "reauthenticated_at": None,
            })  # fmt: skip
            with pytest.raises(ReauthRequired):
                await whole.services.clusters.accept_identity(stale, invite.cluster_id)
            await whole.services.clusters.accept_identity(await whole.reauthenticated(), invite.cluster_id)
            row = await whole.until_phase(invite.cluster_id, "connected")
            assert (row.reason, row.open_alerts) == (None, 0)
            detail = await whole.services.clusters.get(whole.admin, invite.cluster_id)
            assert (detail.cluster_uid, detail.offered_cluster_uid) == ("another-cluster", None)


async def test_two_edges_with_one_key_are_noticed(tmp_path: Path) -> None:
    """A57: both run at once, take turns, and are blocked, whichever is noticed first; a restarted edge is not."""
    async with whole_hub(tmp_path) as whole, open_kube() as kube:
        invite = await whole.invite()
        settings = edge_settings(whole, kube, tmp_path / "edge", invite.token)
        assert (await redeem(settings))[0] == 0
        for _ in range(2):
            async with running_edge(settings):
                row = await whole.until_phase(invite.cluster_id, "connected")
        assert row.open_alerts == 0, "one place at a time is roaming"
        async with running_edge(settings), running_edge(settings):
            row = await whole.until_phase(invite.cluster_id, "blocked")
            assert row.reason == "CloneSuspected"
