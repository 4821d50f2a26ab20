"""Tokens and their redemption, by a clock that the test sets: single use, an hour, proof, repeats, addresses."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub_server import jobs
from hub_server.domain.token import make_token, parse_token
from hub_server.services.joining import Refused, parse_request_untrusted
from tests.hub.clocked import REMOTE, START, Bench, Clock, Key, clocked_hub

DAY = 86400.0


async def refusal(hub: Bench, document: dict[str, Any], **more: Any) -> tuple[int, str]:
    answer = await hub.post(document, **more)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert document.get("token", "-") not in answer.text
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(("age", "expected"), [(0, 200), (3599, 200), (3600, 410), (3601, 410)])
async def test_a_token_is_good_for_an_hour(tmp_path: Path, age: int, expected: int) -> None:
    """A9: to the second; the row says so by itself."""
    async with clocked_hub(tmp_path) as hub:
        invite = await hub.invite()
        assert invite.expires_at == hub.clock() + 3600
        await hub.passes(age, step=600)
        row = await hub.row(invite.cluster_id)
        assert row.reason == ("InviteExpired" if age >= 3600 else "InvitePending")
        key = hub.key()
        answer = await hub.post(key.asks(invite.token, hub.clock()))
        assert answer.status_code == expected
        if expected == 410:
            assert answer.json()["code"] == "token_expired"
            [subnet] = await hub.services.tenants.subnets(hub.admin, hub.tenant_id)
            assert subnet.leased == 0, "a refusal burns no address"


async def test_the_right_edge_may_ask_again_past_the_hour_but_not_past_a_day(tmp_path: Path) -> None:
    """A9, A16 (a): byte for byte the same for 24 h, also after the hub was restarted; then `token_used`, no alert."""
    clock = Clock()
    async with clocked_hub(tmp_path, clock) as hub:
        invite = await hub.invite()
        key = hub.key()
        first = await hub.post(key.asks(invite.token, clock()))
        password = hub.password
    async with clocked_hub(tmp_path, clock, password) as hub:
        for later in (30 * 60, 2 * 3600, DAY):
            clock.at = START + later
            document = key.asks(invite.token, clock())
            again = await hub.post(document)
            assert (again.status_code, again.content) == (200, first.content)
            assert key.believes(document, again)
        clock.at += 1
        assert await refusal(hub, key.asks(invite.token, clock())) == (409, "token_used")
        assert await hub.alerts() == []
        [subnet] = await hub.services.tenants.subnets(hub.admin, hub.tenant_id)
        assert subnet.leased == 1


async def _race(hub: Bench, keys: int) -> None:
    """Redeem one token with many keys at once, and look at what is left of it."""
    invite = await hub.invite()
    codes: list[int] = []

    async def one(number: int) -> None:
        document = hub.key().asks(invite.token, hub.clock(), cluster_uid=f"uid-{number}")
        codes.append((await hub.post(document)).status_code)

    async with trio.open_nursery() as nursery:
        for number in range(keys):
            nursery.start_soon(one, number)
    assert sorted(codes) == [200] + [409] * (keys - 1)
    assert (await hub.events(invite.cluster_id)).count("invite.redeemed") == 1
    mine = [entry for entry in await hub.audited("invite.redeem") if entry.cluster_id == invite.cluster_id]
    assert sorted(entry.result for entry in mine) == ["ok"] + ["token_used"] * (keys - 1)
    assert [alert.kind for alert in await hub.alerts(cluster_id=invite.cluster_id)] == ["invite_used"]


async def _rounds(folder: Path, rounds: int) -> None:
    async with clocked_hub(folder) as hub:
        for number in range(rounds):
            await _race(hub, 50)
            [subnet] = await hub.services.tenants.subnets(hub.admin, hub.tenant_id)
            assert subnet.leased == len(hub.wire.peers) == number + 1


async def test_of_fifty_keys_one_redeems_a_token(tmp_path: Path) -> None:
    """A10, two rounds."""
    await _rounds(tmp_path, 2)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_of_fifty_keys_one_redeems_a_token_a_hundred_times(tmp_path: Path) -> None:
    """A10, a hundred rounds."""
    await _rounds(tmp_path, 100)


async def test_a_token_is_secret_and_is_kept_by_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A8: 256 random bits, a hash at rest; neither files nor logs nor audit hold token or secret."""
    caplog.set_level(logging.DEBUG)
    async with clocked_hub(tmp_path) as hub:
        invite = await hub.invite()
        await refusal(hub, hub.key().asks(invite.token, hub.clock() + 7200))
        key = await hub.redeem(invite)
        await refusal(hub, hub.key().asks(invite.token, hub.clock()))
        export = await hub.services.audit.export(hub.admin, hub.tenant_id)
        token = parse_token(invite.token)
        assert token is not None
        psk = hub.wire.peers[invite.cluster_id].preshared_key
        written = _all_of(tmp_path)
        assert hashlib.sha256(token.secret).digest() in written
        assert invite.cluster_id.encode() in written
        secret_text = invite.token.split("_")[2]
        for secret in (invite.token.encode(), secret_text.encode(), token.secret, psk):
            for form in (secret, secret.hex().encode(), base64.b64encode(secret)):
                assert form not in written
                assert form.decode("latin-1") not in export + caplog.text
        assert base64.b64encode(key.exchange.public_key).decode() not in export


