"""What an edge holds may be wrong, lost or forgotten: the hub's signed word, and lists that begin anew, mend it."""

from __future__ import annotations

import base64
import json
import pathlib
from typing import Any

import pytest
import trio

from edge_agent.contract import why_no_hub
from tests.edge.fakehub import open_hub
from tests.edge.fakekube import open_kube
from tests.edge.joined import open_joined
from tests.edge.test_agent import join, running, settings_for
from tests.hub.whole import edge_settings, redeem, running_edge, whole_hub

PATIENCE = 60.0
SECRET = "/api/v1/namespaces/daalu-edge/secrets/daalu-edge-key"
CONFIG_MAP = "/api/v1/namespaces/daalu-edge/configmaps/daalu-edge-config"


async def test_one_wrong_configuration_does_not_lose_an_edge(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The highest revision, and an endpoint where nobody answers: after silence the hub's signed word wins."""
    monkeypatch.setattr("edge_agent.agent._HEAL", (0.5, 600.0))
    monkeypatch.setattr("edge_agent.facts.SEEN_LIMIT", 2.0)
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path, heartbeat=1) as joined:
            hub = joined.hub
            tunnel: Any = joined.agent._tunnel
            tunnel._last_good = None  # as after a restart: where the hub answered before is not remembered
            await hub.say(hub.lines[-1], {"type": "config", "revision": 2**53, "endpoints": ["127.0.0.1:9"]})

            def kept() -> list[int]:
                """The revisions that the ConfigMap held, in order."""
                patches = [
                    seen.body for seen in joined.kube.seen if seen.method == "PATCH" and CONFIG_MAP in seen.target
                ]
                return [json.loads(json.loads(one)["data"]["config.json"])["config_revision"] for one in patches]

            while kept()[-2:] != [2**53, 1]:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.1)
            beats = len(hub.beats)
            await hub.until(lambda: len(hub.beats) > beats)


async def test_a_hub_from_an_older_backup_is_asked_which_is_right(tmp_path: pathlib.Path) -> None:
    """Its numbers are lower than ours, and its settings count all the same."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            hub = joined.hub
            await hub.say(hub.lines[-1], {"type": "config", "revision": 9, "keepalive": 11})
            await hub.until(lambda: hub.of_type("config_ack"))
            await hub.until(lambda: hub.of_type("hello")[-1]["config_revision"] == 9)
            await hub.say(hub.lines[-1], {"type": "config", "revision": 3, "keepalive": 12})
            await hub.until(lambda: hub.of_type("hello")[-1]["config_revision"] == 1)
            assert [path for path, _ in hub.requests][-1] == "/v1/edge/self"
            assert json.loads(joined.kube.config()["config.json"])["keepalive"] == 25


@pytest.mark.parametrize("endpoint", ["169.254.169.254:51820", "[fe80::1]:51820", "224.0.0.1:51820", "0.0.0.0:51820"])
async def test_an_endpoint_that_can_be_no_hub_is_refused(tmp_path: pathlib.Path, endpoint: str) -> None:
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            hub = joined.hub
            await hub.say(hub.lines[-1], {"type": "config", "revision": 7, "endpoints": [endpoint]})
            await hub.until(lambda: hub.of_type("config_ack"))
            assert "endpoints" in hub.of_type("config_ack")[-1]["error"]
            assert json.loads(joined.kube.config()["config.json"])["config_revision"] == 1


@pytest.mark.parametrize(
    "host",
    ["169.254.1.1", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
     "fd00:ec2::254", "100.100.100.200", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "0.0.0.0", "::", "0.1.2.3",
     "255.255.255.255", "240.0.0.1"],
)  # fmt: skip
def test_where_no_hub_can_be(host: str) -> None:
    assert why_no_hub(host, 51820, may_be_loopback=False)


@pytest.mark.parametrize("host", ["hub.daalu.io", "192.0.2.1", "10.0.0.1", "2001:db8::1", "fd12::1", "100.64.0.1"])
def test_where_a_hub_can_be(host: str) -> None:
    assert why_no_hub(host, 51820, may_be_loopback=False) == ""
    assert why_no_hub(host, 0, may_be_loopback=False)
    assert why_no_hub("127.0.0.1", 51820, may_be_loopback=True) == ""


async def test_a_watch_begins_at_what_the_api_server_remembers(tmp_path: pathlib.Path) -> None:
    """After a restart of the API server the Secret's own version is too old, and its list is not."""
    async with open_kube() as kube, open_hub() as hub:
        for number in range(5):
            kube.put("/api/v1/namespaces/kube-system", {"metadata": {"uid": f"{number}"}})
        kube.oldest = kube.version
        settings = settings_for(kube, hub, tmp_path)
        with trio.fail_after(PATIENCE):
            async with running(settings) as (agent, _):
                assert (await join(settings))[0] == 0
                await hub.until(lambda: hub.of_type("hello"))
                gone = [seen.target for seen in kube.seen if "watch=1" in seen.target and "/secrets" in seen.target]
                assert len(gone) == 1, "one watch, which was not refused"
                assert agent.facts.is_seen


