"""Invites: who may make one, what it prints, when it is over, and what a redemption gives."""

from __future__ import annotations

import base64
import json
import shlex
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wgpy
from edge_agent.contract import Exchange, Token, encode_key
from hub_server.domain.errors import Forbidden, HubError, Invalid, NotFound
from hub_server.domain.names import check_name
from hub_server.domain.roles import Right, Role
from hub_server.domain.token import TOKEN_LENGTH, make_token, parse_token, secret_hash
from hub_server.services.joining import Refused
from hub_server.services.views import Actor
from hub_server.store import schema
from tests.hub.ground import Ground


async def refusal(awaitable: Any) -> tuple[int, str]:
    with pytest.raises(HubError) as caught:
        await awaitable
    return caught.value.status, caught.value.code


async def test_only_an_admin_of_the_tenant_invites(tmp_path: Path) -> None:
    """A5: 201 for an admin, 403 for other roles and tokens without the right, 404 for others; each is audited."""
    ground = await Ground.make(tmp_path)
    other = await ground.other_tenant()
    clusters = ground.services.clusters
    people = {role: await ground.person(role) for role in Role}
    strangers = {role: await ground.person(role, other) for role in Role}
    await clusters.create(people[Role.ADMIN], ground.tenant_id, name="one")
    for role in (Role.OPERATOR, Role.VIEWER, Role.AUDITOR):
        with pytest.raises(Forbidden):
            await clusters.create(people[role], ground.tenant_id, name="two")
    texts = set()
    for role in Role:
        with pytest.raises(NotFound) as caught:
            await clusters.create(strangers[role], ground.tenant_id, name="two")
        texts.add(str(caught.value))
    with pytest.raises(NotFound) as caught:
        await clusters.row(people[Role.ADMIN], "cl_nothere")
    assert texts == {str(caught.value)}, "another tenant's reads like one that is not there"

    async def program(*scopes: Right) -> Actor:
        made = await ground.services.tokens.create(
            ground.admin, ground.tenant_id, name="ci", role=Role.ADMIN, scopes=scopes
        )
        actor = await ground.services.accounts.actor_of_token(made.secret, remote="192.0.2.2")
        assert actor is not None
        return actor

    with pytest.raises(Forbidden):
        await clusters.create(await program(Right.SEE), ground.tenant_id, name="two")
    await clusters.create(await program(Right.MANAGE), ground.tenant_id, name="three")
    await ground.reauthenticated()
    entries = await ground.audited("cluster.create")
    assert sorted(entry.result for entry in entries) == ["forbidden"] * 4 + ["not_found"] * 4 + ["ok"] * 2
    assert {entry.actor for entry in entries if entry.result == "not_found"} == {
        actor.email for actor in strangers.values()
    }
    assert ground.count(schema.clusters) == 2


async def test_a_session_that_is_over_invites_nobody(tmp_path: Path) -> None:
    """A5: an expired sign-in is nobody."""
    ground = await Ground.make(tmp_path)
    ground.clock.forward(1801)
    assert await ground.services.accounts.actor_of_session(ground.cookie, remote="192.0.2.9") is None


async def test_names(tmp_path: Path) -> None:
    """A6: duplicates in any case, empty, too long and bad ones are refused by field; another tenant may have it."""
    ground = await Ground.make(tmp_path)
    other = await ground.other_tenant()
    await ground.reauthenticated()
    await ground.invite("acme-eu-prod")
    before = [ground.count(table) for table in (schema.clusters, schema.invites, schema.leases)]
    for name in ("acme-eu-prod", "ACME-eu-prod", " acme-eu-prod ", "", "   ", "a" * 64, "no spaces", "-a", "a-", "a\n"):
        if name == "a\n":
            assert check_name(name)
            continue
        with pytest.raises(Invalid) as caught:
            await ground.invite(name)
        assert caught.value.field == "name"
    assert [ground.count(table) for table in (schema.clusters, schema.invites, schema.leases)] == before
    await ground.invite("acme-eu-prod", other)
    await ground.invite("a" * 63)