def _all_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_tokens_never_come_twice_and_add_up() -> None:
    """A8: ten thousand of them."""
    texts = {make_token(os.urandom(39), b"\x07" * 32).text() for _ in range(10_000)}
    assert len(texts) == 10_000
    assert all(parse_token(text) is not None and len(text) == 127 for text in texts)


async def test_what_is_wrong_is_said_only_to_who_has_the_secret(tmp_path: Path) -> None:
    """A58 and section 5: unknown id and wrong secret read alike; the rest is told apart behind the secret."""
    async with clocked_hub(tmp_path) as hub:
        invite, key, now = await hub.invite(), hub.key(), hub.clock()
        token = parse_token(invite.token)
        assert token is not None
        bodies = []
        for stranger in (
            dataclasses.replace(token, id="aaaaaaaaaa"),
            dataclasses.replace(token, secret=b"\x01" * 32),
            dataclasses.replace(token, hub_key=b"\x02" * 32),
        ):
            answer = await hub.post(key.asks(stranger.text(), now))
            assert answer.status_code == 401
            bodies.append(answer.content)
        answer = await hub.post(key.asks(invite.token, now) | {"token": invite.token[:-1] + "7"})
        bodies.append(answer.content)
        assert len(set(bodies)) == 1
        good = key.asks(invite.token, now)
        others = hub.key().asks(invite.token, now)
        cases = [
            (good | {"pubkey": base64.b64encode(bytes(32)).decode()}, (422, "bad_pubkey")),
            (good | {"pubkey": base64.b64encode(b"\x01" + bytes(31)).decode()}, (422, "bad_pubkey")),
            (good | {"pubkey": base64.b64encode(hub.core.hub_key).decode()}, (422, "bad_pubkey")),
            (good | {"pubkey": "AAAA"}, (422, "bad_pubkey")),
            (good | {"pubkey": others["pubkey"]}, (422, "bad_proof")),
            (good | {"nonce": others["nonce"]}, (422, "bad_proof")),
            (good | {"ts": good["ts"] + 1}, (422, "bad_proof")),
            (good | {"proof": ""}, (422, "bad_proof")),
            (good | {"protocol": 0}, (426, "version_too_old")),
            (good | {"protocol": 2}, (426, "version_too_old")),
            (good | {"ts": "now"}, (400, "bad_request")),
            (good | {"cluster_uid": "x" * 101}, (400, "bad_request")),
        ]
        for document, expected in cases:
            assert await refusal(hub, document) == expected
        for off in (-601, 601, 11 * 60):
            answer = await hub.post(key.asks(invite.token, now + off))
            assert (answer.status_code, answer.json()["code"]) == (422, "clock_skew")
            assert answer.json()["now"] == int(now)
        assert (await hub.post(key.asks(invite.token, now - 600))).status_code == 200, "and nothing was burned by it"


