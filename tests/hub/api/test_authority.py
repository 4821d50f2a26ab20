"""Who may do what by the API, at the moment of asking: every operation, role and scope; makers, members, accounts."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from hub_server.api.routes import ROUTES
from hub_server.auth import middleware
from hub_server.domain.roles import RIGHTS, Right, Role
from tests.hub.clocked import Bench, clocked_hub

TENANT = "/v1/tenants/default"
CLUSTERS = f"{TENANT}/clusters"
OWN = "a password of my own"

# What each operation needs; None: nothing but being somebody. "person": no token may; "hub": the hub's administrators.
NEEDS: dict[str, Right | str | None] = {
    "me": None, "list_tenants": None, "reauthenticate": "person", "change_password": "person",
    "create_tenant": "hub", "list_accounts": "hub", "change_account": "hub",
    "list_clusters": Right.SEE, "count_clusters": Right.SEE, "get_cluster": Right.SEE, "get_status": Right.SEE,
    "get_ladder": Right.SEE, "get_nodes": Right.SEE, "get_events": Right.SEE, "get_timeline": Right.SEE,
    "list_subnets": Right.SEE, "list_members": Right.SEE, "list_alerts": Right.SEE,
    "create_cluster": Right.MANAGE, "change_cluster": Right.MANAGE, "delete_cluster": Right.MANAGE,
    "get_invite": Right.MANAGE, "make_invite": Right.MANAGE, "revoke_invite": Right.MANAGE,
    "accept_identity": Right.MANAGE, "get_rbac": Right.MANAGE, "make_patch": Right.MANAGE, "check_rbac": Right.MANAGE,
    "add_subnet": Right.MANAGE, "add_member": Right.MANAGE, "change_member": Right.MANAGE,
    "remove_member": Right.MANAGE, "list_channels": Right.MANAGE, "create_channel": Right.MANAGE,
    "delete_channel": Right.MANAGE, "test_channel": Right.MANAGE, "list_deliveries": Right.MANAGE,
    "list_tokens": Right.MANAGE, "create_token": Right.MANAGE, "revoke_token": Right.MANAGE,
    "run_panel": Right.PANEL, "acknowledge": Right.PANEL, "list_kubeconfigs": Right.KUBECONFIG,
    "issue_kubeconfig": "person", "revoke_kubeconfig": Right.KUBECONFIG, "read_audit": Right.AUDIT,
}  # fmt: skip


def test_every_operation_says_what_it_needs() -> None:
    assert {entry.handler.__name__ for entry in ROUTES} == set(NEEDS)


async def _alert_of(hub: Bench) -> tuple[str, str]:
    """A cluster that is connected, and an alert of it: somebody came with its used token."""
    invite = await hub.invite("acme")
    await hub.redeem(invite)
    await hub.post(hub.key().asks(invite.token, hub.clock()))
    [alert] = await hub.alerts()
    return invite.cluster_id, alert.id


@pytest.mark.parametrize("role", Role)
async def test_scopes_bound_every_operation(tmp_path: Path, role: Role) -> None:
    """A token with one scope may what this scope names and nothing else, whatever its role."""
    async with clocked_hub(tmp_path) as hub:
        cluster, alert = await _alert_of(hub)
        ids = {"tenant": "default", "cluster": cluster, "alert": alert} | dict.fromkeys(
            ("token", "user", "channel", "kubeconfig"), "xx_aaaaaaaaaaaaaaaa"
        )
        # Nothing of this comes to pass, whoever is allowed it.
        body = {"confirm_name": "another", "name": "not a name", "line": "get", "role": "viewer", "email": "none",
                "cidr": "none", "url": "none", "scopes": ["see"], "password": "x", "old": "x", "active": False,
                "new": "another one of twelve", "slug": "NONE"}  # fmt: skip
        for scope in RIGHTS[role]:
            async with hub.client(await hub.token(role, scopes=[scope.value])) as client:
                for entry in ROUTES:
                    path = re.sub(r"{(\w+)}", lambda found: ids[found[1]], entry.path)
                    answer = await client.request(entry.method, path, json=body)
                    need = NEEDS[entry.handler.__name__]
                    wanted = need is None or need is scope
                    refused = answer.status_code in (401, 403)
                    # Nobody gives away what they do not have: that is another question.
                    if wanted and entry.handler.__name__ in ("add_member", "change_member", "create_token"):
                        assert refused is (scope is not Right.SEE), answer.text
                        assert "nobody gives" in answer.text or "a token never may more" in answer.text
                        continue
                    assert refused is not wanted, (scope, entry, answer.text)
                    assert answer.status_code < 500 or answer.status_code == 502, answer.text


async def test_a_token_never_makes_a_wider_one(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub, hub.client(await hub.token(scopes=["manage"])) as client:

        async def made(*scopes: str, role: str = "admin") -> httpx.Response:
            return await client.post(f"{TENANT}/tokens", json={"name": "x", "role": role, "scopes": list(scopes)})

        for wider in (["see"], ["manage", "audit"], [right.value for right in Right]):
            answer = await made(*wider)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert (await made("manage")).status_code == 201
        assert (await made("see", role="viewer")).status_code == 403
        for role in Role:
            new = {"email": "eve@example.com", "role": role.value}
            assert (await client.post(f"{TENANT}/members", json=new)).status_code == 403, "nor a wider person"
        answer = await client.patch(f"{TENANT}/members/{hub.admin.id}", json={"stream": True})
        assert answer.status_code == 403


async def test_a_token_of_a_token_is_bounded_by_both_and_dies_with_either(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub:
        secret = await hub.token(scopes=["manage", "see"])
        chain = [secret]
        async with hub.client(signed_in=True) as person:
            [parent] = (await person.get(f"{TENANT}/tokens")).json()["items"]
            for _ in range(3):
                async with hub.client(chain[-1]) as client:
                    new = {"name": "x", "role": "admin", "scopes": ["manage", "see"]}
                    answer = await client.post(f"{TENANT}/tokens", json=new)
                    assert answer.status_code == 201
                    chain.append(answer.json()["secret"])
            async with hub.client(chain[-1]) as client:
                assert (await client.post(f"{TENANT}/tokens", json=new)).status_code == 409, "a chain has an end"
                assert (await client.get(CLUSTERS)).status_code == 200
            assert (await person.delete(f"{TENANT}/tokens/{parent['id']}")).status_code == 204
        for one in chain:
            async with hub.client(one) as client:
                assert (await client.get(CLUSTERS)).status_code == 401


async def _another_admin(hub: Bench) -> tuple[str, str]:
    """Bob, an admin with a token of all rights: his id and the token."""
    added = await hub.services.tenants.add_member(
        await hub.authenticated(), hub.tenant_id, email="bob@example.com", name="Bob", role=Role.ADMIN
    )
    first = await hub.services.accounts.sign_in("bob@example.com", added.password, remote="", user_agent="")
    made = await hub.services.tokens.create(
        first.actor, hub.tenant_id, name="bob's", role=Role.ADMIN, scopes=[right.value for right in Right]
    )
    return first.actor.id, made.secret


@pytest.mark.parametrize("end", ["demoted", "removed", "deactivated"])
async def test_a_token_never_exceeds_its_maker_now(tmp_path: Path, end: str) -> None:
    async with clocked_hub(tmp_path) as hub:
        bob, secret = await _another_admin(hub)
        async with hub.client(secret) as client, hub.client(signed_in=True) as admin:
            assert (await client.post(CLUSTERS, json={"name": "one"})).status_code == 201
            match end:
                case "demoted":
                    answer = await admin.patch(f"{TENANT}/members/{bob}", json={"role": "viewer"})
                case "removed":
                    answer = await admin.delete(f"{TENANT}/members/{bob}")
                case "deactivated":
                    answer = await admin.patch(f"/v1/accounts/{bob}", json={"active": False})
            assert answer.status_code in (200, 204)
            shrunk = end == "demoted"
            assert (await client.get(CLUSTERS)).status_code == (200 if shrunk else 401)
            assert (await client.post(CLUSTERS, json={"name": "two"})).status_code == (403 if shrunk else 401)
            new = {"email": "eve@example.com", "role": "admin"}
            assert (await client.post(f"{TENANT}/members", json=new)).status_code == (403 if shrunk else 401)
            if shrunk:
                assert (await client.get("/v1/me")).json()["tenants"][0]["role"] == "viewer"
                await admin.patch(f"{TENANT}/members/{bob}", json={"role": "admin"})
                assert (await client.post(CLUSTERS, json={"name": "two"})).status_code == 201


async def test_the_scope_kubeconfig_shows_and_revokes_nobody_elses(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined("acme")
        issued = await hub.services.kubectl.issue_kubeconfig(await hub.authenticated(), cluster)
        address = f"/v1/clusters/{cluster}/kubeconfigs"
        async with hub.client(await hub.token(scopes=["kubeconfig"])) as client:
            assert (await client.get(address)).json() == {"items": []}
            assert (await client.delete(f"{address}/{issued.id}")).status_code == 404
        async with hub.client(await hub.token(scopes=["kubeconfig", "manage"])) as client:
            assert len((await client.get(address)).json()["items"]) == 1
            assert (await client.delete(f"{address}/{issued.id}")).status_code == 204


async def test_an_account_is_deactivated_and_activated(tmp_path: Path) -> None:
    """Sessions, kubeconfigs and tokens end for good; there is always somebody left to administer."""
    async with clocked_hub(tmp_path) as hub:
        bob, _ = await _another_admin(hub)
        async with hub.client(signed_in=True) as admin:
            accounts = (await admin.get("/v1/accounts")).json()["items"]
            assert [(one["email"], one["hub_admin"]) for one in accounts] == [
                ("admin@localhost", True),
                ("bob@example.com", False),
            ]
            mine = f"/v1/accounts/{hub.admin.id}"
            assert (await admin.patch(mine, json={"active": False})).status_code == 409
            assert (await admin.patch("/v1/accounts/us_absent", json={"active": False})).status_code == 404
            assert (await admin.patch(mine, json={"active": "no"})).json()["field"] == "active"
            assert (await admin.patch(f"/v1/accounts/{bob}", json={"active": False})).json()["active"] is False
            # Of two admins one is deactivated: the other one cannot go.
            answer = await admin.delete(f"{TENANT}/members/{hub.admin.id}")
            assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
            assert (await admin.patch(f"/v1/accounts/{bob}", json={"active": True})).json()["active"] is True


async def test_the_last_admin_of_a_tenant_is_not_deactivated(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub:
        bob, _ = await _another_admin(hub)
        other = await hub.tenant("other")
        await hub.services.tenants.add_member(
            await hub.authenticated(), other, email="bob@example.com", name="", role=Role.ADMIN
        )
        await hub.services.tenants.remove_member(await hub.authenticated(), other, hub.admin.id)
        async with hub.client(signed_in=True) as admin:
            answer = await admin.patch(f"/v1/accounts/{bob}", json={"active": False})
            assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
            assert "other" in answer.json()["detail"]


# --- Idempotency-Key -------------------------------------------------------------------------------------------------


async def _create(client: httpx.AsyncClient, key: str, name: str = "acme") -> httpx.Response:
    return await client.post(CLUSTERS, json={"name": name}, headers={"Idempotency-Key": key})


async def test_of_many_at_once_one_is_carried_out(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub, hub.client(await hub.token()) as client:
        answers: list[httpx.Response] = []

        async def ask() -> None:
            new = {"name": "same", "role": "viewer", "scopes": ["see"]}
            answers.append(await client.post(f"{TENANT}/tokens", json=new, headers={"Idempotency-Key": "k"}))

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(ask)
        made = [one for one in answers if one.status_code == 201]
        assert len({one.text for one in made}) == 1
        others = {(one.status_code, one.json()["code"]) for one in answers if one.status_code != 201}
        assert others <= {(409, "idempotency_in_progress")}
        tokens = (await client.get(f"{TENANT}/tokens")).json()["items"]
        assert [one["name"] for one in tokens].count("same") == 1


async def test_a_secret_is_not_answered_again_after_the_right_was_lost(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub:
        bob, secret = await _another_admin(hub)
        async with hub.client(secret) as client, hub.client(await hub.token()) as other:
            first = await _create(client, "k")
            assert first.status_code == 201
            assert (await _create(client, "k")).json() == first.json()
            answer = await _create(other, "k")
            assert answer.status_code == 422, "another caller's key is another key: the name is taken"
            await hub.services.tenants.update_member(await hub.authenticated(), hub.tenant_id, bob, role=Role.OPERATOR)
            again = await _create(client, "k")
            assert (again.status_code, again.json()["code"]) == (403, "forbidden")
            assert first.json()["token"] not in again.text


async def test_a_right_that_is_lost_while_the_body_is_sent_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "_FRESH", 0.0)
    async with clocked_hub(tmp_path) as hub:
        bob, secret = await _another_admin(hub)
        tenants = hub.services.tenants

        async def slow_body(role: Role | None) -> AsyncIterator[bytes]:
            yield b'{"name": '
            if role is None:
                await tenants.remove_member(await hub.authenticated(), hub.tenant_id, bob)
            else:
                await tenants.update_member(await hub.authenticated(), hub.tenant_id, bob, role=role)
            yield b'"slow"}'

        async with hub.client(secret) as client:
            for role, status in ((Role.ADMIN, 201), (Role.VIEWER, 403), (None, 401)):
                answer = await client.post(CLUSTERS, content=slow_body(role))
                assert answer.status_code == status, answer.text


async def test_a_refusal_frees_the_key_and_a_fault_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with clocked_hub(tmp_path) as hub, hub.client(await hub.token()) as client:
        assert (await _create(client, "k", "not a name")).status_code == 422
        assert (await _create(client, "k", "fine")).status_code == 201

        async def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError("in the middle of it")

        with monkeypatch.context() as patch:
            patch.setattr(type(hub.services.clusters), "create", broken)
            with pytest.raises(RuntimeError, match="middle"):
                await _create(client, "k2", "other")
        answer = await _create(client, "k2", "other")
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_unknown")


# --- the password that the hub made ----------------------------------------------------------------------------------


async def test_a_password_made_by_the_hub_is_good_for_changing_it_only(tmp_path: Path) -> None:
    """In the API and the pages alike: every address, whatever its handler does."""
    async with clocked_hub(tmp_path) as hub:
        cluster = await hub.joined("acme")
        added = await hub.services.tenants.add_member(
            await hub.authenticated(), hub.tenant_id, email="bob@example.com", name="Bob", role=Role.ADMIN
        )
        first = await hub.services.accounts.sign_in("bob@example.com", added.password, remote="", user_agent="")
        headers = {"Cookie": f"__Host-daalu={first.cookie}", "X-CSRF-Token": first.actor.csrf}
        ids = {"tenant": "default", "cluster": cluster, "cluster_id": cluster}
        async with hub.client(headers=headers) as client:
            for entry in ROUTES:
                if entry.handler.__name__ in ("me", "change_password"):
                    continue
                path = re.sub(r"{(\w+)}", lambda found: ids.get(found[1], "x"), entry.path)
                answer = await client.request(entry.method, path, json={"password": added.password})
                assert (answer.status_code, answer.json()["code"]) == (403, "password_change_required"), path
            from hub_server.web.routes import ACT, READ

            for method, table in (("GET", READ), ("POST", ACT)):
                for address, _ in table:
                    path = re.sub(r"{(\w+)}", lambda found: ids.get(found[1], "x"), address)
                    if path in ("/profile", "/profile/password", "/sign-out"):
                        continue
                    answer = await client.request(method, path)
                    assert (answer.status_code, answer.headers["location"]) == (303, "/profile"), path
                    answer = await client.request(method, path, headers={"HX-Request": "true"})
                    assert answer.headers["HX-Redirect"] == "/profile"
            assert (await client.get("/profile")).status_code == 200
            assert (await client.get("/v1/me")).json()["must_change_password"] is True
            for new, field in ((added.password, "new"), ("short", "new")):
                answer = await client.post("/v1/auth/password", json={"old": added.password, "new": new})
                assert (answer.status_code, answer.json()["field"]) == (422, field)
            answer = await client.post("/v1/auth/password", json={"old": added.password, "new": OWN})
            assert answer.status_code == 204
            assert (await client.get(CLUSTERS)).status_code == 200
            assert (await client.get(f"/clusters/{cluster}")).status_code == 200
