"""Many edges in one process, as far as a hub can tell: real joins over HTTPS, real tunnels, hello, heartbeats.

`python -m benchmarks.edges URL CA COUNT`, with a session in $DEMO_COOKIE and $DEMO_CSRF; until it is ended.
"""

from __future__ import annotations

import json
import os
import random
import ssl
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

import trio

import wgpy
from edge_agent.contract import BEAT, Datagram, Exchange, HubConfig, Token, encode_key

_HEARTBEAT: Final = 5.0
_AT_ONCE: Final = 8
# A subnet with room for all of them.
_SUBNET: Final = "10.128.0.0/16"


class Hub:
    """The hub's HTTPS side; calls block, and are made in threads."""

    def __init__(self, url: str, ca: Path) -> None:
        """Trust this CA."""
        self._url = url
        context = ssl.create_default_context(cafile=str(ca))
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({})
        )

    def call(self, path: str, body: dict[str, Any]) -> Any:
        """POST a document."""
        headers = {
            "Content-Type": "application/json",
            "Cookie": os.environ["DEMO_COOKIE"],
            "X-CSRF-Token": os.environ["DEMO_CSRF"],
        }
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), headers, method="POST")
        with self._opener.open(request, timeout=120) as answer:
            return json.loads(answer.read())

    def join(self, number: int, subnet: str) -> tuple[bytes, bytes, HubConfig]:
        """Invite and redeem: private key, preshared key, configuration."""
        name = f"edge-{number}"
        invite = self.call("/v1/tenants/default/clusters", {"name": name, "subnet_id": subnet})
        private_key = bytes(wgpy.PrivateKey.generate())
        token = Token.parse(invite["token"])
        exchange = Exchange(private_key, token.hub_key)
        nonce, now = os.urandom(16), int(time.time())
        answer = self.call(
            "/v1/edge/bootstrap",
            {
                "token": invite["token"], "pubkey": encode_key(exchange.public_key), "nonce": encode_key(nonce),
                "proof": encode_key(exchange.request_proof(token.id, nonce, now)), "ts": now, "protocol": 1,
                "chart_version": "0.1.0", "agent_version": "0.1.0", "kube_version": "v1.36.3", "cluster_uid": name,
            },
        )  # fmt: skip
        psk = exchange.open_psk(answer["psk_sealed"], answer["cluster_id"])
        return private_key, psk, HubConfig.from_document(answer)


async def _edge(private_key: bytes, psk: bytes, config: HubConfig, number: int) -> None:
    hub = wgpy.PeerConfig(
        wgpy.PublicKey(config.hub_key),
        allowed_ips=[f"{config.hub_address}/32"],
        endpoint=config.endpoints[0].replace("localhost", "127.0.0.1"),
        preshared_key=wgpy.PresharedKey(psk),
        persistent_keepalive=config.keepalive,
    )
    own = wgpy.InterfaceConfig(wgpy.PrivateKey(private_key), addresses=[f"{config.address}/32"], peers=[hub])
    async with wgpy.open_tunnel(own) as tunnel, await tunnel.net.open_udp(remote=(config.hub_address, 7000)) as udp:
        stream = await tunnel.net.open_tcp_stream(config.hub_address, 7001)
        hello = {
            "type": "hello", "protocol": 1, "agent_version": "0.1.0", "chart_version": "0.1.0",
            "kube_version": "v1.36.3", "cluster_uid": f"edge-{number}", "mode": "userspace", "mode_reason": None,
            "mtu": 1420, "impersonation": {"enabled": False, "users": [], "groups": []},
            "config_revision": config.revision, "boot_id": f"boot-{number}",
            "service_account": "system:serviceaccount:daalu-edge:daalu-edge", "namespace": "daalu-edge", "job": None,
        }  # fmt: skip
        node = {
            "name": "one",
            "ready": True,
            "schedulable": True,
            "roles": [],
            "version": "v1",
            "created": 1_750_000_000,
        }
        await _say(stream, hello)
        echo, received, seq = 0, 0.0, 0

        async def listen() -> None:
            nonlocal echo, received
            while True:
                answer = Datagram.decode_untrusted(await udp.receive())
                if answer is not None:
                    echo, received = answer.sent, trio.current_time()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            while True:
                if seq % 6 == 0:  # every 30 s, as an edge does
                    nodes = {"generation": seq // 6, "part": 0, "last": True, "nodes": [node | {"conditions": []}]}
                    await _say(stream, {"type": "nodes", **nodes})
                    await _say(stream, {"type": "api", "state": "ok", "errno": None, "detail": ""})
                seq += 1
                now = trio.current_time()
                held = int((now - received) * 1e6) if echo else 0
                await udp.send(Datagram(BEAT, seq, int(now * 1e6), echo, held).encode())
                await trio.sleep(_HEARTBEAT)


async def _say(stream: trio.abc.SendStream, message: dict[str, Any]) -> None:
    await stream.send_all(json.dumps(message).encode() + b"\n")


async def main(url: str, ca: str, count: str) -> None:
    """Join them, a few at a time, and keep them up."""
    hub = Hub(url, Path(ca))
    subnet = await trio.to_thread.run_sync(hub.call, "/v1/tenants/default/subnets", {"cidr": _SUBNET})
    room = trio.CapacityLimiter(_AT_ONCE)

    async def one(number: int) -> None:
        joined = await trio.to_thread.run_sync(hub.join, number, subnet["id"], limiter=room)
        while True:  # as an edge does: whatever breaks is made anew after a moment
            try:
                await _edge(*joined, number)
            except (OSError, trio.BrokenResourceError) as problem:
                print(f"edge {number}: {problem}; again", file=sys.stderr, flush=True)
            await trio.sleep(random.uniform(1, 3))

    async with trio.open_nursery() as nursery:
        for number in range(int(count)):
            nursery.start_soon(one, number)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
