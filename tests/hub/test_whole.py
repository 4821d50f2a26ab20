"""From invite to `kubectl get`, with nothing faked but the API server: the handbook's story inside one process."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import trio

from tests.edge.fakekube import open_kube
from tests.hub.whole import edge_settings, joined_edge, redeem, running_edge, whole_hub


async def test_a_cluster_joins_is_seen_and_is_reached(tmp_path: Path) -> None:
    """A8, A11, A14, A18, A20, A27 in small: invite, Job, green row, nodes, kubeconfig, a request through the tunnel."""
    async with whole_hub(tmp_path) as whole, open_kube() as kube:
        invite = await whole.invite("acme-eu")
        words = shlex.split(invite.command.replace("\\\n", ""))
        assert words[:10] == [
            "helm", "install", "daalu-edge", "oci://ghcr.io/daalu/charts/daalu-edge",
            "--namespace", "daalu-edge", "--create-namespace",
            "--set", f"hub.url={whole.hub.url}", "--set",
        ]  # fmt: skip
        assert words[10] == f"bootstrap.token={invite.token}"
        assert words[11:] == ["--set-string", f"hub.caBundle={whole.ca.read_text().strip()}"], "of a private authority"
        row = await whole.row(invite.cluster_id)
        assert (row.phase, row.reason, row.label) == ("invited", "InvitePending", "awaiting handshake")
        settings = edge_settings(whole, kube, tmp_path / "edge", invite.token)
        code, line = await redeem(settings)
        row = await whole.row(invite.cluster_id)
        assert (code, line) == (0, f"joined as {invite.cluster_id} with tunnel address {row.address}")
        assert (row.phase, row.reason) == ("redeemed", "NoUdpSeen")
        async with running_edge(settings):
            row = await whole.until_phase(invite.cluster_id, "connected")
            assert row.last_handshake is not None
            clusters = whole.services.clusters

            async def is_told() -> bool:
                ladder = await clusters.ladder(whole.admin, invite.cluster_id)
                table = await clusters.nodes(whole.admin, invite.cluster_id)
                return bool(ladder.is_finished and table.nodes)

            await whole.until(is_told)
            table = await clusters.nodes(whole.admin, invite.cluster_id)
            assert [node.name for node in table.nodes] == ["one"]
            detail = await clusters.get(whole.admin, invite.cluster_id)
            assert (detail.mode, detail.mtu, detail.api_state) == ("userspace", 1420, "ok")
            kinds = [event.kind for event in (await clusters.events(whole.admin, invite.cluster_id)).items]
            assert kinds == ["tunnel.connected", "invite.redeemed", "invite.created"]

            actor = await whole.reauthenticated()
            issued = await whole.services.kubectl.issue_kubeconfig(actor, invite.cluster_id)
            token = issued.yaml.partition('token: "')[2].partition('"')[0]
            server = issued.yaml.partition('server: "')[2].partition('"')[0]
            assert server == f"{whole.hub.url}/k8s/clusters/{invite.cluster_id}"
            async with whole.client(headers={"Authorization": f"Bearer {token}"}) as client:
                answer = await client.get(f"{server}/version")
                assert (answer.status_code, answer.json()["gitVersion"]) == (200, "v1.36.3")
                assert kube.seen[-1].header("authorization") == f"Bearer {kube.token}"
                await whole.services.kubectl.revoke_kubeconfig(whole.admin, invite.cluster_id, issued.id)
                answer = await client.get(f"{server}/version")
                assert (answer.status_code, answer.json()["kind"]) == (401, "Status")


async def test_a_token_is_redeemed_by_one_key_alone(tmp_path: Path) -> None:
    """A10 and A16 (c): of many keys at once one wins, the others are refused, and one alert is open."""
    async with whole_hub(tmp_path) as whole:
        invite = await whole.invite()
        outcomes: list[tuple[int, str]] = []

        async def one(number: int) -> None:
            async with open_kube() as kube:
                system = {"kind": "Namespace", "metadata": {"uid": f"cluster-{number}"}}
                kube.put("/api/v1/namespaces/kube-system", system)
                settings = edge_settings(whole, kube, tmp_path / f"edge{number}", invite.token)
                outcomes.append(await redeem(settings))

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(one, number)
        assert sorted(code for code, _ in outcomes) == [0] + [11] * 11
        alerts = await whole.services.alerts.list(whole.admin, whole.tenant_id, open_only=True)
        assert [alert.kind for alert in alerts.items] == ["invite_used"]
        log = await whole.services.audit.list(whole.admin, whole.tenant_id, action="invite.redeem")
        assert sorted(entry.result for entry in log.items) == ["ok"] + ["token_used"] * 11


async def test_a_lost_answer_is_given_again_to_the_octet(tmp_path: Path) -> None:
    """A16 (a): the same token and key get the same body for a day, and one lease."""
    from edge_agent.contract import Exchange, Token, encode_key

    async with whole_hub(tmp_path) as whole, whole.client() as client:
        invite = await whole.invite()
        token = Token.parse(invite.token)
        exchange = Exchange(b"\x11" * 32, token.hub_key)

        async def ask(nonce: bytes) -> tuple[int, bytes, bool]:
            now = int(whole.hub.core.now())
            document = {
                "token": invite.token, "pubkey": encode_key(exchange.public_key), "nonce": encode_key(nonce),
                "proof": encode_key(exchange.request_proof(token.id, nonce, now)), "ts": now, "protocol": 1,
                "chart_version": "1.0.0", "agent_version": "1.0.0", "kube_version": "v1", "cluster_uid": None,
            }  # fmt: skip
            answer = await client.post("/v1/edge/bootstrap", json=document)
            signed = exchange.is_signed(answer.content, nonce, answer.headers.get("daalu-answer-mac"))
            return answer.status_code, answer.content, signed

        first, second = await ask(b"1" * 16), await ask(b"2" * 16)
        assert first == second
        assert (first[0], first[2]) == (200, True)
        document = json.loads(first[1])
        assert len(exchange.open_psk(document["psk_sealed"], invite.cluster_id)) == 32
        [subnet] = await whole.services.tenants.subnets(whole.admin, whole.tenant_id)
        assert subnet.leased == 1
        assert document["hub"]["address"] == subnet.hub_address


@pytest.mark.parametrize("how", ["goodbye", "killed"])
async def test_an_edge_that_leaves_is_disconnected_in_seconds(tmp_path: Path, how: str) -> None:
    """A35: a goodbye at once, silence after three beats."""
    async with whole_hub(tmp_path) as whole, open_kube() as kube:
        invite = await whole.invite()
        settings = edge_settings(whole, kube, tmp_path / "edge", invite.token)
        assert (await redeem(settings))[0] == 0
        async with running_edge(settings) as agent:
            await whole.until_phase(invite.cluster_id, "connected")
            if how == "goodbye":
                await agent.stop()
                row = await whole.until_phase(invite.cluster_id, "disconnected")
                assert row.reason == "EdgeShutDown"
        row = await whole.until_phase(invite.cluster_id, "disconnected")
        assert row.reason == ("EdgeShutDown" if how == "goodbye" else "HeartbeatLost")


async def test_a_hub_that_was_restarted_has_its_clusters_back(tmp_path: Path) -> None:
    """A48: no invite, no bootstrap call, the same address, no alert."""
    async with open_kube() as kube:
        async with whole_hub(tmp_path) as whole:
            invite = await whole.invite()
            settings = edge_settings(whole, kube, tmp_path / "edge", invite.token)
            assert (await redeem(settings))[0] == 0
            port, password = whole.hub.core.wire.port, whole.password  # type: ignore[union-attr]
            async with running_edge(settings):
                address = (await whole.until_phase(invite.cluster_id, "connected")).address
        more = {"password": password, "wireguard_port": port}
        async with running_edge(settings), whole_hub(tmp_path, **more) as whole:
            row = await whole.until_phase(invite.cluster_id, "connected")
            assert row.address == address
            assert row.open_alerts == 0


async def test_a_deleted_cluster_is_gone_at_once(tmp_path: Path) -> None:
    """A36: peer, kubeconfig, lease; the edge is told when it asks."""
    async with (
        whole_hub(tmp_path) as whole,
        open_kube() as kube,
        joined_edge(whole, kube, tmp_path / "edge") as cluster_id,
    ):
        actor = await whole.reauthenticated()
        issued = await whole.services.kubectl.issue_kubeconfig(actor, cluster_id)
        token = issued.yaml.partition('token: "')[2].partition('"')[0]
        address = (await whole.row(cluster_id)).address
        await whole.services.clusters.delete(actor, cluster_id, confirm_name="acme")
        assert whole.hub.core.wire.facts(cluster_id) is None  # type: ignore[union-attr]
        async with whole.client(headers={"Authorization": f"Bearer {token}"}) as client:
            assert (await client.get(f"/k8s/clusters/{cluster_id}/version")).status_code == 401
        other = await whole.invite("acme")
        settings = edge_settings(whole, kube, tmp_path / "other", other.token)
        kube.install()
        assert (await redeem(settings))[0] == 0
        assert (await whole.row(other.cluster_id)).address != address, "a freed address rests for a day"
