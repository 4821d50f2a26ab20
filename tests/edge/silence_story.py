"""Silent deaths around an edge, each end a network namespace: run by `test_silence` in that of hub and API server.

    hub        10.97.0.1 (443/tcp, 51820/udp) \\
    API server 10.97.0.2 (6443/tcp)           --- veth --- edge 10.97.0.9, whose packets can be dropped

Nobody says goodbye: packets to and from an address vanish, or a process is killed. What is measured is how long a
followed log stays open that nothing can come from any more, at the hub's client and at the API server.
"""

from __future__ import annotations

import functools
import json
import pathlib
import ssl
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import httpx
import trio
import trustme

from tests.edge.fakekube import FakeKube, open_kube
from tests.edge.net_story import run
from tests.edge.test_cli import plain_environment, variables
from tests.hub.whole import Whole, edge_settings, whole_hub

HUB, API = "10.97.0.1", "10.97.0.2"
LOG = "/api/v1/namespaces/default/pods/web/log?octets=128&follow=true"
DROPPED = """
table inet silence {{
  chain input {{ type filter hook input priority 0; ip saddr {address} {what} drop; }}
  chain output {{ type filter hook output priority 0; ip daddr {address} {what} drop; }}
}}
"""
# Far above what is promised (15 s), far below what TCP alone would take: hours for an idle connection.
PATIENCE = 100.0


async def main(folder: pathlib.Path, inside: str) -> dict[str, Any]:
    """Lose the API server, the hub and the edge, one after the other, with a followed log open each time."""
    run("ip", "link", "set", "lo", "up")
    for address in (HUB, API):
        run("ip", "address", "add", f"{address}/24", "dev", "hub0")
    run("ip", "link", "set", "hub0", "up")
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(API).configure_cert(context)
    ca.cert_pem.write_to_path(folder / "api-ca.crt")
    more = {"listen": f"{HUB}:443", "wireguard_port": 51820, "public_url": f"https://{HUB}", "heartbeat": 5}
    async with open_kube(tls=context, host=API, port=6443) as kube, whole_hub(folder, **more) as whole:
        return await Story(whole, kube, folder, inside).tell()


class Story:
    """One cluster, whose edge may be started again."""

    def __init__(self, whole: Whole, kube: FakeKube, folder: pathlib.Path, inside: str) -> None:
        self.whole, self.kube, self.folder, self.inside = whole, kube, folder, inside
        self.found: dict[str, Any] = {}

    async def tell(self) -> dict[str, Any]:
        whole, folder = self.whole, self.folder
        invite = await whole.invite()
        ca = str(folder / "api-ca.crt")
        settings = edge_settings(whole, self.kube, folder / "edge", invite.token, api_ca=ca, heartbeat=5)
        edge = functools.partial(trio.run_process, env=plain_environment(variables(settings)), check=False)
        program = ["ip", "netns", "exec", self.inside, sys.executable, "-m", "edge_agent"]
        assert (await edge([*program, "bootstrap"])).returncode == 0
        issued = await whole.services.kubectl.issue_kubeconfig(await whole.reauthenticated(), invite.cluster_id)
        token = issued.yaml.partition('token: "')[2].partition('"')[0]
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            trio.open_nursery() as nursery,
            whole.client(headers=headers) as client,
        ):
            self.log = functools.partial(client.stream, "GET", f"/k8s/clusters/{invite.cluster_id}{LOG}", timeout=None)

            async def start() -> trio.Process:
                process: trio.Process = await nursery.start(functools.partial(edge, [*program, "run"]))
                return process

            async def is_well() -> bool:
                row = await whole.row(invite.cluster_id)
                return (row.phase, row.reason) == ("connected", None)

            process = await start()
            await whole.until(is_well)
            await self.lose("api_server", self.drop, API, "")
            self.undrop()
            await whole.until(is_well)
            # A hub that is killed answers no datagram, and its TCP lives in its process.
            await self.lose("hub", self.drop, HUB, "meta l4proto udp")
            self.undrop()
            await whole.until(is_well)
            await self.lose("edge", process.kill)
            nursery.cancel_scope.cancel()
        return self.found

    async def lose(self, name: str, die: Callable[..., None], *words: str) -> None:
        """Let something die while a log is followed, and note how and after how long its two ends ended."""
        before = self.kube.open_logs
        async with self.log() as answer:
            pieces = answer.aiter_bytes()
            await anext(pieces)
            assert self.kube.open_logs == before + 1
            die(*words)
            died_at = trio.current_time()
            with trio.fail_after(PATIENCE):
                try:
                    async for _ in pieces:
                        pass
                    how = "as if it were whole"
                except httpx.RemoteProtocolError:
                    how = "broken off"
            seconds = trio.current_time() - died_at
            if name == "hub":  # and nothing is read for it any more
                await self.whole.until(lambda: self.kube.open_logs == before)
        self.found[name] = [how, round(seconds, 1)]

    def drop(self, address: str, what: str) -> None:
        """Let the edge's packets to and from an address vanish."""
        run("ip", "netns", "exec", self.inside, "nft", "-f", "-", text=DROPPED.format(address=address, what=what))

    def undrop(self) -> None:
        run("ip", "netns", "exec", self.inside, "nft", "delete", "table", "inet", "silence")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(trio.run(main, pathlib.Path(name), sys.argv[1])))
