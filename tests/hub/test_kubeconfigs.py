"""Kubeconfigs by a clock that the test sets: for one person and one cluster, for eight hours, and dead in time."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from hub_server.domain.errors import Forbidden, Invalid, NotFound, ReauthRequired, Unauthenticated
from hub_server.domain.roles import Role
from hub_server.kubeproxy import Asking
from hub_server.services.kubectl import Kubectl
from hub_server.services.views import Actor, IssuedKubeconfig
from hub_server.store.database import StoreUnavailable
from hub_server.wire import Wire
from tests.hub.clocked import Bench, clocked_hub
from tests.hub.disk import read_only


@pytest.fixture(autouse=True)
def _any_tunnel_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wire of these tests carries nothing: who may use it is decided before it is asked for."""
    monkeypatch.setattr(Kubectl, "wire_to", lambda self, row: None)


def token_of(issued: IssuedKubeconfig) -> str:
    return issued.yaml.partition('token: "')[2].partition('"')[0]


def _all_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


async def _issued(hub: Bench, cluster: str, **more: float) -> str:
    return token_of(await hub.services.kubectl.issue_kubeconfig(await hub.authenticated(), cluster, **more))


async def _is_good(hub: Bench, cluster: str, token: str) -> bool:
    try:
        await hub.services.kubectl.authorize(Asking(cluster, token))
    except Unauthenticated:
        return False
    return True


async def test_it_lives_for_eight_hours_and_is_stored_as_a_hash(tmp_path: Path) -> None:
    """A27: to the second; and the database does not hold it."""
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined("acme")
        token = await _issued(hub, cluster)
        grant = await hub.services.kubectl.authorize(Asking(cluster, token))
        assert (grant.email, grant.cluster_id, grant.role, grant.tenant_slug) == (
            "admin@localhost", cluster, "admin", "default",
        )  # fmt: skip
        written = _all_of(tmp_path)
        assert token.encode() not in written
        assert hashlib.sha256(token.encode()).digest() in written
        hub.clock.at += 8 * 3600 - 1
        assert await _is_good(hub, cluster, token)
        hub.clock.at += 1
        assert not await _is_good(hub, cluster, token)


@pytest.mark.parametrize("end", ["revoked", "deleted", "demoted", "deactivated", "removed"])
async def test_it_dies_at_once(tmp_path: Path, end: str) -> None:
    """A36, D12: with its revocation, its cluster, and its owner's role, membership or account."""
    async with clocked_hub(tmp_path) as hub:
        cluster, tenants = await hub.joined("acme"), hub.services.tenants
        added = await tenants.add_member(
            await hub.authenticated(), hub.tenant_id, email="op@example.com", name="Op", role=Role.OPERATOR
        )
        signed_in = await hub.services.accounts.sign_in("op@example.com", added.password, remote="", user_agent="")
        issued = await hub.services.kubectl.issue_kubeconfig(signed_in.actor, cluster)
        token, admin = token_of(issued), await hub.authenticated()
        assert await _is_good(hub, cluster, token)
        match end:
            case "revoked":
                await hub.services.kubectl.revoke_kubeconfig(hub.admin, cluster, issued.id)
            case "deleted":
                await hub.services.clusters.delete(admin, cluster, confirm_name="acme")
            case "demoted":
                await tenants.update_member(admin, hub.tenant_id, signed_in.actor.id, role=Role.VIEWER)
            case "deactivated":
                await hub.services.people.set_active(admin, signed_in.actor.id, False)
            case "removed":
                await tenants.remove_member(admin, hub.tenant_id, signed_in.actor.id)
        assert not await _is_good(hub, cluster, token)


async def test_it_is_for_one_cluster_and_nothing_else(tmp_path: Path) -> None:
    """A59: another cluster, another tenant's, and whatever is no token read alike."""
    async with clocked_hub(tmp_path) as hub:
        cluster, other = await hub.joined("one"), await hub.joined("two")
        token = await _issued(hub, cluster)
        for place, shown in ((other, token), ("cl_absent", token), (cluster, "dlk_x"), (cluster, token[4:])):
            assert not await _is_good(hub, place, shown)
        assert not await _is_good(hub, cluster, await hub.token()), "a token of the API opens no cluster"


