"""What a running edge goes through: hub restarts, changed configuration, another key, deletion, the end."""

from __future__ import annotations

import json
import logging
import pathlib

import pytest
import trio

from edge_agent.health import respond
from tests.edge.fakehub import HUB_ADDRESS
from tests.edge.fakekube import node
from tests.edge.joined import Joined, open_joined
from tests.edge.test_agent import join

PATIENCE = 60.0


async def test_a_restarted_hub_is_found_again_without_an_invite(tmp_path: pathlib.Path) -> None:
    """A48, D20: new sessions, a new control line, everything said again, the same key and address."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path, heartbeat=1) as joined:
            hub = joined.hub
            posts = len(hub.requests)
            before = (joined.kube.secret(), joined.kube.config())
            hub.stop()
            await trio.sleep(1)
            hellos, nodes = len(hub.of_type("hello")), len(hub.of_type("nodes"))
            hub.start()
            await hub.until(lambda: len(hub.of_type("hello")) > hellos and len(hub.of_type("nodes")) > nodes)
            assert len(hub.requests) == posts
            assert (joined.kube.secret(), joined.kube.config()) == before
            assert (await joined.ask("/version")).status == 200


async def test_a_changed_configuration_is_in_force_and_kept(tmp_path: pathlib.Path) -> None:
    """A41: the hub's settings reach the edge in the tunnel, and the next start begins with them."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            hub = joined.hub
            hub.config = {"type": "config", "revision": 7, "keepalive": 11, "mtu": 1380, "heartbeat": 5}
            await hub.say(hub.lines[-1], hub.config)
            await hub.until(lambda: hub.of_type("config_ack"))
            kept = json.loads(joined.kube.config()["config.json"])
            assert (kept["config_revision"], kept["keepalive"], kept["mtu"]) == (7, 11, 1380)
            assert joined.agent.facts.mtu == 1380
            assert (await joined.ask("/version")).status == 200


async def test_nodes_that_come_and_go_are_told(tmp_path: pathlib.Path) -> None:
    """A20: adding, breaking and removing a node."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            joined.kube.put("/api/v1/nodes/two", node("two", ready=False))
            joined.kube.drop("/api/v1/nodes/one")
            await joined.hub.until(lambda: [one["name"] for one in joined.hub.of_type("nodes")[-1]["nodes"]] == ["two"])
            [row] = joined.hub.of_type("nodes")[-1]["nodes"]
            assert row["ready"] is False


@pytest.mark.parametrize(
    ("change", "reason"),
    [("none", 2), ("gone", 1), ("going", 1), ("scaled", 1), ("forbidden", 1)],
)
async def test_the_goodbye_says_why(tmp_path: pathlib.Path, change: str, reason: int) -> None:
    """A35: uninstalled when our Deployment is gone, going, at zero, or our roles went with it; else restarting."""
    path = "/apis/apps/v1/namespaces/daalu-edge/deployments/daalu-edge"
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            kube = joined.kube
            match change:
                case "gone":
                    kube.drop(path)
                case "going":
                    kube.put(path, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
                case "scaled":
                    kube.put(path, {"spec": {"replicas": 0}})
                case "forbidden":
                    kube.refuse = lambda seen: (403, "no") if seen.target == path else None
            await joined.agent.stop()
            await joined.hub.until(lambda: len(joined.hub.goodbyes) == 3)
            assert set(joined.hub.goodbyes) == {reason}
            assert respond("/readyz", joined.agent.facts)[0] == 503
            assert respond("/livez", joined.agent.facts)[0] == 200
            assert (await joined.ask("/version")).status == 503, "no new work while stopping"


async def test_a_deleted_cluster_says_so_and_leaves_the_hub_alone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A36: no tries but one question in ten minutes; A77: a new invite ends that without a restart."""
    monkeypatch.setattr("edge_agent.agent._HEAL", (0.5, 600.0))
    monkeypatch.setattr("edge_agent.facts.SEEN_LIMIT", 1.5)
    with trio.fail_after(PATIENCE), caplog.at_level(logging.INFO):
        async with open_joined(tmp_path, heartbeat=1) as joined:
            hub = joined.hub
            hub.self_state = "deleted"
            hub.stop()
            await until_problem(joined, "NeedsNewInvite")
            assert "this cluster was deleted at 2025-10-09T08:53:20+00:00" in caplog.text
            hub.start()
            beats, asked = len(hub.beats), len(hub.requests)
            await trio.sleep(3)
            assert (len(hub.beats), len(hub.requests)) == (beats, asked), "not one packet, not one request"
            (tmp_path / "token").write_text(hub.invite(1))
            old = joined.kube.secret()["private-key"]
            code, line = await join(joined.agent._settings)
            assert code == 0, line
            assert joined.kube.secret()["private-key"] != old
            await hub.until(lambda: len(hub.beats) > beats)
            assert (await joined.ask("/version")).status == 200


async def until_problem(joined: Joined, code: str) -> None:
    while joined.agent.facts.code != code:  # noqa: ASYNC110 - nobody tells
        await trio.sleep(0.05)


async def test_a_secret_that_was_emptied_is_told_and_the_tunnel_lives_on(tmp_path: pathlib.Path) -> None:
    """A77: no crash; log and readiness say NeedsNewInvite."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            joined.kube.put("/api/v1/namespaces/daalu-edge/secrets/daalu-edge-key", {"kind": "Secret"})
            await until_problem(joined, "NeedsNewInvite")
            status, text = respond("/readyz", joined.agent.facts)
            assert (status, text.splitlines()[0].split(":")[0]) == (503, "NeedsNewInvite")
            assert (await joined.ask("/version")).status == 200


async def test_a_configmap_of_another_hub_is_not_followed(tmp_path: pathlib.Path) -> None:
    """D15: whoever may write the public part cannot lead the edge to another hub."""
    with trio.fail_after(PATIENCE):
        async with open_joined(tmp_path) as joined:
            document = json.loads(joined.kube.config()["config.json"])
            document["hub"]["pubkey"] = "A" * 42 + "A="
            path = "/api/v1/namespaces/daalu-edge/configmaps/daalu-edge-config"
            joined.kube.put(path, {"kind": "ConfigMap", "data": {"config.json": json.dumps(document)}})
            await until_problem(joined, "HandshakeRejected")
            assert joined.agent._config is not None
            assert joined.agent._config.hub_address == HUB_ADDRESS
            assert (await joined.ask("/version")).status == 200