async def test_subnets(tmp_path: Path) -> None:
    """A7: the default is enough; an unfit one is refused by field, and so is one that is full; nothing is left over."""
    ground = await Ground.make(tmp_path)
    tenants = ground.services.tenants
    [default] = await tenants.subnets(ground.admin, ground.tenant_id)
    assert (default.is_default, default.cidr, default.leased) == (True, "100.96.0.0/24", 0)
    assert default.hub_address == "100.96.0.1"
    unfit = {
        "100.96.0.128/25": "overlaps", "10.0.0.1/24": "not a network", "nonsense": "not a network",
        "8.8.8.0/24": "not private", "10.0.0.0/30": "too small", "fd00::/64": "IPv4",
    }  # fmt: skip
    for cidr, words in unfit.items():
        with pytest.raises(Invalid, match=words) as caught:
            await tenants.add_subnet(ground.admin, ground.tenant_id, cidr)
        assert caught.value.field == "cidr"
    small = await tenants.add_subnet(ground.admin, ground.tenant_id, "10.20.0.0/29")
    assert (small.free, small.hub_address) == (5, default.hub_address)
    for number in range(5):
        invite = await ground.invite(f"small-{number}", subnet_id=small.id)
        await ground.redeem(invite.token)
        row = await ground.row(invite.cluster_id)
        assert row.address == f"10.20.0.{number + 2}", "the first address is never given"
        assert row.address6 is not None
    before = [ground.count(table) for table in (schema.clusters, schema.invites, schema.leases)]
    with pytest.raises(Invalid) as caught:
        await ground.invite("small-5", subnet_id=small.id)
    assert (caught.value.field, caught.value.code) == ("subnet", "subnet_exhausted")
    with pytest.raises(Invalid) as caught:
        await ground.invite("small-5", subnet_id="sn_of_somebody_else")
    assert caught.value.field == "subnet"
    assert [ground.count(table) for table in (schema.clusters, schema.invites, schema.leases)] == before
    six = [peer.address6 for peer in ground.wire.peers.values()]
    await ground.redeem((await ground.invite("in-default")).token)
    assert len({*six, ground.wire.peers[next(reversed(ground.wire.peers))].address6}) == 6


async def test_a_full_subnet_burns_no_token(tmp_path: Path) -> None:
    """A7: what is full at redemption is 503, and the token is good afterwards."""
    ground = await Ground.make(tmp_path)
    small = await ground.services.tenants.add_subnet(ground.admin, ground.tenant_id, "10.20.0.0/29")
    invites = [await ground.invite(f"small-{number}", subnet_id=small.id) for number in range(6)]
    for invite in invites[:5]:
        await ground.redeem(invite.token)
    assert await refusal(ground.redeem(invites[5].token)) == (503, "subnet_exhausted")
    await ground.services.clusters.delete(await ground.reauthenticated(), invites[0].cluster_id, confirm_name="small-0")
    assert await refusal(ground.redeem(invites[5].token)) == (503, "subnet_exhausted")
    await ground.services.clusters.regenerate(ground.admin, invites[5].cluster_id)
    ground.clock.forward(86400)
    fresh = await ground.services.clusters.regenerate(await ground.reauthenticated(), invites[5].cluster_id)
    await ground.redeem(fresh.token)
    assert (await ground.row(invites[5].cluster_id)).address == "10.20.0.2"