async def test_a_stolen_token_without_the_private_key_is_worth_nothing(tmp_path: Path) -> None:
    """A58: a replayed request gets the old answer or a refusal, never a new lease; `/self` likewise."""
    async with clocked_hub(tmp_path) as hub:
        invite, key = await hub.invite(), hub.key()
        heard = key.asks(invite.token, hub.clock())
        first = await hub.post(heard)
        assert (await hub.post(heard)).content == first.content
        thief = hub.key()
        as_somebody = thief.asks(invite.token, hub.clock()) | {"pubkey": heard["pubkey"]}
        assert await refusal(hub, as_somebody) == (422, "bad_proof")
        own = key.asks_for_itself(hub.clock())
        stolen = thief.asks_for_itself(hub.clock()) | {"pubkey": own["pubkey"]}
        answer = await hub.post(stolen, "self")
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_proof")
        hub.clock.at += 601
        answer = await hub.post(own, "self")
        assert (answer.status_code, answer.json()["code"]) == (422, "clock_skew")
        assert await refusal(hub, heard) == (422, "clock_skew")
        [subnet] = await hub.services.tenants.subnets(hub.admin, hub.tenant_id)
        assert subnet.leased == 1


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    document=st.dictionaries(
        st.sampled_from(["token", "pubkey", "proof", "nonce", "ts", "protocol", "cluster_uid", "chart_version"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=300), st.lists(st.integers(), max_size=3)),
    )
)
def test_whatever_is_sent_is_read_or_refused(document: dict[str, Any]) -> None:
    """A58: hostile documents never succeed and never break the hub."""
    for has_token in (True, False):
        with contextlib.suppress(Refused):
            assert len(parse_request_untrusted(document, has_token=has_token).public_key) in (0, 32)


async def test_bodies_are_bounded_and_must_be_json(tmp_path: Path) -> None:
    async with clocked_hub(tmp_path) as hub, hub.client() as client:
        for body in (b"{", b"[]", b"[" * 50_000, b"\xff", b""):
            answer = await client.post("/v1/edge/bootstrap", content=body)
            assert (answer.status_code, answer.json()["status"]) == (400, 400)
        assert (await client.get("/v1/edge/bootstrap")).status_code in (404, 405)


async def test_a_body_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    """A65 for the edge's address: 64 KiB, then 413."""
    sent: list[dict[str, Any]] = []
    pieces = 0

    async def receive() -> dict[str, Any]:
        nonlocal pieces
        pieces += 1
        return {"type": "http.request", "body": b" " * 4096, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/edge/bootstrap", "query_string": b"", "headers": [],
        "client": ("198.51.100.7", 1), "scheme": "https", "server": ("hub.example", 443), "root_path": "",
    }  # fmt: skip
    async with clocked_hub(tmp_path) as hub:
        await hub.application(scope, receive, send)
    assert (sent[0]["status"], pieces) == (413, 17)


async def test_who_asks_too_often_is_told_how_long_to_wait(tmp_path: Path) -> None:
    """Section 5: per address and per token id, with Retry-After; waiting helps."""
    async with clocked_hub(tmp_path, bootstrap_rate=10, bootstrap_id_rate=5) as hub:
        invite, key = await hub.invite(), hub.key()
        for _ in range(5):
            assert (await hub.post(key.asks(invite.token, hub.clock()))).status_code == 200
        answer = await hub.post(key.asks(invite.token, hub.clock()))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "12")
        other = await hub.invite()
        for _ in range(4):
            assert (await hub.post(key.asks(other.token, hub.clock()))).status_code == 422
        answer = await hub.post(key.asks(other.token, hub.clock()))
        assert answer.status_code == 429, "too many from one address"
        assert (await hub.post(hub.key().asks(other.token, hub.clock()), remote="203.0.113.9")).status_code == 200
        hub.clock.at += 12
        assert (await hub.post(key.asks(invite.token, hub.clock()))).status_code == 200


