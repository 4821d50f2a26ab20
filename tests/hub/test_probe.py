"""Checks of the way before a cluster has joined: a key shakes hands for a minute, and can do nothing else."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio

import wgpy
from edge_agent.contract import encode_key
from edge_agent.doctor import doctor
from edge_agent.settings import Settings as EdgeSettings
from edge_agent.udpcheck import shake_hands
from hub_server.domain.records import PeerRecord
from hub_server.services import joining
from tests.hub.whole import whole_hub

PATIENCE = 60.0


async def test_doctor_shakes_hands_with_a_hub_that_knows_nothing_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before an installation: the hub's own certificate, its own UDP port, no token."""
    with trio.fail_after(PATIENCE):
        async with whole_hub(tmp_path) as whole:
            settings = EdgeSettings(hub_url=whole.hub.url, hub_ca_pem=whole.ca.read_text(), health_port=1)
            assert await doctor(settings) == 0
    assert "ok   udp: a WireGuard handshake was answered from " in capsys.readouterr().out


async def test_a_probe_ends_by_itself_and_belongs_to_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "PROBE_LIFETIME", 1)
    key = wgpy.PrivateKey.generate()
    with trio.fail_after(PATIENCE):
        async with whole_hub(tmp_path) as whole:
            wire = whole.hub.core.wire
            at = wgpy.Endpoint("127.0.0.1", wire.port)
            body = {"pubkey": encode_key(bytes(key.public_key))}
            async with whole.client() as client:
                answer = await client.post("/v1/edge/probe", json=body)
                assert answer.status_code == 200
                hub_key = bytes(wire.public_key)
                assert answer.json()["pubkey"] == encode_key(hub_key)
                assert await shake_hands(bytes(key), hub_key, at, patience=20) == "answered"
                again = await client.post("/v1/edge/probe", json=body)
                assert (again.status_code, again.json()["code"]) == (422, "bad_pubkey")
                while wire._probes:  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.1)
                assert await shake_hands(bytes(key), hub_key, at, patience=1) == "no answer"
                assert (await client.post("/v1/edge/probe", json=body)).status_code == 200


async def test_probes_are_few_and_their_keys_are_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody fills the hub with them, and what is no key is refused by name."""
    monkeypatch.setattr(joining, "_PROBES", 2)
    with trio.fail_after(PATIENCE):
        async with whole_hub(tmp_path) as whole, whole.client() as client:
            hub_key = bytes(whole.hub.core.wire.public_key)
            spelled_otherwise = bytearray(bytes(wgpy.PrivateKey.generate().public_key))
            spelled_otherwise[31] |= 0x80
            for key in (b"", bytes(32), hub_key, bytes(spelled_otherwise), b"\xff" * 32):
                answer = await client.post("/v1/edge/probe", json={"pubkey": encode_key(key)})
                assert (answer.status_code, answer.json()["code"]) == (422, "bad_pubkey")
            for document in ([], {}, {"pubkey": 5}, {"pubkey": ["x"]}):
                assert (await client.post("/v1/edge/probe", json=document)).status_code == 422
            found = []
            for _ in range(3):
                public_key = bytes(wgpy.PrivateKey.generate().public_key)
                found.append(await client.post("/v1/edge/probe", json={"pubkey": encode_key(public_key)}))
            assert [one.status_code for one in found] == [200, 200, 503]
            assert found[2].headers["retry-after"] == "60"


async def test_a_probe_makes_way_for_a_cluster_with_the_same_key(tmp_path: Path) -> None:
    """Who shows a key first and redeems a token with it then has a tunnel like anybody else."""
    with trio.fail_after(PATIENCE):
        async with whole_hub(tmp_path) as whole:
            key = wgpy.PrivateKey.generate()
            wire = whole.hub.core.wire
            hub_key, at = bytes(wire.public_key), wgpy.Endpoint("127.0.0.1", wire.port)
            assert wire.put_probe(bytes(key.public_key))
            wire.put_peer(
                PeerRecord("cl_x", whole.tenant_id, bytes(key.public_key), bytes(32), IPv4Address("100.96.0.9"))
            )
            assert not wire.put_probe(bytes(key.public_key))
            wire.drop_probe(bytes(key.public_key))
            assert await shake_hands(bytes(key), hub_key, at, patience=20) == "answered", "the peer stays"