async def test_a_token_is_nowhere_but_in_its_answer(tmp_path: Path) -> None:
    """A8: the database's files have a hash of the secret, and neither token nor secret in any spelling."""
    ground = await Ground.make(tmp_path)
    invite = await ground.invite()
    token = parse_token(invite.token)
    assert token is not None
    assert len(token.secret) * 8 >= 128
    export = await ground.services.audit.export(ground.admin, ground.tenant_id)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}  # noqa: ASYNC240
    assert any(secret_hash(token.secret) in octets for octets in files.values())
    spellings = [
        invite.token.encode(), token.secret, token.secret.hex().encode(), invite.token.split("_")[2].encode(),
        base64.b64encode(token.secret), base64.urlsafe_b64encode(token.secret),
    ]  # fmt: skip
    for spelling in spellings:
        assert not [name for name, octets in (files | {"export": export.encode()}).items() if spelling in octets]
    again = await ground.services.clusters.invite(ground.admin, invite.cluster_id)
    assert again is not None
    assert token.text() not in repr(again)


def test_ten_thousand_tokens() -> None:
    """A8: no two alike, and every one passes its checksum; one that was mistyped does not."""
    import os

    hub = bytes(wgpy.PrivateKey(bytes(range(1, 33))).public_key)
    texts = {make_token(os.urandom(39), hub).text() for _ in range(10_000)}
    assert len(texts) == 10_000
    for text in texts:
        assert len(text) == TOKEN_LENGTH
        token = parse_token(text)
        assert token is not None
        assert token.text() == text
    text = texts.pop()
    for at in (4, 20, 70, 126):
        wrong = text[:at] + ("a" if text[at] != "a" else "b") + text[at + 1 :]
        assert parse_token(wrong) is None


@given(st.text(max_size=200) | st.binary(max_size=140).map(lambda octets: octets.decode("latin-1")))
def test_whatever_is_no_token_is_none(text: str) -> None:
    """A14: parsing never raises."""
    assert parse_token(text) is None
    assert parse_token("dle_" + text) is None


@pytest.mark.parametrize(("age", "expected"), [(0, 200), (3599, 200), (3600, 410), (3601, 410)])
async def test_an_invite_lasts_an_hour(tmp_path: Path, age: float, expected: int) -> None:
    """A9: to the second, and the row says so from then on."""
    ground = await Ground.make(tmp_path)
    invite = await ground.invite()
    ground.clock.forward(age)
    ground.presence.tick()
    await ground.presence.flush()
    row = await ground.row(invite.cluster_id)
    assert row.reason == ("InvitePending" if age < 3600 else "InviteExpired")
    if expected == 200:
        key = bytes(wgpy.PrivateKey.generate())
        first = await ground.redeem(invite.token, key)
        ground.clock.forward(3600)
        assert (await ground.redeem(invite.token, key)).body == first.body, "the retry of a lost answer (D5)"
    else:
        assert await refusal(ground.redeem(invite.token)) == (410, "token_expired")
        kinds = [one.kind for one in await ground.events(invite.cluster_id)]
        assert kinds == ["invite.created", "invite.expired"]
        await ground.services.clusters.regenerate(ground.admin, invite.cluster_id)
        assert (await ground.row(invite.cluster_id)).reason == "InvitePending"


async def test_the_printed_command(tmp_path: Path) -> None:
    """A11: word for word the handbook's."""
    ground = await Ground.make(tmp_path)
    invite = await ground.invite()
    assert invite.command == (
        "helm install daalu-edge oci://ghcr.io/daalu/charts/daalu-edge \\\n"
        "  --namespace daalu-edge --create-namespace \\\n"
        "  --set hub.url=https://hub.example \\\n"
        f"  --set bootstrap.token={invite.token}"
    )
    assert shlex.split(invite.command.replace("\\\n", "")) == [
        "helm", "install", "daalu-edge", "oci://ghcr.io/daalu/charts/daalu-edge", "--namespace", "daalu-edge",
        "--create-namespace", "--set", "hub.url=https://hub.example", "--set", f"bootstrap.token={invite.token}",
    ]  # fmt: skip
    assert invite.expires_at == ground.clock() + 3600
    assert invite.undo_command == "helm uninstall -n daalu-edge daalu-edge"


