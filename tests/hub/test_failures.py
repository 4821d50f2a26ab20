"""What breaks in a cluster, as the hub's rows tell it: a whole hub, a whole edge, one fault at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import trio

from tests.edge.fakekube import FakeKube, open_kube
from tests.hub.whole import Whole, edge_settings, redeem, running_edge, whole_hub

KEY = "/api/v1/namespaces/daalu-edge/secrets/daalu-edge-key"


async def until_reason(whole: Whole, cluster_id: str, reason: str | None) -> Any:
    async def is_so() -> bool:
        return (await whole.row(cluster_id)).reason == reason

    await whole.until(is_so)
    return await whole.row(cluster_id)


async def test_an_api_server_that_is_cut_off_is_told_apart_from_the_tunnel(tmp_path: Path) -> None:
    """A44: the row stays connected, names the errno, and clears after the repair."""
    async with whole_hub(tmp_path) as whole, open_kube() as kube:
        invite = await whole.invite()
        settings = edge_settings(whole, kube, tmp_path / "edge", invite.token)
        assert (await redeem(settings))[0] == 0
        async with running_edge(settings) as agent:
            await whole.until_phase(invite.cluster_id, "connected")
            api: Any = agent._kube
            good, api._port = api._port, 1
            await api.aclose()
            agent._look_at_api.set()
            row = await until_reason(whole, invite.cluster_id, "TunnelUpApiUnreachable")
            assert row.phase == "connected"
            assert "ECONNREFUSED" in row.detail
            api._port = good
            row = await until_reason(whole, invite.cluster_id, None)
            assert row.phase == "connected"


async def test_a_refusal_of_the_api_server_is_shown_in_its_own_words(tmp_path: Path) -> None:
    """A43: verb, resource and account as the API server said them."""
    words = 'nodes is forbidden: User "system:serviceaccount:daalu-edge:daalu-edge" cannot list resource "nodes"'
    async with whole_hub(tmp_path) as whole, open_kube() as kube:
        kube.refuse = lambda seen: (403, words) if seen.target.startswith("/api/v1/nodes") else None
        invite = await whole.invite()
        settings = edge_settings(whole, kube, tmp_path / "edge", invite.token)
        assert (await redeem(settings))[0] == 0
        async with running_edge(settings):
            row = await until_reason(whole, invite.cluster_id, "ApiForbidden")
            assert row.phase == "connected"
            assert words in row.detail


async def test_a_changed_keepalive_reaches_the_cluster_without_a_restart(tmp_path: Path) -> None:
    """A41: from the hub's page into the ConfigMap of the cluster."""
    async with whole_hub(tmp_path) as whole, open_kube() as kube:
        invite = await whole.invite()
        settings = edge_settings(whole, kube, tmp_path / "edge", invite.token)
        assert (await redeem(settings))[0] == 0
        async with running_edge(settings) as agent:
            await whole.until_phase(invite.cluster_id, "connected")
            await whole.services.clusters.update(whole.admin, invite.cluster_id, keepalive=10)
            await whole.until(lambda: kept(kube)["keepalive"] == 10)
            assert agent._config is not None
            assert agent._config.keepalive == 10


def kept(kube: FakeKube) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(kube.config()["config.json"])
    return document


async def test_a_secret_that_lost_its_data_is_healed_by_a_new_invite_for_the_same_row(tmp_path: Path) -> None:
    """A77: no crash, NeedsNewInvite in the pod; then the same row and the same address with another key."""
    async with whole_hub(tmp_path) as whole, open_kube() as kube:
        invite = await whole.invite()
        settings = edge_settings(whole, kube, tmp_path / "edge", invite.token)
        assert (await redeem(settings))[0] == 0
        async with running_edge(settings):
            address = (await whole.until_phase(invite.cluster_id, "connected")).address
        await whole.until_phase(invite.cluster_id, "disconnected")
        key = kube.secret()["private-key"]
        kube.put(KEY, {"kind": "Secret"})
        async with running_edge(settings) as agent:
            await whole.until(lambda: agent.facts.code == "NeedsNewInvite")
            again = await whole.services.clusters.regenerate(whole.admin, invite.cluster_id)
            await trio.Path(settings.token_file).write_text(again.token)
            code, line = await redeem(settings)
            assert code == 0, line
            row = await whole.until_phase(invite.cluster_id, "connected")
            assert row.address == address
            assert kube.secret()["private-key"] != key
            await whole.until(lambda: agent.facts.code == "")


async def test_a_cluster_that_was_deleted_says_so_in_its_log(tmp_path: Path, caplog: Any, monkeypatch: Any) -> None:
    """A36: the edge asks over HTTPS what became of it, and then leaves the hub alone."""
    monkeypatch.setattr("edge_agent.agent._HEAL", (0.5, 600.0))
    monkeypatch.setattr("edge_agent.facts.SEEN_LIMIT", 2.0)
    async with whole_hub(tmp_path) as whole, open_kube() as kube:
        invite = await whole.invite()
        settings = edge_settings(whole, kube, tmp_path / "edge", invite.token)
        assert (await redeem(settings))[0] == 0
        async with running_edge(settings) as agent:
            await whole.until_phase(invite.cluster_id, "connected")
            actor = await whole.reauthenticated()
            await whole.services.clusters.delete(actor, invite.cluster_id, confirm_name="acme")
            await whole.until(lambda: agent.facts.code == "NeedsNewInvite")
            assert agent.facts.problem.startswith("this cluster was deleted at the hub at 20")
            assert "this cluster was deleted at 20" in caplog.text
            await whole.until(lambda: agent._tunnel is None)
