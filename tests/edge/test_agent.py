"""The whole agent against a fake hub and a fake API server, over real sockets on the loopback interface."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import trio
import trio.testing

from edge_agent.agent import Agent
from edge_agent.bootstrap import Bootstrap, Waits, run_bootstrap
from edge_agent.hubapi import HubApi
from edge_agent.kube import Kube
from edge_agent.settings import Settings
from edge_agent.store import open_store
from tests.edge.fakehub import EDGE_ADDRESS, FakeHub, open_hub
from tests.edge.fakekube import CLUSTER_UID, FakeKube, open_kube

PATIENCE = 20.0


def settings_for(kube: FakeKube, hub: FakeHub, folder: pathlib.Path, **more: Any) -> Settings:
    (folder / "token").write_text(hub.invite())
    (folder / "account").write_text(kube.token)
    return Settings(
        hub_url=hub.url,
        token_file=str(folder / "token"),
        api_server=kube.url,
        api_token=str(folder / "account"),
        api_ca="",
        deployment="daalu-edge",
        health_host="127.0.0.1",
        health_port=0,
        **more,
    )


async def join(settings: Settings, *, unit: float = 0.0) -> tuple[int, str]:
    kube = Kube(settings)
    job = Bootstrap(settings, open_store(settings, kube), kube, HubApi(settings), waits=Waits(lambda: unit))
    try:
        return await run_bootstrap(job, settings.deadline)
    finally:
        await kube.aclose()


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[Agent, int]]:
    agent = Agent(settings)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(agent.run)
        yield agent, port
        nursery.cancel_scope.cancel()


async def test_a_join_from_token_to_answered_request(tmp_path: pathlib.Path) -> None:
    """A13, A14, A17, A20 and A22 in small: the Job, then the edge; hello, heartbeats, nodes, a request."""
    async with open_kube() as kube, open_hub() as hub:
        settings = settings_for(kube, hub, tmp_path)
        with trio.fail_after(PATIENCE):
            async with running(settings) as (agent, _):
                await trio.testing.wait_all_tasks_blocked()
                assert "no key yet" in " ".join(agent.facts.why_not_ready())
                code, line = await join(settings)
                assert (code, line) == (0, f"joined as cl_one with tunnel address {EDGE_ADDRESS}")
                await hub.until(lambda: hub.of_type("nodes") and hub.of_type("api") and len(hub.beats) > 1)
                [hello] = hub.of_type("hello")
                assert (hello["cluster_uid"], hello["kube_version"]) == (CLUSTER_UID, "v1.36.3")
                assert (hello["mode"], hello["mtu"], hello["protocol"]) == ("userspace", 1420, 1)
                assert hello["impersonation"] == {"enabled": False, "users": [], "groups": []}
                assert [row["name"] for row in hub.of_type("nodes")[-1]["nodes"]] == ["one"]
                assert hub.of_type("api")[-1]["state"] == "ok"
                assert agent.facts.why_not_ready() == []
                answer = await hub.ask(
                    b"GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer stolen\r\nX-Remote-User: root\r\n"
                    b"Impersonate-User: root\r\nKubectl-Command: get\r\nConnection: close\r\n\r\n"
                )
                assert b"v1.36.3" in answer
                assert b"x-secret" not in answer.lower()
                reached = [seen for seen in kube.seen if seen.header("kubectl-command")]
                assert sorted(name for seen in reached for name, _ in seen.headers) == [
                    b"authorization", b"host", b"kubectl-command",
                ]  # fmt: skip
                assert reached[0].header("authorization") == f"Bearer {kube.token}"


async def test_the_key_is_stored_before_the_hub_hears_of_it_and_never_leaves(tmp_path: pathlib.Path) -> None:
    """A13: order of the six steps, and what each side gets to see; A22: where keys lie."""
    async with open_kube() as kube, open_hub(has_tunnel=False) as hub:
        settings = settings_for(kube, hub, tmp_path)
        order: list[str] = []

        def note_hub(path: str, document: dict[str, Any]) -> None:
            assert kube.secret()["phase"] == b"pending"
            order.append("POST")

        hub.refuse = note_hub
        with trio.fail_after(PATIENCE):
            assert (await join(settings))[0] == 0
        secret = kube.secret()
        assert order == ["POST"]
        assert secret["phase"] == b"ready"
        assert secret["psk"] == hub.invites[secret["token-id"].decode()].psk
        key = secret["private-key"]
        shown = json.dumps(hub.requests) + json.dumps(kube.config())
        for value in (key, secret["psk"]):
            for form in (value.hex(), __import__("base64").b64encode(value).decode()):
                assert form not in shown
        patches = [seen.target.rsplit("/", 2)[1] for seen in kube.seen if seen.method == "PATCH"]
        assert patches == ["secrets", "configmaps", "secrets"]
        assert json.loads(kube.config()["config.json"])["address"] == EDGE_ADDRESS
        assert kube.config()["a"] == "b", "the chart's own values stay"