async def test_what_a_redemption_gives(tmp_path: Path) -> None:
    """A14: endpoints, hub key, an address of the subnet, MTU, keepalive, the sealed key, a revision, a valid MAC."""
    ground = await Ground.make(tmp_path, keepalive=10)
    invite = await ground.invite()
    key = bytes(wgpy.PrivateKey.generate())
    request = ground.request(invite.token, key)
    answer = await ground.joining.redeem(request, "192.0.2.1")
    exchange = Exchange(key, Token.parse(invite.token).hub_key)
    assert exchange.is_signed(answer.body, request.nonce, base64.b64encode(answer.mac).decode())
    document = json.loads(answer.body)
    psk = exchange.open_psk(document.pop("psk_sealed"), invite.cluster_id)
    peer = ground.wire.peers[invite.cluster_id]
    assert (peer.preshared_key, peer.public_key) == (psk, request.public_key)
    assert document == {
        "cluster_id": invite.cluster_id, "address": "100.96.0.2", "address6": str(peer.address6),
        "mtu": 1420, "keepalive": 10, "config_revision": 1,
        "hub": {
            "pubkey": encode_key(ground.core.hub_key), "endpoints": ["hub.example:51820"], "relay_url": None,
            "address": "100.96.0.1", "address6": str(ground.wire.realms[ground.tenant_id].address6),
        },
    }  # fmt: skip
    assert psk not in (tmp_path / "hub.db").read_bytes() + (tmp_path / "hub.db-wal").read_bytes(), "sealed at rest"


async def test_many_tenants_on_overlapping_subnets(tmp_path: Path) -> None:
    """A14 and A59: no answer holds another tenant's address, key or name, and an address is given once in a realm."""
    ground = await Ground.make(tmp_path)
    tenants = [await ground.other_tenant(f"tenant-{number}") for number in range(12)]
    admin = await ground.reauthenticated()
    given_to: dict[str, set[str]] = {}
    for tenant in tenants:
        subnet = await ground.services.tenants.add_subnet(admin, tenant, "10.7.0.0/24")
        for number in range(4):
            name = f"{tenant}-{number}".replace("_", "-")
            invite = await ground.invite(name, tenant, subnet_id=subnet.id)
            answer = await ground.redeem(invite.token)
            document = json.loads(answer.body)
            assert IPv4Address(document["address"]) in IPv4Network("10.7.0.0/24")
            text = answer.body.decode()
            assert not [other for other in tenants if other in text]
            given_to.setdefault(tenant, set()).add(document["address"])
            assert ground.wire.peers[invite.cluster_id].tenant_id == tenant
    assert all(addresses == {f"10.7.0.{last}" for last in range(2, 6)} for addresses in given_to.values())
    hubs = {realm.address for realm in ground.wire.realms.values()}
    assert len(hubs) == len(ground.wire.realms), "every tenant has a /24 of the pool of its own"


async def test_the_same_token_and_key_get_the_same_answer_for_a_day(tmp_path: Path) -> None:
    """A16 (a): one lease, one row, the same octets; a day later it is 409 without an alert."""
    ground = await Ground.make(tmp_path)
    invite = await ground.invite()
    key = bytes(wgpy.PrivateKey.generate())
    bodies = set()
    for seconds in (0, 1, 1800, 7200, 70_000):
        bodies.add((await ground.redeem(invite.token, key)).body)
        ground.clock.forward(seconds)
    assert len(bodies) == 1
    assert ground.count(schema.leases) == ground.count(schema.peers) == 1
    ground.clock.forward(86400)
    assert await refusal(ground.redeem(invite.token, key)) == (409, "token_used")
    await ground.reauthenticated()
    assert await ground.alerts() == []


