"""The JSON API, by programs with tokens: who may do what, what is refused, and that nothing of another tenant shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hub_server.api.routes import ROUTES
from hub_server.domain.roles import Role
from tests.hub.clocked import Bench, clocked_hub

CLUSTERS = "/v1/tenants/default/clusters"


@pytest.mark.parametrize("role", [*Role, None])
async def test_only_an_admin_of_the_tenant_invites(tmp_path: Path, role: Role | None) -> None:
    """A5: admin 201, other roles 403, other tenants 404 as if there were none, nobody 401; each but that audited."""
    async with clocked_hub(tmp_path) as hub:
        await hub.tenant("other")
        if role is None:
            async with hub.client() as client:
                answer = await client.post(CLUSTERS, json={"name": "acme"})
            async with hub.client("dlp_never-was-one") as client:
                assert (await client.post(CLUSTERS, json={"name": "acme"})).status_code == 401
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
            return
        async with hub.client(await hub.token(role)) as client:
            answer = await client.post(CLUSTERS, json={"name": "acme"})
            assert answer.status_code == (201 if role is Role.ADMIN else 403)
            [entry] = await hub.audited("cluster.create")
            assert entry.result == ("ok" if role is Role.ADMIN else "forbidden")
            foreign = await client.post("/v1/tenants/other/clusters", json={"name": "acme"})
            absent = await client.post("/v1/tenants/absent/clusters", json={"name": "acme"})
            assert foreign.status_code == 404
            assert foreign.content == absent.content


async def test_a_token_without_the_scope_does_not_invite_and_an_expired_session_is_nobody(tmp_path: Path) -> None:
    """A5."""
    async with clocked_hub(tmp_path) as hub:
        async with hub.client(await hub.token(scopes=["see"])) as client:
            assert (await client.post(CLUSTERS, json={"name": "acme"})).status_code == 403
            assert (await client.get(CLUSTERS)).status_code == 200
        async with hub.client(signed_in=True) as client:
            assert (await client.post(CLUSTERS, json={"name": "acme"})).status_code == 201
            hub.clock.at += 1801
            assert (await client.post(CLUSTERS, json={"name": "acme-2"})).status_code == 401


async def test_a_browser_needs_the_sessions_token(tmp_path: Path) -> None:
    """Section 19: a cookie alone changes nothing."""
    async with clocked_hub(tmp_path) as hub:
        for headers in ({"X-CSRF-Token": ""}, {"X-CSRF-Token": "0" * 64}, {"Origin": "https://evil.example"}):
            async with hub.client(signed_in=True, headers=headers) as client:
                answer = await client.post(CLUSTERS, json={"name": "acme"})
                assert (answer.status_code, answer.json()["code"]) == (403, "csrf")
                assert (await client.get(CLUSTERS)).json()["total"] == 0


@pytest.mark.parametrize("name", ["", " ", "a" * 64, "-a", "a_b", "a b", "é", "<b>", "a\n"])
async def test_a_bad_name_is_tied_to_its_field(tmp_path: Path, name: str) -> None:
    """A6: and nothing is made."""
    async with clocked_hub(tmp_path) as hub, hub.client(await hub.token()) as client:
        answer = await client.post(CLUSTERS, json={"name": name})
        if name == "a\n":  # what surrounds a name is not part of it
            assert answer.status_code == 201
            return
        assert (answer.status_code, answer.json()["field"]) == (422, "name")
        assert (await client.get(CLUSTERS)).json()["total"] == 0


async def test_a_name_is_taken_in_its_tenant_in_any_case(tmp_path: Path) -> None:
    """A6: not in another tenant, and not by a deleted row."""
    async with clocked_hub(tmp_path) as hub:
        other = await hub.tenant("other")
        invite = await hub.invite("acme-eu-prod")
        async with hub.client(await hub.token()) as client:
            answer = await client.post(CLUSTERS, json={"name": "Acme-EU-prod"})
            assert (answer.status_code, answer.json()["field"]) == (422, "name")
        await hub.invite("acme-eu-prod", other)
        await hub.services.clusters.delete(await hub.authenticated(), invite.cluster_id, confirm_name="acme-eu-prod")
        await hub.invite("acme-eu-prod")


@pytest.mark.parametrize(
    ("cidr", "word"),
    [
        ("10.1.0.0/24", "overlaps"), ("10.1.0.128/25", "overlaps"), ("10.2.0.1/24", "not a network"),
        ("nonsense", "not a network"), ("8.8.8.0/24", "not private"), ("10.3.0.0/30", "too small"),
        ("0.0.0.0/0", "not private"), ("fd00::/64", "IPv4"), ("10.0.0.0/7", "not"),
    ],
)  # fmt: skip
async def test_a_bad_subnet_is_told_why(tmp_path: Path, cidr: str, word: str) -> None:
    """A7: a specific error, and nothing changed."""
    async with clocked_hub(tmp_path) as hub, hub.client(await hub.token()) as client:
        assert (await client.post("/v1/tenants/default/subnets", json={"cidr": "10.1.0.0/24"})).status_code == 201
        before = (await client.get("/v1/tenants/default/subnets")).json()
        answer = await client.post("/v1/tenants/default/subnets", json={"cidr": cidr})
        assert (answer.status_code, answer.json()["field"]) == (422, "cidr")
        assert word in answer.json()["detail"]
        answer = await client.post(CLUSTERS, json={"name": "acme", "subnet_id": "sn_absent"})
        assert (answer.status_code, answer.json()["field"]) == (422, "subnet")
        assert (await client.get("/v1/tenants/default/subnets")).json() == before
        assert (await client.get(CLUSTERS)).json()["total"] == 0


async def test_the_default_subnet_is_enough_and_another_may_be_chosen(tmp_path: Path) -> None:
    """A7."""
    async with clocked_hub(tmp_path) as hub, hub.client(await hub.token()) as client:
        chosen = (await client.post("/v1/tenants/default/subnets", json={"cidr": "10.1.0.0/24"})).json()
        for name, subnet in (("default", None), ("chosen", chosen["id"])):
            made = (await client.post(CLUSTERS, json={"name": name, "subnet_id": subnet})).json()
            answer = await hub.post(hub.key().asks(made["token"], hub.clock()))
            assert answer.json()["address"].startswith("100.96.0." if subnet is None else "10.1.0.")


def _sendable(path: str, ids: dict[str, str]) -> str:
    return re.sub(r"{(\w+)}", lambda found: ids[found[1]], path)


async def test_every_foreign_id_answers_as_one_that_does_not_exist(tmp_path: Path) -> None:
    """A59: in every path of the API, byte for byte."""
    async with clocked_hub(tmp_path) as hub:
        mine = {"tenant": "default", "cluster": await hub.joined("mine")}
        tenant = await hub.tenant("other")
        invite = await hub.invite("theirs", tenant)
        await hub.redeem(invite)
        await hub.post(hub.key().asks(invite.token, hub.clock()))  # opens an alert of theirs
        [alert] = (await hub.services.alerts.list(hub.admin, tenant)).items
        tokens = await hub.services.tokens.create(
            await hub.authenticated(), tenant, name="theirs", role=Role.VIEWER, scopes=["see"]
        )
        foreign = {
            "tenant": tenant, "cluster": invite.cluster_id, "alert": alert.id, "token": tokens.token.id,
            "user": hub.admin.id, "channel": "ch_theirs", "kubeconfig": "kc_theirs",
        }  # fmt: skip
        absent = dict.fromkeys(foreign, "xx_aaaaaaaaaaaaaaaa")
        body = {
            "name": "x", "confirm_name": "theirs", "line": "get pods", "cidr": "10.77.0.0/24", "email": "a@b.example",
            "role": "viewer", "url": "https://example.com/", "kinds": ["connected"], "scopes": ["see"],
        }  # fmt: skip
        async with hub.client(await hub.token()) as client:
            tried = 0
            for entry in ROUTES:
                names = re.findall(r"{(\w+)}", entry.path)
                for name in names:
                    their = _sendable(entry.path, foreign | mine | {name: foreign[name]})
                    nobodys = _sendable(entry.path, foreign | mine | {name: absent[name]})
                    answers = [await client.request(entry.method, path, json=body) for path in (their, nobodys)]
                    if name == "user" and answers[0].status_code != 404:
                        continue  # the administrator of this test is a member of both
                    assert answers[0].status_code == 404, (entry.method, their, answers[0].text)
                    assert answers[0].content == answers[1].content
                    tried += 1
            assert tried > 30
            text = (await client.get(f"{CLUSTERS}?limit=500")).text + (await client.get("/v1/me")).text
        assert invite.cluster_id not in text
        assert tenant not in text
        assert (await hub.row(invite.cluster_id)).name == "theirs"


async def test_nobody_reads_and_nobody_changes_without_signing_in(tmp_path: Path) -> None:
    """A5: every operation of the table."""
    ids = dict.fromkeys(("tenant", "cluster", "alert", "token", "user", "channel", "kubeconfig"), "x")
    async with clocked_hub(tmp_path) as hub, hub.client() as client:
        for entry in ROUTES:
            answer = await client.request(entry.method, _sendable(entry.path, ids))
            assert answer.status_code == 401, entry
            assert answer.headers["content-type"] == "application/problem+json"


async def _created(hub: Bench, client: Any, key: str, name: str) -> Any:
    return await client.post(CLUSTERS, json={"name": name}, headers={"Idempotency-Key": key})


async def test_a_repeated_create_is_answered_as_before(tmp_path: Path) -> None:
    """Section 7: the same token again, and one cluster; another request under the key is refused."""
    async with clocked_hub(tmp_path) as hub, hub.client(await hub.token()) as client:
        first, second = await _created(hub, client, "k1", "acme"), await _created(hub, client, "k1", "acme")
        assert first.status_code == second.status_code == 201
        assert first.json() == second.json()
        assert (await client.get(CLUSTERS)).json()["total"] == 1
        answer = await _created(hub, client, "k1", "other")
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_mismatch")


async def test_a_change_may_name_what_it_read(tmp_path: Path) -> None:
    """Section 7, D21: a stale If-Match is 412; renaming keeps id, address and tunnel, and is audited."""
    async with clocked_hub(tmp_path) as hub, hub.client(await hub.token()) as client:
        cluster = await hub.joined("before")
        read = await client.get(f"/v1/clusters/{cluster}")
        match = {"If-Match": read.headers["etag"]}
        answer = await client.patch(f"/v1/clusters/{cluster}", json={"name": "after"}, headers=match)
        assert (answer.status_code, answer.json()["name"]) == (200, "after")
        assert answer.json()["address"] == read.json()["row"]["address"]
        assert answer.headers["etag"] != read.headers["etag"]
        answer = await client.patch(f"/v1/clusters/{cluster}", json={"name": "third"}, headers=match)
        assert (answer.status_code, answer.json()["code"]) == (412, "stale")
        [entry] = await hub.audited("cluster.update")
        assert entry.detail == {"name": ["before", "after"]}
        assert hub.wire.was_cut == []


async def test_deleting_needs_the_name(tmp_path: Path) -> None:
    """A36: by the API too."""
    async with clocked_hub(tmp_path) as hub, hub.client(await hub.token()) as client:
        cluster = await hub.joined("acme")
        address = f"/v1/clusters/{cluster}"
        assert (await client.request("DELETE", address, json={"confirm_name": "acm"})).json()["field"] == "confirm_name"
        assert (await client.request("DELETE", address, json={"confirm_name": "acme"})).status_code == 204
        assert (await client.get(address)).status_code == 404
        assert (hub.wire.peers, hub.wire.was_cut) == ({}, [cluster])


async def test_a_person_types_the_password_again_before_deleting(tmp_path: Path) -> None:
    """A36: it is good for five minutes."""
    async with clocked_hub(tmp_path) as hub, hub.client(signed_in=True) as client:
        address = f"/v1/clusters/{await hub.joined('acme')}"
        hub.clock.at += 301
        answer = await client.request("DELETE", address, json={"confirm_name": "acme"})
        assert (answer.status_code, answer.json()["code"]) == (403, "reauthentication_required")
        for password, status in (("wrong", 401), (hub.password, 204)):
            assert (await client.post("/v1/auth/reauthenticate", json={"password": password})).status_code == status
        assert (await client.request("DELETE", address, json={"confirm_name": "acme"})).status_code == 204


async def test_the_description_has_every_operation(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub, hub.client() as client:
        paths = (await client.get("/v1/openapi.json")).json()["paths"]
        assert {(method.upper(), path) for path, ways in paths.items() for method in ways} == {
            (entry.method, entry.path) for entry in ROUTES
        }


async def test_events_come_in_pages(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub, hub.client(await hub.token()) as client:
        cluster = await hub.joined()
        for _ in range(5):
            await hub.passes(20)
            hub.beat(cluster)
        await hub.presence.flush()
        seen, cursor = [], ""
        while True:
            answer = (await client.get(f"/v1/clusters/{cluster}/events?limit=4&cursor={cursor}")).json()
            seen += [event["id"] for event in answer["items"]]
            if not (cursor := answer["next_cursor"] or ""):
                break
        assert seen == sorted(set(seen), reverse=True)
        assert len(seen) == len(await hub.events(cluster))
        for bad in ("limit=0", "limit=501", "limit=x"):
            assert (await client.get(f"/v1/clusters/{cluster}/events?{bad}")).status_code == 422
