"""An edge behind a firewall, as processes in a network namespace of its own: run by `test_net` in that of the hub.

    hub.daalu.test 10.98.0.1 (443/tcp, 51820/udp)   \\
    API server     10.98.0.2 (6443/tcp)              --- veth --- edge 10.98.0.9, behind nftables
    DNS            10.98.0.3 (53/udp)               /

The firewall lets in replies only, and out what the handbook names; whatever else there was it counts. UDP to the hub is
closed at first.
"""

from __future__ import annotations

import functools
import json
import pathlib
import ssl
import struct
import subprocess
import sys
import tempfile
from typing import Any

import trio
import trustme

from tests.edge.fakekube import FakeKube, open_kube
from tests.edge.test_cli import plain_environment, variables
from tests.hub.whole import Whole, edge_settings, whole_hub

HUB, API, DNS, NAME = "10.98.0.1", "10.98.0.2", "10.98.0.3", "hub.daalu.test"
FIREWALL = f"""
table inet firewall {{
  set open {{ type inet_service; }}
  counter hub {{ }}
  counter wireguard {{ }}
  counter api {{ }}
  counter dns {{ }}
  counter closed {{ }}
  counter other {{ }}
  chain input {{
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established,related accept
  }}
  chain output {{
    type filter hook output priority 0; policy drop;
    oif lo accept
    ip daddr {HUB} tcp dport 443 counter name hub accept
    ip daddr {HUB} udp dport @open counter name wireguard accept
    ip daddr {HUB} udp dport 51820 counter name closed drop
    ip daddr {API} tcp dport 6443 counter name api accept
    ip daddr {DNS} udp dport 53 counter name dns accept
    counter name other drop
  }}
}}
"""


def run(*words: str, text: str = "") -> str:
    done = subprocess.run(words, input=text or None, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


async def serve_dns() -> None:
    """One name with one IPv4 address; nothing else exists."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as udp:
        await udp.bind((DNS, 53))
        while True:
            query, sender = await udp.recvfrom(512)
            end = query.index(b"\0", 12) + 5
            wanted = b"".join(bytes([len(label)]) + label.encode() for label in NAME.split(".")) + b"\0"
            is_ours = query[12 : end - 4] == wanted
            has_address = is_ours and query[end - 4 : end - 2] == b"\0\1"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4" + bytes(map(int, HUB.split("."))) if has_address else b""
            head = struct.pack(">HHHHH", 0x8580 if is_ours else 0x8583, 1, int(has_address), 0, 0)
            await udp.sendto(query[:2] + head + query[12:end] + record, sender)


async def main(folder: pathlib.Path, inside: str) -> dict[str, Any]:
    """Join with UDP closed, open it, use the tunnel, and read the firewall's counters."""
    run("ip", "link", "set", "lo", "up")
    for address in (HUB, API, DNS):
        run("ip", "address", "add", f"{address}/24", "dev", "hub0")
    run("ip", "link", "set", "hub0", "up")
    run("ip", "netns", "exec", inside, "nft", "-f", "-", text=FIREWALL)
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(API).configure_cert(context)
    ca.cert_pem.write_to_path(folder / "api-ca.crt")
    async with (
        trio.open_nursery() as nursery,
        open_kube(tls=context, host=API, port=6443) as kube,
    ):
        nursery.start_soon(serve_dns)
        more = {"listen": f"{HUB}:443", "wireguard_port": 51820, "public_url": f"https://{NAME}"}
        async with whole_hub(folder, **more) as whole:
            found = await story(whole, kube, folder, inside)
        nursery.cancel_scope.cancel()
    return found


async def story(whole: Whole, kube: FakeKube, folder: pathlib.Path, inside: str) -> dict[str, Any]:
    invite = await whole.invite()
    settings = edge_settings(
        whole, kube, folder / "edge", invite.token, api_ca=str(folder / "api-ca.crt"), heartbeat=5, health_port=8081
    )
    edge = functools.partial(trio.run_process, env=plain_environment(variables(settings)), check=False)
    program = ["ip", "netns", "exec", inside, sys.executable, "-m", "edge_agent"]
    job = await edge([*program, "bootstrap"], capture_stdout=True)
    found: dict[str, Any] = {"job": [job.returncode, job.stdout.decode()]}
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(functools.partial(edge, [*program, "run"]))
        await whole.until(lambda: counters(inside)["closed"] >= 3)
        row = await whole.row(invite.cluster_id)
        found["blocked"] = [row.phase, row.reason]
        ladder = await whole.services.clusters.ladder(whole.admin, invite.cluster_id)
        found["ladder"] = repr(ladder)
        run("ip", "netns", "exec", inside, "nft", "add", "element", "inet", "firewall", "open", "{ 51820 }")
        found["connected"] = (await whole.until_phase(invite.cluster_id, "connected")).phase
        actor = await whole.reauthenticated()
        issued = await whole.services.kubectl.issue_kubeconfig(actor, invite.cluster_id)
        token = issued.yaml.partition('token: "')[2].partition('"')[0]
        base = f"/k8s/clusters/{invite.cluster_id}"
        async with whole.client(headers={"Authorization": f"Bearer {token}"}) as client:
            found["version"] = (await client.get(f"{base}/version")).json()["gitVersion"]
            answer = await client.get(f"{base}/api/v1/namespaces/default/pods/web/log?octets=2000000")
            found["octets"] = len(answer.content)
        process.terminate()
        await process.wait()
        found["left"] = (await whole.until_phase(invite.cluster_id, "disconnected")).reason
    found["counters"] = counters(inside)
    return found


def counters(inside: str) -> dict[str, int]:
    """Packets that left, or would have, by where to."""
    listed = json.loads(run("ip", "netns", "exec", inside, "nft", "-j", "list", "counters"))["nftables"]
    return {one["counter"]["name"]: one["counter"]["packets"] for one in listed if "counter" in one}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(trio.run(main, pathlib.Path(name), sys.argv[1])))
