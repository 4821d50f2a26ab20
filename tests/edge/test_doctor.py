"""`daalu-edge doctor` and `test`: one fault at a time, and exactly the broken hop is named, with what mends it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import socket
import ssl
from typing import Any

import pytest
import trio
import trustme

from edge_agent.doctor import doctor, test
from edge_agent.settings import Settings
from tests.edge.fakehub import open_hub
from tests.edge.fakekube import open_kube
from tests.edge.joined import Joined, open_joined
from tests.edge.test_agent import settings_for

PATIENCE = 60.0
run_test, doctor_of = test, doctor
del test  # pytest would take it for one


async def failing(joined: Joined, capsys: pytest.CaptureFixture[str], **changes: Any) -> dict[str, str]:
    """The hops that fail, and what is said of each."""
    settings = dataclasses.replace(joined.agent._settings, **{"health_port": joined.port, **changes})
    capsys.readouterr()
    code = await doctor_of(settings)
    lines = [line[5:].partition(": ") for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL ")]
    assert code == (1 if lines else 0)
    return {hop: text for hop, _, text in lines}


async def test_all_is_well(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A82: all green otherwise."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            assert await failing(joined, capsys) == {}
            assert await run_test(dataclasses.replace(joined.agent._settings, health_port=joined.port)) == 0


async def test_each_broken_hop_is_named_alone(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A82: name, port, clock, Secret, API server, permission."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            hub, kube = joined.hub, joined.kube

            found = await failing(joined, capsys, hub_url="https://hub.invalid")
            assert set(found) == {"dns", "443", "tls"}
            assert "check hub.url and the cluster's DNS" in found["dns"]

            found = await failing(joined, capsys, hub_url="http://127.0.0.1:1")
            assert set(found) == {"443", "tls"}
            assert "allow egress to it on 443/tcp" in found["443"]

            hub.skew = 700
            found = await failing(joined, capsys)
            assert set(found) == {"clock"}
            assert "set it (NTP)" in found["clock"]
            hub.skew = -590
            assert await failing(joined, capsys) == {}

            kube.denied.add(("list", "nodes", ""))
            found = await failing(joined, capsys)
            assert set(found) == {"permissions"}
            assert "our account may not list nodes" in found["permissions"]
            kube.denied.clear()

            kube.refuse = lambda seen: (403, "secrets is forbidden") if "/secrets/" in seen.target else None
            found = await failing(joined, capsys)
            assert set(found) == {"secret"}
            assert "secrets is forbidden" in found["secret"]
            kube.refuse = lambda seen: None

            found = await failing(joined, capsys, api_server="http://127.0.0.1:1")
            assert set(found) == {"api", "permissions", "secret"}
            assert "a NetworkPolicy may forbid this pod the API server" in found["api"]


async def test_a_certificate_that_is_not_trusted_is_the_tls_hop(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with trio.fail_after(PATIENCE):
        async with open_hub(has_tunnel=False, ssl_context=context) as hub, open_kube() as kube:
            base = settings_for(kube, hub, tmp_path)
            settings = dataclasses.replace(base, hub_url=f"https://127.0.0.1:{hub.port}", api_server="", health_port=1)
            assert await doctor_of(settings) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert [line.split(": ")[0] for line in lines] == ["FAIL tls"]
    assert "check hub.url, the date, and hub.caBundle" in lines[0]


async def test_a_tunnel_without_answer_is_the_handshake_hop(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A82: UDP is judged by the edge that runs, with its key, and by a handshake of this check's own."""
    monkeypatch.setattr("edge_agent.facts.SEEN_LIMIT", 1.0)
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path, heartbeat=1) as joined:
            joined.hub.stop()
            await trio.sleep(2)
            found = await failing(joined, capsys)
            assert set(found) == {"udp", "handshake"}
            assert "allow egress to it on its UDP port" in found["handshake"]
            assert found["udp"].startswith("NoUdpSeen: a WireGuard handshake got ")


async def test_before_the_job_has_run_the_secret_is_the_broken_hop(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with trio.fail_after(PATIENCE):
        async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
            settings = dataclasses.replace(settings_for(kube, hub, tmp_path), health_port=1)
            assert await doctor_of(settings) == 1
    text = capsys.readouterr().out
    assert "FAIL secret: InvitePending: no key yet: the bootstrap Job has not finished" in text
    assert "FAIL handshake: no edge pod is running" in text


async def test_before_an_installation_udp_is_tried_with_a_key_of_its_own(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the cluster that will join: no token, no Secret, no edge; machines may read the lines."""
    with trio.fail_after(PATIENCE):
        async with open_hub() as hub:
            settings = Settings(hub_url=hub.url, health_port=1, json=True)
            assert await doctor_of(settings) == 0
            found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            [udp] = [one for one in found if one["hop"] == "udp"]
            assert udp["ok"] is True
            assert udp["text"] == f"a WireGuard handshake was answered from 127.0.0.1:{hub.udp_port}"
            assert {one["hop"] for one in found} >= {"dns", "443", "tls", "clock", "udp"}

            hub.knows_probes = False
            assert await doctor_of(dataclasses.replace(settings, json=False)) == 0
            assert "-    udp: not asked: this hub is too old for it" in capsys.readouterr().out


async def test_a_port_that_refuses_udp_is_told_from_one_that_is_silent(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.udpcheck.PATIENCE", 1.0)
    with trio.fail_after(PATIENCE), socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with open_hub() as hub:
            for port, words in ((silent.getsockname()[1], "no answer from"), (9, "refused from")):
                hub.endpoints = [f"127.0.0.1:{port}"]
                assert await doctor_of(Settings(hub_url=hub.url, health_port=1)) == 1
                text = capsys.readouterr().out
                assert f"FAIL udp: NoUdpSeen: a WireGuard handshake got {words} 127.0.0.1:{port}; " in text