@pytest.mark.parametrize("role", Role)
async def test_who_may_issue_one(tmp_path: Path, role: Role) -> None:
    """Section 7: admin and operator, with the password typed a moment ago, for no longer than the tenant allows."""
    async with clocked_hub(tmp_path) as hub:
        cluster, kubectl = await hub.joined("acme"), hub.services.kubectl
        actor = dataclasses.replace(await hub.authenticated(), roles={hub.tenant_id: role})
        if role in (Role.VIEWER, Role.AUDITOR):
            with pytest.raises(Forbidden):
                await kubectl.issue_kubeconfig(actor, cluster)
            return
        await kubectl.issue_kubeconfig(actor, cluster, ttl=60.0)
        with pytest.raises(Invalid, match="at most"):
            await kubectl.issue_kubeconfig(actor, cluster, ttl=31 * 86400.0)
        with pytest.raises(NotFound):
            await kubectl.issue_kubeconfig(dataclasses.replace(actor, roles={"tn_other": role}), cluster)
        hub.clock.at += 301
        with pytest.raises(ReauthRequired):
            await kubectl.issue_kubeconfig(actor, cluster)
        assert len(await hub.audited("kubeconfig.issue")) >= 1


async def test_the_list_shows_use_and_an_operator_sees_only_own_ones(tmp_path: Path) -> None:
    """A64 in small: last use, owner, and no foreign ones for an operator."""
    async with clocked_hub(tmp_path) as hub:
        cluster, kubectl = await hub.joined("acme"), hub.services.kubectl
        token = await _issued(hub, cluster)
        await kubectl.authorize(Asking(cluster, token))
        [view] = await kubectl.kubeconfigs(hub.admin, cluster)
        assert (view.email, view.last_used_at) == ("admin@localhost", hub.clock())
        stranger = Actor("user", "us_other", "op@example.com", "Op", roles={hub.tenant_id: Role.OPERATOR})
        assert await kubectl.kubeconfigs(stranger, cluster) == ()
        with pytest.raises(NotFound):
            await kubectl.revoke_kubeconfig(stranger, cluster, view.id)
        assert await _is_good(hub, cluster, token)


@pytest.mark.parametrize(("asked", "given"), [(None, True), (False, False), (True, True)])
async def test_stream_narrows_what_the_role_may(tmp_path: Path, asked: bool | None, given: bool) -> None:
    async with clocked_hub(tmp_path) as hub:
        cluster, kubectl = await hub.joined("acme"), hub.services.kubectl
        issued = await kubectl.issue_kubeconfig(await hub.authenticated(), cluster, stream=asked)
        assert (await kubectl.authorize(Asking(cluster, token_of(issued)))).stream is given
        [view] = await kubectl.kubeconfigs(hub.admin, cluster)
        assert view.stream is given


async def test_the_api_narrows_as_well(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined("acme")
        await hub.authenticated()
        async with hub.client(signed_in=True) as client:
            for body, given in (({}, True), ({"stream": False}, False)):
                answer = await client.post(f"/v1/clusters/{cluster}/kubeconfigs", json=body)
                assert answer.status_code in (200, 201), answer.text
                newest = (await hub.services.kubectl.kubeconfigs(hub.admin, cluster))[0]
                assert newest.stream is given
                hub.clock.at += 1


async def test_the_names_hold_the_hub_so_that_two_hubs_can_be_merged(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path, public_url="https://hub.example:8443") as hub:
        cluster = await hub.joined("A.cme-1")
        issued = await hub.services.kubectl.issue_kubeconfig(await hub.authenticated(), cluster)
        assert issued.context == "default-a.cme-1@hub.example:8443"
        assert issued.yaml.count(f'name: "{issued.context}"') == 3
        assert issued.filename == "default-a.cme-1-hub.example-8443.kubeconfig"


async def test_its_last_use_is_not_written_in_the_way_of_the_request(tmp_path: Path) -> None:
    """Where nothing can be written, reading goes on; what could not be written is written later."""
    async with clocked_hub(tmp_path) as hub:
        cluster, kubectl = await hub.joined("acme"), hub.services.kubectl
        token = await _issued(hub, cluster)
        with read_only(hub.core.database):
            assert await _is_good(hub, cluster, token)
            with pytest.raises(StoreUnavailable):
                await hub.core.later.flush()
            assert await _is_good(hub, cluster, token)
        hub.core.database._tried_at = 0.0  # a second later
        await hub.core.later.flush()
        [view] = await kubectl.kubeconfigs(hub.admin, cluster)
        assert view.last_used_at == hub.clock()


async def test_only_the_identity_that_works_can_be_set_and_no_other_is_ever_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    async with clocked_hub(tmp_path) as hub:
        cluster, clusters = await hub.joined("acme"), hub.services.clusters
        with pytest.raises(Invalid, match="not available yet"):
            await clusters.update(hub.admin, cluster, identity_mode="per-user")
        await clusters.update(hub.admin, cluster, identity_mode="service-account")
        # Set by an earlier release: a request must not run as the edge's own account then.
        hub.presence.rows[cluster].identity_mode = "per-user"
        hub.core.wire = object.__new__(Wire)
        token = await _issued(hub, cluster)
        with pytest.raises(Forbidden, match="per-user, which is not available"):
            await hub.services.kubectl.authorize(Asking(cluster, token))
        hub.core.wire = hub.wire