async def test_another_key_is_refused_and_told(tmp_path: Path) -> None:
    """A16 (c), A56: 409, one open alert that names both places; the rightful retry is still answered."""
    ground = await Ground.make(tmp_path)
    invite = await ground.invite()
    key = bytes(wgpy.PrivateKey.generate())
    first = await ground.redeem(invite.token, key, cluster_uid="uid-one")
    for _ in range(3):
        with pytest.raises(Refused, match="already used by another cluster") as caught:
            await ground.redeem(invite.token, remote="198.51.100.7", cluster_uid="uid-two")
        assert (caught.value.status, caught.value.code) == (409, "token_used")
    assert (await ground.redeem(invite.token, key, cluster_uid="uid-one")).body == first.body
    [alert] = await ground.alerts(open_only=True)
    assert alert.kind == "invite_used"
    for word in ("198.51.100.7", "uid-two", "192.0.2.1", "uid-one"):
        assert word in alert.detail
    assert (await ground.row(invite.cluster_id)).open_alerts == 1
    assert [entry.result for entry in await ground.audited("invite.redeem")] == ["token_used"] * 3 + ["ok"]
    seen = await ground.services.alerts.acknowledge(ground.admin, alert.id)
    assert seen.resolved_at == ground.clock(), "nothing else would ever end it"
    assert (await ground.row(invite.cluster_id)).open_alerts == 0


async def test_the_same_cluster_installed_again_needs_a_new_invite(tmp_path: Path) -> None:
    """A56, D5: a re-install with the old command is an event, not a theft."""
    ground = await Ground.make(tmp_path)
    invite = await ground.invite()
    await ground.redeem(invite.token, cluster_uid="uid-one")
    assert await refusal(ground.redeem(invite.token, cluster_uid="uid-one")) == (409, "token_used")
    assert await ground.alerts() == []
    last = (await ground.events(invite.cluster_id))[-1]
    assert (last.kind, last.reason) == ("invite.needed", "NeedsNewInvite")


async def test_regenerating_voids_what_was_not_used(tmp_path: Path) -> None:
    """A40: the old token is 410 in the very next request; a token that was redeemed is not disturbed."""
    ground = await Ground.make(tmp_path)
    old = await ground.invite()
    new = await ground.services.clusters.regenerate(ground.admin, old.cluster_id)
    assert await refusal(ground.redeem(old.token)) == (410, "token_revoked")
    key = bytes(wgpy.PrivateKey.generate())
    answer = await ground.redeem(new.token, key)
    address = (await ground.row(old.cluster_id)).address
    third = await ground.services.clusters.regenerate(ground.admin, old.cluster_id)
    assert (await ground.redeem(new.token, key)).body == answer.body
    row = await ground.row(old.cluster_id)
    assert (row.phase, row.address) == ("redeemed", address)
    assert ground.wire.peers[old.cluster_id].public_key == bytes(wgpy.PrivateKey(key).public_key)
    await ground.services.clusters.revoke_invite(ground.admin, old.cluster_id)
    assert await refusal(ground.redeem(third.token)) == (410, "token_revoked")