async def test_regenerating_voids_the_unused_invite_at_once(tmp_path: Path) -> None:
    """A40: the very next request with the old token is told so; the new one works."""
    async with clocked_hub(tmp_path) as hub:
        old = await hub.invite()
        new = await hub.services.clusters.regenerate(hub.admin, old.cluster_id)
        assert await refusal(hub, hub.key().asks(old.token, hub.clock())) == (410, "token_revoked")
        await hub.redeem(new)
        before = await hub.row(old.cluster_id)
        await hub.services.clusters.regenerate(hub.admin, old.cluster_id)
        after = await hub.row(old.cluster_id)
        assert after == dataclasses.replace(before, invite_expires_at=hub.clock() + 3600), "the row is not disturbed"


async def test_races_of_regenerating_and_redeeming_leave_one_good_token(tmp_path: Path) -> None:
    """A40: twenty at once; at most one token is valid or redeemed."""
    async with clocked_hub(tmp_path) as hub:
        invite = await hub.invite()
        made, codes = [invite], []

        async def regenerate() -> None:
            made.append(await hub.services.clusters.regenerate(hub.admin, invite.cluster_id))

        async def redeem() -> None:
            codes.append((await hub.post(hub.key().asks(made[-1].token, hub.clock()))).status_code)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(regenerate)
                nursery.start_soon(redeem)
        assert set(codes) <= {200, 409, 410}
        peers = [peer for peer in hub.wire.peers if peer == invite.cluster_id]
        assert len(peers) == min(1, codes.count(200))
        [subnet] = await hub.services.tenants.subnets(hub.admin, hub.tenant_id)
        assert subnet.leased == min(1, codes.count(200)), "one row has one address, however often it joins"
        states = [(await hub.post(hub.key().asks(one.token, hub.clock()))).status_code for one in made]
        assert states.count(200) <= 1


async def test_addresses_are_lowest_first_never_the_hubs_and_rest_a_day(tmp_path: Path) -> None:
    """A14, A36: leases of a realm."""
    async with clocked_hub(tmp_path) as hub:
        first, second = await hub.joined("one"), await hub.joined("two")
        [subnet] = await hub.services.tenants.subnets(hub.admin, hub.tenant_id)
        hub_address = IPv4Address(subnet.hub_address)
        assert hub_address == IPv4Network(subnet.cidr).network_address + 1
        assert [(await hub.row(one)).address for one in (first, second)] == [
            str(hub_address + 1),
            str(hub_address + 2),
        ]
        await hub.services.clusters.delete(await hub.authenticated(), first, confirm_name="one")
        third = await hub.joined("three")
        assert (await hub.row(third)).address == str(hub_address + 3)
        hub.clock.at += DAY - 1
        assert (await hub.row(await hub.joined("four"))).address == str(hub_address + 4)
        hub.clock.at += 1
        assert (await hub.row(await hub.joined("five"))).address == str(hub_address + 1)


async def test_a_full_subnet_is_said_when_inviting_and_again_when_redeeming(tmp_path: Path) -> None:
    """A7, section 10: nothing is burned by it."""
    async with clocked_hub(tmp_path) as hub:
        clusters = hub.services.clusters
        small = await hub.services.tenants.add_subnet(hub.admin, hub.tenant_id, "10.9.0.0/29")
        invites = [
            await clusters.create(hub.admin, hub.tenant_id, name=f"c{number}", subnet_id=small.id)
            for number in range(6)
        ]
        for invite in invites[:5]:
            await hub.redeem(invite)
        answer = await hub.post(hub.key().asks(invites[5].token, hub.clock()))
        assert (answer.status_code, answer.json()["code"]) == (503, "subnet_exhausted")
        assert answer.headers["retry-after"] == "60"
        with pytest.raises(Exception, match="no free address") as caught:
            await clusters.create(hub.admin, hub.tenant_id, name="more", subnet_id=small.id)
        assert getattr(caught.value, "field", None) == "subnet"
        await clusters.delete(await hub.authenticated(), invites[0].cluster_id, confirm_name="c0")
        hub.clock.at += DAY
        fresh = await clusters.regenerate(hub.admin, invites[5].cluster_id)
        await hub.redeem(fresh)


