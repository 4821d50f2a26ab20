"""The agent's half of the contract against the golden vectors, which were made without it (A14, A58)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract import Datagram, Exchange, HubConfig, Token, decode_key, encode_key
from tests.contract import make_vectors

VECTORS: dict[str, Any] = json.loads(make_vectors.PATH.read_text(encoding="utf-8"))
JOINS = [pytest.param(one, id=one["name"]) for one in VECTORS["joins"]]


def octets(text: str) -> bytes:
    return base64.b64decode(text)


@pytest.mark.parametrize("join", JOINS)
def test_a_token_is_taken_apart(join: dict[str, Any]) -> None:
    token = Token.parse(join["token"])
    assert (token.id, token.hub_key) == (join["token_id"], octets(join["hub_public"]))
    assert join["token"] not in repr(token)


@pytest.mark.parametrize("bad", VECTORS["bad_tokens"], ids=lambda one: one["why"])
def test_what_is_no_token_is_refused_without_quoting_it(bad: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="token") as caught:
        Token.parse(bad["token"])
    assert not bad["token"] or bad["token"] not in str(caught.value)


@given(st.integers(min_value=0, max_value=126), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_one_changed_character_is_always_noticed(position: int, character: str) -> None:
    good = VECTORS["joins"][0]["token"]
    changed = good[:position] + character + good[position + 1 :]
    if changed != good:
        with pytest.raises(ValueError, match="token"):
            Token.parse(changed)


@pytest.mark.parametrize("join", JOINS)
def test_proofs_and_answers_are_those_of_the_contract(join: dict[str, Any]) -> None:
    """A58: the proof is over token id, key, nonce and time; the answer is over the nonce of its own request."""
    exchange = Exchange(octets(join["edge_private"]), octets(join["hub_public"]))
    nonce = octets(join["nonce"])
    assert encode_key(exchange.public_key) == join["edge_public"]
    assert encode_key(exchange.request_proof(join["token_id"], nonce, join["ts"])) == join["proof"]
    own = join["self_request"]
    assert encode_key(exchange.self_proof(octets(own["nonce"]), own["ts"])) == own["proof"]
    body = join["answer_body"].encode()
    assert exchange.is_signed(body, nonce, join["answer_mac"])
    assert exchange.is_signed(join["self_answer_body"].encode(), octets(join["self_nonce"]), join["self_answer_mac"])
    assert not exchange.is_signed(body + b" ", nonce, join["answer_mac"])
    assert not exchange.is_signed(body, octets(join["self_nonce"]), join["answer_mac"])
    for wrong in (None, "", "AAAA", join["proof"]):
        assert not exchange.is_signed(body, nonce, wrong)


@pytest.mark.parametrize("join", JOINS)
def test_the_preshared_key_opens_for_its_cluster_only(join: dict[str, Any]) -> None:
    exchange = Exchange(octets(join["edge_private"]), octets(join["hub_public"]))
    assert exchange.open_psk(join["psk_sealed"], join["cluster_id"]) == octets(join["psk"])
    with pytest.raises(ValueError, match="not sealed for this edge"):
        exchange.open_psk(join["psk_sealed"], "cl_another")
    other = Exchange(octets(VECTORS["joins"][0]["edge_public"]), octets(join["hub_public"]))
    with pytest.raises(ValueError, match="not sealed for this edge"):
        other.open_psk(join["psk_sealed"], join["cluster_id"])


def test_a_hub_key_of_low_order_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shared|key|compute"):
        Exchange(bytes(range(32)), bytes(32))


@pytest.mark.parametrize("join", JOINS)
def test_the_configuration_survives_being_kept(join: dict[str, Any]) -> None:
    """A14: everything the answer has to have is there, and comes back the same from the ConfigMap."""
    answer = json.loads(join["answer_body"])
    config = HubConfig.from_document(answer)
    assert (config.cluster_id, config.address, config.mtu, config.keepalive, config.revision) == (
        answer["cluster_id"], answer["address"], answer["mtu"], answer["keepalive"], answer["config_revision"],
    )  # fmt: skip
    assert list(config.endpoints) == answer["hub"]["endpoints"]
    assert HubConfig.from_document(json.loads(config.to_text())) == config
    assert "psk" not in config.to_text()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cluster_id": ""}, "cluster_id"),
        ({"address": "fd00::1"}, "address"),
        ({"address": None}, "address"),
        ({"address6": "10.0.0.1"}, "address6"),
        ({"mtu": 1279}, "mtu"),
        ({"mtu": True}, "mtu"),
        ({"keepalive": -1}, "keepalive"),
        ({"hub": None}, "hub"),
        ({"config_revision": "1"}, "config_revision"),
        ({"heartbeat": 99}, "heartbeat"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str) -> None:
    answer = {**json.loads(VECTORS["joins"][0]["answer_body"]), **change}
    with pytest.raises(ValueError, match=field):
        HubConfig.from_document(answer)


@pytest.mark.parametrize("endpoints", [[], ["no port"], ["a b:1"], ["x:1"] * 17, None, "x:1"])
def test_wrong_endpoints_are_named(endpoints: object) -> None:
    answer = json.loads(VECTORS["joins"][0]["answer_body"])
    answer["hub"]["endpoints"] = endpoints
    with pytest.raises(ValueError, match="endpoints"):
        HubConfig.from_document(answer)


def test_a_config_message_changes_what_it_names() -> None:
    config = HubConfig.from_document(json.loads(VECTORS["joins"][0]["answer_body"]))
    changed = config.changed_by({"revision": 7, "keepalive": 10, "heartbeat": 3, "endpoints": ["192.0.2.1:5"]})
    assert (changed.revision, changed.keepalive, changed.heartbeat, changed.endpoints) == (7, 10, 3.0, ("192.0.2.1:5",))
    assert (changed.address, changed.hub_key, changed.relay_url) == (config.address, config.hub_key, config.relay_url)
    with pytest.raises(ValueError, match="config_revision"):
        config.changed_by({"keepalive": 10})


@pytest.mark.parametrize("row", VECTORS["datagrams"], ids=lambda row: row["name"])
def test_datagrams_are_those_of_the_contract(row: dict[str, Any]) -> None:
    rest = bytes.fromhex(row["rest"])
    datagram = Datagram(row["type"], row["seq"], row["sent"], row["echo"], row["held"], rest)
    assert datagram.encode().hex() == row["datagram"]
    assert Datagram.decode_untrusted(bytes.fromhex(row["datagram"])) == datagram


@given(st.binary(max_size=80))
def test_no_octets_are_a_datagram_by_accident(data: bytes) -> None:
    datagram = Datagram.decode_untrusted(data)
    assert datagram is None or datagram.encode() == data


def test_a_padded_datagram_has_the_size_asked_for() -> None:
    assert len(Datagram(1, 1, 1).padded_to(1392).encode()) == 1392


@given(st.text(max_size=60))
def test_text_that_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|octets"):
        decode_key(text[:43])