async def test_races_of_regenerating_and_redeeming_leave_one_token(tmp_path: Path) -> None:
    """A40: at most one token is unused or redeemed after each of twenty races."""
    import trio

    ground = await Ground.make(tmp_path)
    refusals: list[str] = []
    for number in range(20):
        invite = await ground.invite(f"race-{number}")

        async def redeem(token: str) -> None:
            try:
                await ground.redeem(token)
            except HubError as problem:
                refusals.append(problem.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(redeem, invite.token)
            nursery.start_soon(ground.services.clusters.regenerate, ground.admin, invite.cluster_id)
        table = schema.invites
        mine = table.c.cluster_id == invite.cluster_id
        assert ground.count(table, mine, table.c.used_at.is_(None), table.c.revoked_at.is_(None)) == 1
        assert ground.count(table, mine, table.c.used_at.is_not(None)) <= 1
        assert ground.count(table, mine) == 2
    assert set(refusals) <= {"token_revoked"}


async def test_proof_of_possession(tmp_path: Path) -> None:
    """A58: whatever was altered is 422 and leases nothing; the token is good afterwards."""
    ground = await Ground.make(tmp_path)
    invite = await ground.invite()
    good = ground.request(invite.token)
    low_order = (
        bytes(32),
        (1).to_bytes(32, "little"),
        bytes.fromhex("ecffffffffffffffffffffffffffffff" + "ff" * 15 + "7f"),
    )
    wrong = {
        "bad_proof": [
            replace(good, nonce=bytes(16)), replace(good, ts=good.ts + 1), replace(good, proof=bytes(32)),
            replace(good, proof=b""), replace(good, public_key=bytes(wgpy.PrivateKey.generate().public_key)),
        ],
        "bad_pubkey": [
            replace(good, public_key=b""), replace(good, public_key=ground.core.hub_key),
            *(replace(good, public_key=key) for key in low_order),
        ],
    }  # fmt: skip
    for code, requests in wrong.items():
        for request in requests:
            assert await refusal(ground.joining.redeem(request, "192.0.2.1")) == (422, code)
    ground.clock.forward(601)
    assert await refusal(ground.joining.redeem(good, "192.0.2.1")) == (422, "clock_skew")
    ground.clock.forward(-601)
    assert ground.count(schema.leases) == ground.count(schema.peers) == 0
    first = await ground.joining.redeem(good, "192.0.2.1")
    assert (await ground.joining.redeem(good, "198.51.100.7")).body == first.body, "replayed: the same answer"
    assert ground.count(schema.leases) == 1
    thief = await ground.invite("thief")
    key = bytes(wgpy.PrivateKey.generate())
    await ground.redeem(thief.token, key)
    second = await ground.services.clusters.regenerate(ground.admin, invite.cluster_id)
    assert await refusal(ground.redeem(second.token, key)) == (422, "bad_pubkey"), "a key belongs to one cluster"


async def test_unknown_tokens_read_alike(tmp_path: Path) -> None:
    """A15: an unknown id, a wrong secret, and another hub's token get one answer."""
    ground = await Ground.make(tmp_path)
    invite = await ground.invite()
    token = parse_token(invite.token)
    assert token is not None
    hub = token.hub_key
    elsewhere = bytes(wgpy.PrivateKey.generate().public_key)
    texts = set()
    for other in (make_token(bytes(39), hub), replace(token, secret=bytes(32)), replace(token, hub_key=elsewhere)):
        with pytest.raises(Refused) as caught:
            await ground.redeem(other.text())
        texts.add((caught.value.status, caught.value.code, caught.value.detail))
    assert texts == {(401, "token_unknown", "this token is not known here")}


async def test_an_old_protocol_is_named(tmp_path: Path) -> None:
    """A15: 426 says which side is old, and burns nothing."""
    ground = await Ground.make(tmp_path)
    invite = await ground.invite()
    with pytest.raises(Refused, match="the edge is too old") as caught:
        await ground.redeem(invite.token, protocol=0)
    assert caught.value.status == 426
    with pytest.raises(Refused, match="the hub is too old"):
        await ground.redeem(invite.token, protocol=2)
    await ground.redeem(invite.token)


async def test_guessing_is_slow(tmp_path: Path) -> None:
    """A15: too many requests with one id or from one address are 429 with a time to wait."""
    ground = await Ground.make(tmp_path, bootstrap_id_rate=5, bootstrap_rate=5)
    invite = await ground.invite()
    token = parse_token(invite.token)
    assert token is not None
    for _ in range(5):
        assert (await refusal(ground.redeem(replace(token, secret=bytes(32)).text())))[0] == 401
        ground.joining.refuse_if_too_many("192.0.2.1")
    assert (await refusal(ground.redeem(invite.token)))[0] == 429
    with pytest.raises(HubError) as caught:
        ground.joining.refuse_if_too_many("192.0.2.1")
    assert caught.value.status == 429
    ground.joining.refuse_if_too_many("192.0.2.2")
    ground.clock.forward(12)
    await ground.redeem(invite.token)