async def test_no_answer_holds_anything_of_another_tenant(tmp_path: Path) -> None:
    """A14, A59: ten tenants with the same subnet, five clusters each; in a realm every address is given once."""
    async with clocked_hub(tmp_path) as hub:
        seen: dict[str, list[dict[str, Any]]] = {}
        for number in range(10):
            tenant = await hub.tenant(f"tenant-{number}")
            same = await hub.services.tenants.add_subnet(hub.admin, tenant, "10.20.0.0/24")
            for cluster in range(5):
                invite = await hub.services.clusters.create(hub.admin, tenant, name=f"c{cluster}", subnet_id=same.id)
                key = hub.key()
                document = key.asks(invite.token, hub.clock())
                answer = await hub.post(document)
                assert key.believes(document, answer)
                body = answer.json()
                assert sorted(body) == [
                    "address", "address6", "cluster_id", "config_revision", "hub", "keepalive", "mtu", "psk_sealed",
                ]  # fmt: skip
                assert (body["cluster_id"], body["mtu"], body["keepalive"]) == (invite.cluster_id, 1420, 25)
                assert body["hub"]["pubkey"] == base64.b64encode(hub.core.hub_key).decode()
                psk = key.exchange.open_psk(body["psk_sealed"], invite.cluster_id)
                assert psk == hub.wire.peers[invite.cluster_id].preshared_key
                seen.setdefault(tenant, []).append(body)
        for tenant, bodies in seen.items():
            addresses = [body["address"] for body in bodies]
            assert addresses == [f"10.20.0.{last}" for last in range(2, 7)]
            realm = hub.wire.realms[tenant]
            assert {body["hub"]["address"] for body in bodies} == {str(realm.address)}
            foreign = {one["cluster_id"] for other, rows in seen.items() if other != tenant for one in rows}
            assert not any(cluster in json.dumps(bodies) for cluster in foreign)
        assert len({(peer.tenant_id, str(peer.address)) for peer in hub.wire.peers.values()}) == 50


async def test_the_same_values_in_a_second_cluster_are_refused_and_told(tmp_path: Path) -> None:
    """A56: an alert with both addresses and uids; the first cluster is undisturbed."""
    async with clocked_hub(tmp_path) as hub:
        invite = await hub.invite()
        await hub.redeem(invite, cluster_uid="uid-a")
        peer = hub.wire.peers[invite.cluster_id]
        document = hub.key().asks(invite.token, hub.clock(), cluster_uid="uid-b")
        assert await refusal(hub, document, remote="203.0.113.66") == (409, "token_used")
        [alert] = await hub.alerts()
        for word in ("203.0.113.66", "198.51.100.7", "uid-a", "uid-b"):
            assert word in alert.detail
        assert hub.wire.peers[invite.cluster_id] == peer
        assert (await hub.row(invite.cluster_id)).phase == "redeemed"


async def test_a_reinstall_in_the_same_cluster_is_an_event_and_no_theft(tmp_path: Path) -> None:
    """A56, D5: it needs a new invite, which gives row and address back."""
    async with clocked_hub(tmp_path) as hub:
        invite = await hub.invite()
        await hub.redeem(invite, cluster_uid="uid-a")
        address = (await hub.row(invite.cluster_id)).address
        document = hub.key().asks(invite.token, hub.clock(), cluster_uid="uid-a")
        assert await refusal(hub, document) == (409, "token_used")
        assert await hub.alerts() == []
        page = await hub.services.clusters.events(hub.admin, invite.cluster_id)
        assert (page.items[0].kind, page.items[0].reason) == ("invite.needed", "NeedsNewInvite")
        again = await hub.services.clusters.regenerate(hub.admin, invite.cluster_id)
        key = await hub.redeem(again, cluster_uid="uid-a")
        assert (await hub.row(invite.cluster_id)).address == address
        assert hub.wire.peers[invite.cluster_id].public_key == key.exchange.public_key


async def test_a_key_belongs_to_one_cluster_for_ever(tmp_path: Path) -> None:
    """D5, section 6: unique across tenants, tombstones included; a deleted row's key stays out."""
    async with clocked_hub(tmp_path) as hub:
        invite = await hub.invite("one")
        key = await hub.redeem(invite)
        tenant = await hub.tenant("other")
        for other in (await hub.invite(), await hub.invite(tenant_id=tenant)):
            assert await refusal(hub, key.asks(other.token, hub.clock())) == (422, "bad_pubkey")
        await hub.services.clusters.delete(await hub.authenticated(), invite.cluster_id, confirm_name="one")
        assert await refusal(hub, key.asks(invite.token, hub.clock())) == (410, "token_revoked")
        fresh = await hub.invite("one")
        assert await refusal(hub, key.asks(fresh.token, hub.clock())) == (422, "bad_pubkey")
        await hub.redeem(fresh)


