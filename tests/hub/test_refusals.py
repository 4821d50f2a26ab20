"""Refused kubeconfigs in the audit: some one by one, all counted, never more than a bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub_server.domain.errors import Unauthenticated
from hub_server.kubeproxy import Asking
from tests.hub.clocked import Bench, clocked_hub
from tests.hub.test_kubeconfigs import token_of


async def refused(hub: Bench, cluster: str, token: str, times: int = 1, remote: str = "192.0.2.7") -> None:
    for _ in range(times):
        with pytest.raises(Unauthenticated):
            await hub.services.kubectl.authorize(Asking(cluster, token, remote=remote, request_id="r1"))


async def test_a_revoked_kubeconfig_is_named_with_its_owner_and_where_it_was_used(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub:
        cluster, kubectl = await hub.joined("acme"), hub.services.kubectl
        issued = await kubectl.issue_kubeconfig(await hub.authenticated(), cluster)
        await kubectl.revoke_kubeconfig(hub.admin, cluster, issued.id)
        await refused(hub, cluster, token_of(issued))
        kubectl._audit_refusals()
        [entry] = await hub.audited("kubectl.refused")
        assert (entry.actor, entry.target, entry.remote, entry.cluster_id, entry.request_id) == (
            hub.admin.id, issued.id, "192.0.2.7", cluster, "r1",
        )  # fmt: skip


async def test_a_flood_is_a_few_entries_and_a_sum(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub:
        cluster, kubectl = await hub.joined("acme"), hub.services.kubectl
        for source in range(20):
            await refused(hub, cluster, "dlk_guess", 10, f"192.0.2.{source}")
        kubectl._audit_refusals()
        assert len(await hub.audited("kubectl.refused")) == 5
        hub.clock.at += 61
        kubectl._audit_refusals()
        newest, *older = await hub.audited("kubectl.refused")
        assert len(older) == 5
        assert newest.detail["more"] == 195
        assert len(newest.detail["from"]) == 8
        kubectl._audit_refusals()
        assert len(await hub.audited("kubectl.refused")) == 6
        assert kubectl._refusals.take(hub.clock.at) == []


async def test_a_cluster_that_is_not_there_fills_the_chain_of_the_hub_alone(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub:
        await refused(hub, "cl_absent", "dlk_guess", 100)
        hub.services.kubectl._audit_refusals()
        assert await hub.audited("kubectl.refused") == []
        assert len(hub.services.kubectl._refusals._minutes) == 1