async def test_an_older_role_without_list_is_enough(tmp_path: pathlib.Path) -> None:
    async with open_kube() as kube, open_hub() as hub:
        lists = ("/secrets?fieldSelector", "/configmaps?fieldSelector")
        kube.refuse = lambda seen: (
            (403, "may not list") if any(one in seen.target for one in lists) and "watch=1" not in seen.target else None
        )
        kube.oldest = kube.version + 1
        settings = settings_for(kube, hub, tmp_path)
        with trio.fail_after(PATIENCE):
            async with running(settings):
                assert (await join(settings))[0] == 0
                await hub.until(lambda: hub.of_type("hello"))


@pytest.mark.parametrize("is_job", [True, False])
async def test_a_configuration_that_was_lost_is_told_again(
    tmp_path: pathlib.Path, is_job: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Secret that outlived its release: the Job, or the edge alone where there is no token, asks the hub."""
    monkeypatch.setattr("edge_agent.agent._GRACE", 0.5)
    async with open_kube() as kube, open_hub() as hub:
        settings = settings_for(kube, hub, tmp_path)
        with trio.fail_after(PATIENCE):
            assert (await join(settings))[0] == 0
            kube.put(CONFIG_MAP, {"kind": "ConfigMap", "data": {"a": "b"}})
            if is_job:
                code, line = await join(settings)
                assert (code, line) == (0, "already joined, and the hub told the configuration that was lost")
                assert "config.json" in kube.config()
            async with running(settings):
                await hub.until(lambda: hub.of_type("hello"))
            assert json.loads(kube.config()["config.json"])["cluster_id"] == "cl_one"


async def test_a_job_that_can_ask_nobody_does_not_end_well(tmp_path: pathlib.Path) -> None:
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path, deadline=2)
        with trio.fail_after(PATIENCE):
            assert (await join(settings))[0] == 0
            kube.put(CONFIG_MAP, {"kind": "ConfigMap", "data": {}})
            hub.refuse = lambda path, document: (503, {"code": "unavailable"}, {})
            assert (await join(settings))[0] == 21
            hub.refuse = lambda *_: None
            hub.self_state = "deleted"
            code, line = await join(settings)
            assert (code, line.partition(":")[0]) == (11, "token_used")


@pytest.mark.parametrize("lost", ["psk", "hub-key", "token-id", "phase", "private-key"])
@pytest.mark.parametrize("is_short", [False, True])
async def test_a_secret_that_lost_a_part_gets_it_again(tmp_path: pathlib.Path, lost: str, is_short: bool) -> None:
    """From a real hub, long after the token was used: who shows the key that redeemed it is told the rest once more."""
    async with open_kube() as kube, whole_hub(tmp_path) as whole:
        invite = await whole.invite()
        settings = edge_settings(whole, kube, tmp_path / "edge", invite.token)
        assert (await redeem(settings))[0] == 0
        async with running_edge(settings):
            await whole.until_phase(invite.cluster_id, "connected")
        before = kube.secret()
        data = dict(kube.objects[SECRET]["data"])
        if is_short:
            data[lost] = base64.b64encode(before[lost][:-1]).decode()
        else:
            del data[lost]
        kube.put(SECRET, {"kind": "Secret", "data": data})
        code, line = await redeem(settings)
        if lost == "private-key":
            assert (code, line.partition(":")[0]) == (11, "token_used"), "nobody else has it"
            return
        assert code == 0, line
        if lost != "token-id":  # which token it was is known to nobody
            assert kube.secret() == before
        async with running_edge(settings):
            await whole.until_phase(invite.cluster_id, "connected")