async def test_an_edge_learns_how_it_stands(tmp_path: Path) -> None:
    """Section 5, A36: active with its configuration, then deleted and when; a stranger is unknown."""
    async with clocked_hub(tmp_path) as hub:
        invite, key = await hub.invite("one"), hub.key()
        document = key.asks_for_itself(hub.clock())
        answer = await hub.post(document, "self")
        assert (answer.status_code, answer.json()["state"]) == (200, "unknown")
        assert key.believes(document, answer)
        body = (await hub.post(key.asks(invite.token, hub.clock()))).json()
        del body["psk_sealed"]
        assert (await hub.post(key.asks_for_itself(hub.clock()), "self")).json() == {
            "state": "active",
            "at": None,
            "config": body,
        }
        hub.clock.at += 60
        await hub.services.clusters.delete(await hub.authenticated(), invite.cluster_id, confirm_name="one")
        assert (await hub.post(key.asks_for_itself(hub.clock()), "self")).json() == {
            "state": "deleted",
            "at": int(hub.clock()),
            "config": None,
        }


async def test_the_key_of_a_new_invite_replaces_the_one_in_use_when_it_is_used(tmp_path: Path) -> None:
    """Redemption alone takes nothing from the edge that runs, over a restart too; an unused key is void after a day."""
    async with clocked_hub(tmp_path) as hub:
        old, invite = hub.key(), await hub.invite("one")
        await hub.redeem(invite, old)
        hub.presence.handshake_confirmed(invite.cluster_id, REMOTE, hub.clock())
        await hub.presence.flush()

        async def state(key: Key) -> str:
            return str((await hub.post(key.asks_for_itself(hub.clock()), "self")).json()["state"])

        first, second = hub.key(), hub.key()
        for key in (first, second):
            again = await hub.services.clusters.regenerate(hub.admin, invite.cluster_id)
            await hub.redeem(again, key)
        assert [await state(key) for key in (old, first, second)] == ["active", "revoked", "active"]
        _, records = await hub.presence.load()
        assert [record.pending_until is None for record in records] == [True, False]
        hub.presence.key_replaced(invite.cluster_id, records[1].public_key, hub.clock())
        await hub.presence.flush()
        assert [await state(key) for key in (old, second)] == ["revoked", "active"]
        third = hub.key()
        await hub.redeem(await hub.services.clusters.regenerate(hub.admin, invite.cluster_id), third)
        hub.clock.at += 86401
        await hub.core.database.write(jobs.clean, hub.clock(), 90 * 86400.0)
        assert [await state(key) for key in (second, third)] == ["active", "revoked"]


async def test_a_busy_database_is_no_final_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 5: 503 with Retry-After, so that the Job tries again."""
    from sqlalchemy.exc import OperationalError

    async def broken(*_: Any, **__: Any) -> None:
        raise OperationalError("UPDATE", {}, Exception("database is locked"))

    async with clocked_hub(tmp_path) as hub:
        invite = await hub.invite()
        with monkeypatch.context() as patched:
            patched.setattr(type(hub.core.database), "write", broken)
            answer = await hub.post(hub.key().asks(invite.token, hub.clock()))
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        await hub.redeem(invite)


async def test_an_expiry_that_is_written_late_does_not_undo_a_redemption(tmp_path: Path) -> None:
    """The row's memory may lag behind the database by one transaction."""
    async with clocked_hub(tmp_path) as hub:
        invite = await hub.invite()
        hub.clock.at += 3599
        row = hub.presence.rows[invite.cluster_id]
        stale = row.status
        await hub.redeem(invite)
        row.status = stale
        hub.clock.at += 2
        hub.presence.tick()
        await hub.presence.flush()
        fresh = await hub.presence.reload(invite.cluster_id)
        assert fresh is not None
        assert fresh.status.phase == "redeemed"
